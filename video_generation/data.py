"""Clips of things that move in straight lines and bounce off the walls, with their true positions.

Moving MNIST (Srivastava et al. 2015) made anew: a digit of 28 pixels in a picture of 64, or smaller
in the same proportion. What is different here, and why:
- Positions are real numbers and every pixel is the exact mean of the digit over its area. A
  clip drawn at half the side is therefore the clip drawn in full, averaged over 2 x 2 pixels, which
  is what the cascade needs; and the true position is known to a fraction of a pixel.
- Test clips are made of test digits, validation clips of training digits kept apart from the rest.
  Digits shared between the splits would leak their form.

Letters: N clips, T frames, J objects, C channels, S side of a picture, k side of an object.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from labkit import exercise
from labkit.data import ImageData, check_share, epoch_order

PROPORTION = 28 / 64
"""Side of an object, as a share of the picture's: that of Moving MNIST."""
SLOWEST, FASTEST = 0.06, 0.13
"""Speed in sides of the picture per frame of the base rate, before it is given a direction."""
SPLITS = ("train", "validation", "test")
BALL_SIDE = 28
BALLS = ("disc", "ring", "square")


@dataclass(frozen=True)
class Motion:
    """How clips are made. `rate` frames of a clip are one frame at the base rate."""

    frames: int
    side: int
    objects: int = 1
    rate: int = 1

    @property
    def sprite(self) -> int:
        """k, the side of an object in pixels."""
        return round(PROPORTION * self.side)

    @property
    def room(self) -> int:
        """How far an object can move in each direction, in pixels."""
        return self.side - self.sprite


@dataclass(frozen=True)
class Clips:
    """Clips and the truth about them. `positions` are of the upper left corner of each object, as
    (row, column) in pixels; `bounces` counts its contacts with walls since the first frame.
    """

    frames: np.ndarray  # uint8 (N, T, C, S, S)
    positions: np.ndarray  # float64 (N, T, J, 2)
    bounces: np.ndarray  # int64 (N, T, J)
    sprites: np.ndarray  # float32 (N, J, C, k, k) in [0, 1], as drawn at a whole position
    velocity: np.ndarray  # float64 (N, J, 2) of the first frame, in pixels per frame
    labels: np.ndarray  # int64 (N, J)

    def __len__(self) -> int:
        return len(self.frames)


