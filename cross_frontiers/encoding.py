"""What a network or a grid is given instead of bare coordinates. Letters: P points."""

from __future__ import annotations

import torch
from torch import Tensor

from labkit import exercise

PRIMES = (1, 2654435761, 805459861)
"""Of the spatial hash of Teschner et al. 2003, as Müller et al. 2022 take them."""


@exercise(minutes=15)
def positional_encoding(x: Tensor, levels: int) -> Tensor:
    """Coordinates and their sines and cosines at frequencies that double.

    For each coordinate, with f_k = 2^k pi and k = 0 ... levels - 1:

        (x, sin(f_0 x), cos(f_0 x), sin(f_1 x), cos(f_1 x), ...)

    Args:
        x: (P, D), scaled to about [-1, 1].
        levels: number of frequencies; 0 returns x alone.
    Returns:
        (P, D (1 + 2 levels)): all coordinates of x first, then sin(f_0 x) of all coordinates, then
        cos(f_0 x) of all, and so on.
    Source: Mildenhall et al. 2020, eq. 4; the coordinates themselves are from its code.
    """
    parts = [x]
    for level in range(levels):
        angle = x * (2.0**level * torch.pi)
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=-1)


def spherical_harmonics(directions: Tensor) -> Tensor:
    """The real spherical harmonics of degrees 0 to 2 at unit directions (P, 3): (P, 9).

    They are orthonormal over the sphere. Source: Ramamoorthi & Hanrahan 2001, eq. 3.
    """
    x, y, z = directions.unbind(dim=-1)
    return torch.stack(
        (
            torch.full_like(x, 0.28209479),
            0.48860251 * y, 0.48860251 * z, 0.48860251 * x,
            1.09254843 * x * y, 1.09254843 * y * z, 0.31539157 * (3 * z * z - 1),
            1.09254843 * x * z, 0.54627422 * (x * x - y * y),
        ),
        dim=-1,
    )  # fmt: skip


@exercise(minutes=20)
def hash_index(corners: Tensor, size: int) -> Tensor:
    """The row of a table that belongs to each corner of a grid, by a spatial hash.

        h(c) = (c_0 * 1  xor  c_1 * 2654435761  xor  c_2 * 805459861) mod size

    Numbers are multiplied as 64-bit integers, which do not overflow here, and reduced once, at the
    end. Different corners may get the same row: training sorts out who needs it more.

    Args:
        corners: int64 (..., 3), 0 or more. Left as they are.
        size: rows of the table, a power of 2.
    Returns:
        int64 (...), from 0 to size - 1.
    Raises:
        ValueError when size is not a power of 2.
    Source: Müller et al. 2022 (instant-ngp), eq. 4.
    """
    if size < 1 or size & (size - 1):
        raise ValueError(f"the table has {size} rows, which is not a power of 2")
    x, y, z = (corners[..., axis] * prime for axis, prime in enumerate(PRIMES))
    return (x ^ y ^ z) % size
