"""Views of a scene made by formula: balls on a chequered slab, lit from above, without shadows.

Each ray is intersected with the shapes in closed form, so pictures, opacity and depth are exact up
to the four rays that a pixel averages.
"""

from __future__ import annotations

import math

import numpy as np

from labkit.data.views import ViewData, Views

SIDE, FOCAL, RADIUS = 100, 139.0, 4.0
NEAR, FAR, BOUND = 2.0, 6.0, 1.5
CENTRES = np.array(
    [(0.0, 0.0, 0.2), (0.75, 0.1, -0.05), (-0.55, 0.55, 0.0), (-0.3, -0.75, -0.1), (0.35, 0.75, 0)]
)
RADII = np.array([0.5, 0.3, 0.35, 0.25, 0.2])
COLOURS = np.array(
    [(0.85, 0.25, 0.2), (0.2, 0.55, 0.85), (0.95, 0.75, 0.2), (0.3, 0.7, 0.35), (0.6, 0.3, 0.7)]
)
SLAB_LOW, SLAB_HIGH = np.array((-1.1, -1.1, -0.5)), np.array((1.1, 1.1, -0.35))
LIGHT = np.array((0.3, -0.4, 0.87)) / np.linalg.norm((0.3, -0.4, 0.87))


def balls(train: int = 60, valid: int = 5, test: int = 10) -> ViewData:
    """The scene from cameras spread evenly over the upper part of a sphere; the test's and the
    validation's cameras stand between those of training."""
    count = train + valid + test
    cameras = poses(count)
    x = np.stack([render(pose) for pose in cameras])
    held = np.linspace(0, count - 1, valid + test + 2).round().astype(int)[1:-1]
    at_valid = held[:: len(held) // valid][:valid]
    at_test = np.setdiff1d(held, at_valid)
    at_train = np.setdiff1d(np.arange(count), held)

    def split(at: np.ndarray) -> Views:
        return Views(x[at], cameras[at])

    return ViewData(
        "balls", "embedded", split(at_train), split(at_valid), split(at_test),
        FOCAL, NEAR, FAR, BOUND,
    )  # fmt: skip


def poses(count: int) -> np.ndarray:
    """float64 (count, 4, 4): cameras on a spiral of golden angles, all looking at the origin."""
    number = np.arange(count)
    height = 0.15 + 0.75 * (number + 0.5) / count  # sine of the elevation
    turn = number * math.pi * (3 - math.sqrt(5))
    flat = np.sqrt(1 - height**2)
    backward = np.stack((flat * np.cos(turn), flat * np.sin(turn), height), axis=1)
    right = np.stack((-np.sin(turn), np.cos(turn), np.zeros(count)), axis=1)
    result = np.zeros((count, 4, 4))
    result[:, :3, 0], result[:, :3, 1] = right, np.cross(backward, right)
    result[:, :3, 2], result[:, :3, 3], result[:, 3, 3] = backward, RADIUS * backward, 1
    return result


def render(pose: np.ndarray, side: int = SIDE, focal: float = FOCAL) -> np.ndarray:
    """uint8 (4, side, side): the mean of 2 x 2 rays a pixel; colours not multiplied by opacity."""
    at = (np.arange(2 * side) + 0.5) / 2
    v, u = np.meshgrid(at, at, indexing="ij")
    camera = np.stack(((u - side / 2) / focal, (side / 2 - v) / focal, -np.ones_like(u)), axis=-1)
    directions = camera @ pose[:3, :3].T
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    colour, depth = trace(pose[:3, 3], directions.reshape(-1, 3))
    opacity = np.isfinite(depth).astype(np.float64)
    block = (side, 2, side, 2)
    alpha = opacity.reshape(block).mean((1, 3))
    total = (colour * opacity[:, None]).reshape(*block, 3).mean((1, 3))
    total = total / np.maximum(alpha, 1e-9)[..., None]
    picture = np.concatenate((total, alpha[..., None]), axis=-1)
    result: np.ndarray = (picture.clip(0, 1) * 255).round().astype(np.uint8).transpose(2, 0, 1)
    return result


def trace(origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour (R, 3) and distance (R,) of what rays from one point (3,) with unit directions (R, 3)
    meet first; the distance is inf where they meet nothing."""
    nearest = np.full(len(directions), np.inf)
    normal, albedo = np.zeros((2, len(directions), 3))
    for centre, radius, colour in zip(CENTRES, RADII, COLOURS, strict=True):
        along = directions @ (centre - origin)
        under = radius**2 - ((origin - centre) ** 2).sum() + along**2
        t = np.where(under > 0, along - np.sqrt(np.maximum(under, 0)), np.inf)
        hit = (t > 0) & (t < nearest)
        nearest[hit] = t[hit]
        normal[hit] = (origin + t[hit, None] * directions[hit] - centre) / radius
        albedo[hit] = colour
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (SLAB_LOW - origin) / directions, (SLAB_HIGH - origin) / directions
    enter, leave = np.minimum(a, b), np.maximum(a, b).min(axis=1)
    t = enter.max(axis=1)
    hit = (t > 0) & (t < leave) & (t < nearest)
    nearest[hit] = t[hit]
    axis = enter[hit].argmax(axis=1)
    normal[hit] = -np.sign(directions[hit]) * np.eye(3)[axis]
    place = origin + t[hit, None] * directions[hit]
    chequer = np.floor(place[:, :2] / 0.275).sum(axis=1) % 2
    albedo[hit] = np.where(chequer[:, None] > 0, (0.25, 0.27, 0.3), (0.85, 0.84, 0.8))
    shade = 0.45 + 0.55 * np.maximum(normal @ LIGHT, 0)
    return albedo * shade[:, None], nearest
