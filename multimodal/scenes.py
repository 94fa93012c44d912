"""Rendered scenes: one or two coloured shapes, and captions that say what is where.

A scene has one object, or two of which one is left of or above the other. Size, exact place, shade
and noise vary freely and no caption mentions them, so that a caption is true of many pictures, and
two captions that mean the same are true of the same ones.

The 64 combinations of colour and shape are divided before anything is rendered:

    train    40 combinations, the only ones in training scenes
    valid    8, for choosing settings
    test     16, for the number that is reported

Each colour and each shape is in training with five others, so "purple moon" can be understood by a
model that never saw one. A model that learned combinations as wholes cannot (composition).

Letters: N scenes, S pixels of a side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

COLOURS = {
    "red": (0.88, 0.15, 0.15), "orange": (0.98, 0.55, 0.10), "yellow": (0.97, 0.92, 0.20),
    "green": (0.15, 0.70, 0.20), "cyan": (0.20, 0.85, 0.90), "blue": (0.20, 0.30, 0.95),
    "purple": (0.62, 0.20, 0.80), "white": (0.97, 0.97, 0.97),
}  # fmt: skip
"""Names and RGB in [0, 1]; the background is a dark grey."""


def _spikes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.72 + 0.28 * np.cos(5 * (np.arctan2(v, u) + np.pi / 2))


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda u, v: np.hypot(u, v) - 0.92,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) - 0.8,
    "triangle": lambda u, v: np.maximum(v - 0.75, 0.87 * abs(u) - 0.5 * v - 0.42),
    "diamond": lambda u, v: (abs(u) + abs(v) - 1.05) / 2**0.5,
    "cross": lambda u, v: np.minimum(
        np.maximum(abs(u) - 0.95, abs(v) - 0.3), np.maximum(abs(v) - 0.95, abs(u) - 0.3)
    ),
    "ring": lambda u, v: abs(np.hypot(u, v) - 0.7) - 0.24,
    "star": lambda u, v: np.hypot(u, v) - _spikes(u, v),
    "moon": lambda u, v: np.maximum(np.hypot(u, v) - 0.95, 0.72 - np.hypot(u - 0.45, v)),
}
"""Approximate distance to the edge, negative inside, in units of the object's radius; v is down."""

COLOUR_NAMES, SHAPE_NAMES = tuple(COLOURS), tuple(SHAPES)
ALONE, LEFT, ABOVE = 0, 1, 2
"""Relations: no second object; the first is left of the second; the first is above the second."""
COMBINATIONS = len(COLOURS) * len(SHAPES)
Split = Literal["train", "valid", "test"]
OFFSETS: dict[Split, tuple[int, ...]] = {"train": (1, 2, 4, 5, 7), "valid": (6,), "test": (0, 3)}
"""Which combinations a split has: those whose (shape - colour) mod 8 is listed."""


class Scenes(NamedTuple):
    """What N scenes show. A combination is 8 colour + shape."""

    first: np.ndarray
    """int64 (N,): combination of the only object, or of the left or upper one."""
    second: np.ndarray
    """int64 (N,): combination of the other; -1 for a scene with one object."""
    relation: np.ndarray
    """int64 (N,): ALONE, LEFT or ABOVE."""

    @property
    def meaning(self) -> np.ndarray:
        """A number for each scene, int64 (N,), equal exactly where the same captions are true."""
        pairs = (self.first * COMBINATIONS + self.second) * 2 + self.relation - LEFT
        return np.where(self.relation == ALONE, self.first, COMBINATIONS + pairs)

    def take(self, index: np.ndarray) -> Scenes:
        """Some of the scenes, in the order of `index`."""
        return Scenes(*(part[index] for part in self))

    def swapped(self) -> Scenes:
        """Scenes with two objects whose places are exchanged: the same words, another meaning."""
        return Scenes(self.second, self.first, self.relation)


