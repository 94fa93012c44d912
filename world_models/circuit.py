"""Race circuits for the mini track: closed random curves, each drawn once into a flat map.

A circuit is a function of its number. Its centre line is, in polar coordinates,

    r(phi) = R (1 + sum_k a_k cos(k phi + b_k)),   k = 2 ... 5,   random a_k, b_k

which never crosses itself. Lengths are in units: the car sees one unit as one pixel. The map has
`SCALE` texels a unit, so that half a unit of motion can be seen.

    picture   a packed colour for each texel, so that a view is one look-up for each pixel
    tile      the number of the road's tile, and -1 where there is no road

x points right and y down, as in pictures; a heading of 0 is to the right, and grows clockwise.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

SCALE = 2
FIELD = 136
"""Side of the square field, in units; outside it an episode is over."""
MARGIN = 32
"""Units around the field, so that no view leaves the map: a view reaches 29 units from the car."""
SIDE = SCALE * (FIELD + 2 * MARGIN)
"""Side of the map, in texels."""
RADIUS = 34.0
HALF_WIDTH = 3.5
CURB = 0.8
"""Units of the road's edge that are painted."""
TILE = 2.5
"""Length of a tile, in units: more than the car can drive in one frame."""

COLOURS = {
    "grass": (86, 166, 74),
    "grass_dark": (74, 150, 64),
    "road": (106, 106, 112),
    "road_light": (118, 118, 124),
    "curb": (235, 235, 235),
    "outside": (44, 40, 70),
    "car": (206, 30, 30),
}


def packed(name: str) -> np.uint32:
    """A colour as one number whose bytes in memory are red, green, blue and 255."""
    return np.array([*COLOURS[name], 255], np.uint8).view(np.uint32)[0]


class Circuit(NamedTuple):
    """One circuit of T tiles, in map coordinates (units from the map's upper left corner)."""

    picture: np.ndarray  # (SIDE, SIDE) uint32
    tile: np.ndarray  # (SIDE, SIDE) int16
    start: np.ndarray  # (T, 3): x, y and heading at the middle of each tile


class Circuits(NamedTuple):
    """K circuits, their maps one after another: texel (row, column) of circuit k has the index
    k SIDE^2 + row SIDE + column.
    """

    picture: np.ndarray  # (K SIDE^2,) uint32
    tile: np.ndarray  # (K SIDE^2,) int16
    start: np.ndarray  # (K, T, 3), T of the longest circuit
    tiles: np.ndarray  # (K,) the number of tiles


def centre_line(number: int, spacing: float = 0.25) -> np.ndarray:
    """Points (P, 2) of the closed centre line, about `spacing` units apart, clockwise."""
    rng = np.random.default_rng((2018, number))
    order = np.arange(2, 6)
    height = rng.uniform(0.35, 1.0, 4) * (0.15, 0.11, 0.08, 0.05)
    phase = rng.uniform(0, 2 * np.pi, 4)
    angle = np.linspace(0, 2 * np.pi, 4001)
    radius = RADIUS * (1 + (height * np.cos(np.outer(angle, order) + phase)).sum(axis=1))
    curve = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    length = np.hypot(*np.diff(curve, axis=0).T).cumsum()
    along = np.concatenate([[0.0], length])
    tiles = round(length[-1] / TILE)
    points = tiles * round(TILE / spacing)  # so that every tile has equally many
    at = np.arange(points) * (length[-1] / points)
    return np.stack([np.interp(at, along, axis) for axis in curve.T], axis=1)


@lru_cache(maxsize=256)
def circuit(number: int) -> Circuit:
    """The circuit of that number, drawn. Callers must not change its arrays."""
    points = centre_line(number) + FIELD / 2 + MARGIN  # (P, 2)
    per_tile = round(TILE / 0.25)
    tile, distance = _nearest(points, np.arange(len(points)) // per_tile)
    row, column = np.indices((SIDE, SIDE))
    checks = (row // (6 * SCALE) + column // (6 * SCALE)) % 2
    picture = np.where(checks, packed("grass"), packed("grass_dark"))
    inside = (np.stack([row, column]) >= MARGIN * SCALE) & (
        np.stack([row, column]) < (MARGIN + FIELD) * SCALE
    )
    picture[~inside.all(axis=0)] = packed("outside")
    road = tile >= 0
    picture[road] = np.where(tile[road] // 2 % 2, packed("road"), packed("road_light"))
    picture[road & (distance > HALF_WIDTH - CURB)] = packed("curb")
    ahead = np.roll(points, -1, axis=0) - points
    heading = np.arctan2(ahead[:, 1], ahead[:, 0])
    middle = slice(per_tile // 2, None, per_tile)
    start = np.column_stack([points, heading])[middle]
    for array in (picture, tile, start):
        array.flags.writeable = False
    return Circuit(picture, tile, start)


def _nearest(points: np.ndarray, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each texel the tile of the nearest point, -1 beyond HALF_WIDTH, and its distance.

    A disc is stamped around all points at once, from its rim to its middle: the nearest point is
    the last one to be written.
    """
    reach = int(np.ceil(HALF_WIDTH * SCALE)) + 1
    row, column = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    far = np.hypot(row, column)
    tile = np.full((SIDE, SIDE), -1, np.int16)
    distance = np.full((SIDE, SIDE), np.inf)
    centre = np.floor(points * SCALE).astype(int)
    for i in np.argsort(-far, kind="stable"):
        if far[i] <= HALF_WIDTH * SCALE:
            at = centre[:, 1] + row[i], centre[:, 0] + column[i]
            tile[at], distance[at] = tiles, far[i] / SCALE
    return tile, distance


@lru_cache(maxsize=4)
def circuits(numbers: tuple[int, ...]) -> Circuits:
    """The circuits of these numbers. Callers must not change the arrays."""
    drawn = [circuit(number) for number in numbers]
    tiles = np.array([len(one.start) for one in drawn])
    start = np.zeros((len(drawn), tiles.max(), 3))
    for row, one in zip(start, drawn, strict=True):
        row[: len(one.start)] = one.start
    picture = np.concatenate([one.picture.ravel() for one in drawn])
    return Circuits(picture, np.concatenate([one.tile.ravel() for one in drawn]), start, tiles)
