"""Colour images made by formula: one of ten shapes anywhere, at any angle, size and colour.

Only form determines the class. Position, rotation, scale, both colours (either may be the lighter
one) and a striped background are drawn at random, so no pixel by itself says anything about the
class: a linear model on pixels stays near guessing, while a small convolutional network learns it.
"""

from __future__ import annotations

import numpy as np

from labkit.data.kinds import Split

SIDE = 32
CLASSES = (
    "disc", "ring", "square", "frame", "triangle",
    "cross", "star", "crescent", "two bars", "half disc",
)  # fmt: skip


def draw(n: int, seed: int) -> Split:
    """n images, classes in equal shares and random order; a pure function of (n, seed)."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % len(CLASSES))
    x = np.empty((n, 3, SIDE, SIDE), np.uint8)
    for start in range(0, n, 500):
        x[start : start + 500] = _render(y[start : start + 500], rng)
    return Split(x, y.astype(np.int64))


def _render(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images (n, 3, SIDE, SIDE) of the classes y (n,)."""
    n = len(y)
    pixel = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    v0, u0 = np.meshgrid(pixel, pixel, indexing="ij")  # (SIDE, SIDE), -1 at the top left
    scale = rng.uniform(0.38, 0.62, (n, 1, 1))
    centre = rng.uniform(-0.35, 0.35, (2, n, 1, 1))
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    du, dv = (u0 - centre[0]) / scale, (v0 - centre[1]) / scale
    u, v = np.cos(angle) * du + np.sin(angle) * dv, np.cos(angle) * dv - np.sin(angle) * du
    distance = (
        np.stack(_distances(u, v))[y, np.arange(n)] * scale
    )  # (n, SIDE, SIDE), negative inside
    mask = np.clip(0.5 - distance * SIDE / 2, 0, 1)[:, None]  # one pixel of smooth edge

    contrast = rng.uniform(0.25, 0.55, (n, 1)) * rng.choice([-1, 1], (n, 1))
    ground = rng.uniform(0.3, 0.7, (n, 3))
    ink = np.clip(ground + contrast + rng.uniform(-0.15, 0.15, (n, 3)), 0, 1)
    frequency, phase = rng.uniform(3, 9, (2, n, 1, 1)), rng.uniform(0, 2 * np.pi, (n, 1, 1))
    stripes = 0.08 * np.sin(frequency[0] * u0 + frequency[1] * v0 + phase)[:, None]
    image = (ground[:, :, None, None] + stripes) * (1 - mask) + ink[:, :, None, None] * mask
    image = image + rng.normal(0, 0.04, image.shape)
    pixels: np.ndarray = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return pixels


def _distances(u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    """Approximate signed distance to each shape of CLASSES, in shape units; similar areas."""
    radius, r_max = np.hypot(u, v), np.maximum(np.abs(u), np.abs(v))
    corners = [np.cos(a) * u + np.sin(a) * v for a in np.pi / 2 + np.arange(3) * 2 * np.pi / 3]
    spikes = 0.72 + 0.3 * np.cos(5 * np.arctan2(v, u))
    bar = np.maximum(np.abs(u) - 0.95, np.abs(v) - 0.28)
    post = np.maximum(np.abs(v) - 0.95, np.abs(u) - 0.28)
    return [
        radius - 0.8,
        np.abs(radius - 0.8) - 0.2,
        r_max - 0.72,
        np.abs(r_max - 0.75) - 0.18,
        np.maximum.reduce(corners) - 0.55,
        np.minimum(bar, post),
        radius - spikes,
        np.maximum(radius - 0.95, 0.75 - np.hypot(u - 0.45, v)),
        np.maximum(np.abs(np.abs(v) - 0.55) - 0.24, np.abs(u) - 0.9),
        np.maximum(radius - 1.0, -u),
    ]