def combinations(*splits: Split) -> np.ndarray:
    """The combinations of these splits in ascending order, int64."""
    offsets = [offset for split in splits for offset in OFFSETS[split]]
    every = np.arange(COMBINATIONS)
    return every[np.isin((every % 8 - every // 8) % 8, offsets)]


def name_of(combination: int) -> str:
    """`red circle`."""
    return f"{COLOUR_NAMES[combination // 8]} {SHAPE_NAMES[combination % 8]}"


def captions_of(scenes: Scenes) -> tuple[tuple[str, ...], ...]:
    """Four captions of each scene, all with the same meaning."""
    return tuple(
        _captions(int(a), int(b), int(relation)) for a, b, relation in zip(*scenes, strict=True)
    )


def with_article(name: str) -> str:
    """`a red circle`, `an orange circle`."""
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _captions(a: int, b: int, relation: int) -> tuple[str, ...]:
    first, second = with_article(name_of(a)), with_article(name_of(b))
    if relation == ALONE:
        colour, shape = name_of(a).split()
        return first, f"a {shape} that is {colour}", f"there is {first}", f"only {first}"
    if relation == LEFT:
        return (
            f"{first} left of {second}",
            f"{second} right of {first}",
            f"{first} is to the left of {second}",
            f"there is {second} to the right of {first}",
        )
    return (
        f"{first} above {second}",
        f"{second} below {first}",
        f"{first} is over {second}",
        f"there is {second} under {first}",
    )


def draw(n: int, among: Sequence[int] | np.ndarray, alone: float, seed: int) -> Scenes:
    """n random scenes of these combinations, a pure function of the arguments.

    Args:
        among: combinations; two or more where scenes with two objects are asked for.
        alone: share of the scenes with one object.
    """
    rng = np.random.default_rng((seed, 17))
    among = np.asarray(among)
    first = rng.integers(len(among), size=n)
    # Another one than the first, so that the two objects of a scene can be told apart.
    other = (first + rng.integers(1, max(2, len(among)), size=n)) % len(among)
    single = rng.random(n) < alone
    relation = np.where(single, ALONE, rng.integers(LEFT, ABOVE + 1, size=n))
    return Scenes(among[first], np.where(single, -1, among[other]), relation)


def opposites(found: Scenes, among: Sequence[int] | np.ndarray, seed: int) -> Scenes:
    """For each scene one that is nearly the same: with two objects these exchanged; with one object
    another of its colour or of its shape, among these combinations, or itself where there is none.
    """
    rng = np.random.default_rng((seed, 20))
    first, second = found.swapped().first.copy(), found.swapped().second.copy()
    among = np.asarray(among)
    for combination in np.unique(found.first[found.relation == ALONE]):
        rows = np.flatnonzero((found.relation == ALONE) & (found.first == combination))
        one = (among // 8 == combination // 8) != (among % 8 == combination % 8)  # not both
        near = among[one] if one.any() else np.array([combination])
        first[rows], second[rows] = rng.choice(near, len(rows)), -1
    return Scenes(first, second, found.relation)


def distinct_pairs(n: int, among: Sequence[int] | np.ndarray, seed: int) -> Scenes:
    """n scenes with two objects, or as many as there are, no two of the same meaning."""
    among = np.asarray(among)
    a, b, relation = np.meshgrid(among, among, (LEFT, ABOVE), indexing="ij")
    every = Scenes(a.ravel(), b.ravel(), relation.ravel())
    every = every.take(np.flatnonzero(every.first != every.second))
    return every.take(np.random.default_rng((seed, 18)).permutation(len(every.first))[:n])


def singles(among: Sequence[int] | np.ndarray) -> Scenes:
    """A scene with one object for each combination."""
    among = np.asarray(among, np.int64)
    return Scenes(among, np.full_like(among, -1), np.zeros_like(among))


def render(scenes: Scenes, side: int, seed: int) -> np.ndarray:
    """Pictures of the scenes, uint8 (N, 3, S, S): a pure function of the arguments."""
    rng = np.random.default_rng((seed, 19))
    parts = [
        _render(scenes.take(np.arange(start, min(start + 1000, len(scenes.first)))), side, rng)
        for start in range(0, len(scenes.first), 1000)  # in parts, to save memory
    ]
    return np.concatenate([np.empty((0, 3, side, side), np.uint8), *parts])


def _render(scenes: Scenes, side: int, rng: np.random.Generator) -> np.ndarray:
    n = len(scenes.first)
    x, y, radius = _places(scenes.relation, rng)
    grey = rng.uniform(0.05, 0.3, (n, 1, 1, 1))
    picture = np.broadcast_to(grey, (n, 3, side, side)).astype(np.float32)
    for place, combination in enumerate((scenes.first, scenes.second)):
        ink = np.array(list(COLOURS.values()))[combination // 8]
        ink = np.clip(
            ink * rng.uniform(0.85, 1.05, (n, 1)) + rng.uniform(-0.05, 0.05, (n, 3)), 0, 1
        )
        mask = _masks(combination, x[place], y[place], radius[place], side)[:, None]
        picture += mask * (ink[:, :, None, None].astype(np.float32) - picture)
    picture += 0.03 * rng.standard_normal(picture.shape, np.float32)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def _places(
    relation: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres x, y and radii of both objects, each (2, N), in shares of the side.

    With two objects, the distance along the axis of the relation is the larger one.
    """
    n = len(relation)
    along = np.stack([rng.uniform(0.2, 0.3, n), rng.uniform(0.7, 0.8, n)])
    across = rng.uniform(0.32, 0.68, (2, n))
    x, y = np.where(relation == ABOVE, across, along), np.where(relation == ABOVE, along, across)
    alone = relation == ALONE
    x[0], y[0] = (np.where(alone, rng.uniform(0.25, 0.75, n), each[0]) for each in (x, y))
    return x, y, rng.uniform(0.15, 0.2, (2, n))


def _masks(
    combination: np.ndarray, x: np.ndarray, y: np.ndarray, radius: np.ndarray, side: int
) -> np.ndarray:
    """How much of each pixel an object covers, float32 (N, S, S); nothing where there is none."""
    mask = np.zeros((len(combination), side, side), np.float32)
    pixel = ((np.arange(side) + 0.5) / side).astype(np.float32)
    for number, distance in enumerate(SHAPES.values()):
        index = np.flatnonzero((combination >= 0) & (combination % 8 == number))
        r = radius[index, None].astype(np.float32)
        u = ((pixel - x[index, None]) / r).astype(np.float32)[:, None, :]
        v = ((pixel - y[index, None]) / r).astype(np.float32)[:, :, None]
        edge = distance(u, v) * r[:, :, None] * side  # in pixels
        mask[index] = np.clip(0.5 - edge, 0, 1)
    return mask
