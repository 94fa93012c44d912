"""Rigid frames: a rotation and a translation for each residue.

A frame T = (R, t) takes a point from the residue's own coordinates to global ones,
T(x) = R x + t. Jumper et al. 2021, supplement, sections 1.1 and 1.8.

... any axes in front, of frames and points alike.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from labkit import exercise


class Frames(NamedTuple):
    """Rotations (..., 3, 3) and translations (..., 3)."""

    rotation: Tensor
    translation: Tensor


def identity(shape: tuple[int, ...], like: Tensor) -> Frames:
    """Frames of that shape that move nothing, in the type and on the device of `like`."""
    eye = torch.eye(3, dtype=like.dtype, device=like.device)
    return Frames(eye.expand(*shape, 3, 3), like.new_zeros(*shape, 3))


@exercise(minutes=20)
def from_points(a: Tensor, origin: Tensor, b: Tensor) -> Frames:
    """Frames from three points each (..., 3), by Gram-Schmidt (supplement, algorithm 21).

    For a residue they are N, CA and C. The first axis points from the origin to b. The second is
    the part of a - origin that is perpendicular to it, the third completes a right-handed system.
    The axes have length 1 and are the *columns* of the rotation (..., 3, 3); the translation is the
    origin. Nothing is changed in place.
    """
    first = torch.nn.functional.normalize(b - origin, dim=-1)
    side = a - origin
    side = side - first * (first * side).sum(-1, keepdim=True)
    second = torch.nn.functional.normalize(side, dim=-1)
    third = torch.linalg.cross(first, second)
    return Frames(torch.stack((first, second, third), dim=-1), origin)


def apply(frames: Frames, points: Tensor) -> Tensor:
    """Global coordinates R x + t of points (..., 3) in the coordinates of their frames."""
    return torch.einsum("...ij,...j->...i", frames.rotation, points) + frames.translation


@exercise(minutes=10)
def invert_apply(frames: Frames, points: Tensor) -> Tensor:
    """The coordinates that global points (..., 3) have in their frames, Rᵀ (x - t): the opposite of
    `apply`. The axes before the last broadcast. Nothing is changed in place.
    """
    return torch.einsum("...ji,...j->...i", frames.rotation, points - frames.translation)


@exercise(minutes=15)
def compose(outer: Frames, inner: Frames) -> Frames:
    """The frames T with T(x) = outer(inner(x)) for every x, axes before the last ones broadcast.

    Written out: R = R_outer R_inner and t = R_outer t_inner + t_outer (supplement, section 1.1).
    """
    return Frames(outer.rotation @ inner.rotation, apply(outer, inner.translation))


def invert(frames: Frames) -> Frames:
    """The frames that take back what `frames` does."""
    turned = frames.rotation.mT
    return Frames(turned, -torch.einsum("...ij,...j->...i", turned, frames.translation))


def from_update(update: Tensor) -> Frames:
    """Frames from six numbers each (..., 6): three for the rotation, three for the translation.

    The first three are b, c, d of the quaternion (1, b, c, d), which is then brought to length 1;
    0 moves nothing (supplement, algorithm 23).
    """
    quaternion = torch.cat((torch.ones_like(update[..., :1]), update[..., :3]), dim=-1)
    a, b, c, d = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = (
        (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)),
        (2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)),
        (2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d),
    )
    rotation = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    return Frames(rotation, update[..., 3:])