@exercise(minutes=25)
def bounce(
    start: np.ndarray, velocity: np.ndarray, times: np.ndarray, room: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions at the given times of points that move straight between two walls, 0 and `room`,
    and are reflected by both without loss.

    Without walls a point would be at start + velocity * time. Fold this line at the walls: it has
    period 2 room, and the second half of a period is run through backwards. No step-by-step
    simulation is needed, and any time may be asked for.

    Args:
        start: float64 (...), from 0 to below room.
        velocity: (...), of any sign and size.
        times: (T,), 0 or more.
        room: above 0.
    Returns:
        positions, float64 (..., T), and the number of reflections up to each time, int64 (..., T):
        how often the unfolded line has crossed a multiple of room. Arguments are not changed.
    """
    line = start[..., None] + velocity[..., None] * times
    place = np.mod(line, 2 * room)
    folded = np.where(place > room, 2 * room - place, place)
    return folded, np.abs(np.floor(line / room)).astype(np.int64)


@exercise(minutes=25)
def coverage(corner: np.ndarray, size: float, cells: int, side: int) -> np.ndarray:
    """How much of each pixel is covered by each cell of an object, along one axis.

    The object is divided into `cells` equal cells. The first begins at `corner`, the last ends at
    corner + size. Pixel i reaches from i to i + 1. The entry for pixel i and cell j is the length
    of their overlap, 0 where there is none. An object X of (cells, cells) is then drawn, every
    pixel the exact mean over its area, by

        coverage(row) @ X @ coverage(column).T

    Args:
        corner: (...), in pixels, anywhere.
        size: of the object in pixels, above 0.
    Returns:
        float32 (..., side, cells), computed in float64.
    """
    edges = corner[..., None] + size / cells * np.arange(cells + 1)  # (..., cells + 1)
    left, right = edges[..., None, :-1], edges[..., None, 1:]
    pixel = np.arange(side)[:, None]
    overlap = np.minimum(right, pixel + 1) - np.maximum(left, pixel)
    return np.clip(overlap, 0, None).astype(np.float32)


def draw(sprites: np.ndarray, corners: np.ndarray, size: float, side: int) -> np.ndarray:
    """Objects float32 (M, C, h, h) at corners (M, 2) -> pictures float32 (M, C, side, side)."""
    cells = sprites.shape[-1]
    rows = coverage(corners[:, 0], size, cells, side)[:, None]
    columns = coverage(corners[:, 1], size, cells, side)[:, None]
    picture: np.ndarray = rows @ sprites @ columns.swapaxes(-1, -2)
    return picture


def make(x: np.ndarray, y: np.ndarray, n: int, motion: Motion, seed: int) -> Clips:
    """n clips of objects chosen from pictures x, uint8 (M, C, h, h), of classes y (M,).

    A pure function of its arguments. Objects do not see each other: where two overlap, the brighter
    pixel is shown.
    """
    rng = np.random.default_rng(seed)
    size, room, J = motion.sprite, motion.room, motion.objects
    chosen = rng.integers(len(x), size=(n, J))
    start = rng.uniform(0, room, (n, J, 2))
    angle = rng.uniform(0, 2 * np.pi, (n, J))
    speed = rng.uniform(SLOWEST, FASTEST, (n, J)) * motion.side
    velocity = np.stack([np.sin(angle), np.cos(angle)], axis=-1) * speed[..., None]
    times = np.arange(motion.frames) / motion.rate
    places, hits = bounce(start, velocity, times, room)  # (n, J, 2, T) both
    positions = places.transpose(0, 3, 1, 2)

    frames = np.empty((n, motion.frames, x.shape[1], motion.side, motion.side), np.uint8)
    sprites = np.empty((n, J, x.shape[1], size, size), np.float32)
    for begin in range(0, n, 500):  # as floating-point numbers they would take much memory
        part = slice(begin, begin + 500)
        things = x[chosen[part]].astype(np.float32) / 255  # (m, J, C, h, h)
        m, corner = len(things), positions[part]
        each = np.broadcast_to(things[:, None], (m, motion.frames, *things.shape[1:]))
        drawn = draw(
            each.reshape(-1, *things.shape[2:]), corner.reshape(-1, 2), size, motion.side
        ).reshape(m, motion.frames, J, *frames.shape[2:])
        frames[part] = (drawn.max(axis=2) * 255).round().clip(0, 255)
        corners = np.zeros((m * J, 2))
        sprites[part] = draw(things.reshape(-1, *things.shape[2:]), corners, size, size).reshape(
            m, J, *sprites.shape[2:]
        )
    return Clips(
        frames, positions, hits.sum(axis=2).swapaxes(1, 2), sprites, velocity / motion.rate,
        y[chosen],
    )  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """What the clips of one split are made of: pictures uint8 (M, C, h, h), classes int64 (M,)."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def clips(self, n: int, motion: Motion, seed: int) -> Clips:
        return make(self.x, self.y, n, motion, seed)


@exercise(minutes=15)
def split_pools(x: np.ndarray, y: np.ndarray, share: float, seed: int) -> tuple[Pool, Pool]:
    """Training and validation pool from the training pictures of a dataset.

    round(share * M) of the M pictures, chosen at random by epoch_order(M, 0, seed), are for
    validation: the first of that order. All others are for training. No picture is in both, and
    each keeps its class. The split is made of pictures, before any clip is: clips of one digit in
    both splits would leak its form.

    Args:
        x: (M, C, h, h).
        y: (M,).
    Returns:
        (training, validation). Raises UsageError, by check_share(M, share), when one is empty.
    """
    check_share(len(x), share)
    order = epoch_order(len(x), 0, seed)
    count = round(share * len(x))
    return Pool(x[order[count:]], y[order[count:]]), Pool(x[order[:count]], y[order[:count]])


def pools(data: ImageData, share: float) -> dict[str, Pool]:
    """The three splits of a dataset; `share` of its training pictures are for validation."""
    train, validation = split_pools(data.train.x, data.train.y, share, seed=0)
    return {"train": train, "validation": validation, "test": Pool(data.test.x, data.test.y)}


def ball_pools() -> dict[str, Pool]:
    """Discs, rings and squares of many sizes and grey values, by formula: needs no dataset."""
    return {
        name: _balls(count, seed)
        for seed, (name, count) in enumerate(zip(SPLITS, (3000, 500, 1000), strict=True))
    }


def _balls(n: int, seed: int) -> Pool:
    rng = np.random.default_rng((seed, BALL_SIDE))
    y = rng.integers(len(BALLS), size=n)
    radius = rng.uniform(0.3, 0.48, (n, 1, 1)) * BALL_SIDE
    grey = rng.uniform(0.6, 1.0, (n, 1, 1))
    along = np.arange(BALL_SIDE) + 0.5 - BALL_SIDE / 2
    round_, square = (
        np.hypot(*np.meshgrid(along, along)),
        np.maximum(*np.abs(np.meshgrid(along, along))),
    )
    distance = np.stack(
        [round_ - radius, np.abs(round_ - 0.75 * radius) - 0.25 * radius, square - 0.85 * radius]
    )[y, np.arange(n)]  # (n, h, h), negative inside
    x = grey * np.clip(0.5 - distance, 0, 1)  # one pixel of smooth edge
    return Pool((x * 255).round().astype(np.uint8)[:, None], y)


def digest(parts: Mapping[str, Pool]) -> str:
    """SHA-256 over the pictures and classes of the pools in order."""
    total = hashlib.sha256()
    for part in parts.values():
        total.update(np.ascontiguousarray(part.x).data)
        total.update(np.ascontiguousarray(part.y).data)
    return total.hexdigest()
