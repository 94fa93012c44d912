"""Pinhole cameras: from pixels to rays, and from points back to pixels.

A camera looks along -z, x is to its right and y up; rows of a picture go down. A pose (4, 4) takes
the camera's coordinates to the world's. Letters: H, W height and width, R rays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labkit import exercise


@exercise(minutes=20)
def camera_rays(pose: Tensor, focal: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The ray through the centre of each pixel, in the world's coordinates.

    In the camera's coordinates the pixel in row i and column j looks along

        ((j + 0.5 - W / 2) / focal, -(i + 0.5 - H / 2) / focal, -1)

    The rotation, the upper left 3 x 3 of the pose, takes it to the world. Directions have length 1,
    so that a distance along a ray is a distance in the world.

    Args:
        pose: (4, 4), camera to world; its last column is the camera's place.
        focal: focal length in pixels, the same both ways.
    Returns:
        Origins (H, W, 3) and directions (H, W, 3), of the pose's type and device.
    Source: Mildenhall et al. 2020, section 4; the convention is Blender's.
    """
    rows = torch.arange(height, dtype=pose.dtype, device=pose.device) + 0.5
    columns = torch.arange(width, dtype=pose.dtype, device=pose.device) + 0.5
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    camera = torch.stack(
        ((u - width / 2) / focal, -(v - height / 2) / focal, -torch.ones_like(u)), dim=-1
    )
    world = camera @ pose[:3, :3].T
    directions = world / world.norm(dim=-1, keepdim=True)
    return pose[:3, 3].expand_as(directions), directions


def project(
    points: Tensor, pose: Tensor, focal: float, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Where points (N, 3) of the world fall: rows and columns (N, 2), and depth along the camera's
    axis (N,). The centre of the first pixel is (0.5, 0.5)."""
    camera = (points - pose[:3, 3]) @ pose[:3, :3]
    depth = -camera[:, 2]
    row = height / 2 - focal * camera[:, 1] / depth
    column = width / 2 + focal * camera[:, 0] / depth
    return torch.stack((row, column), dim=-1), depth


def clip_to_cube(
    origins: Tensor, directions: Tensor, bound: float, near: float, far: float
) -> tuple[Tensor, Tensor]:
    """The distances (R,) and (R,) at which rays enter and leave the cube from -bound to bound, not
    before near and not after far. A ray that misses it gets near twice.
    """
    inverse = 1 / torch.where(directions.abs() < 1e-9, 1e-9, directions)
    one, other = (-bound - origins) * inverse, (bound - origins) * inverse
    enter = torch.minimum(one, other).amax(dim=-1).clamp(min=near)
    leave = torch.maximum(one, other).amin(dim=-1).clamp(max=far)
    missed = leave <= enter
    return torch.where(missed, near, enter), torch.where(missed, near, leave)


def turntable(frames: int, radius: float, elevation: float) -> Tensor:
    """Poses (frames, 4, 4) of cameras on a circle that look at the origin; elevation in radians."""
    turn = torch.arange(frames) * (2 * torch.pi / frames)
    flat, height = torch.cos(torch.tensor(elevation)), torch.sin(torch.tensor(elevation))
    backward = torch.stack((flat * turn.cos(), flat * turn.sin(), height.expand(frames)), dim=1)
    right = torch.stack((-turn.sin(), turn.cos(), torch.zeros(frames)), dim=1)
    poses = torch.zeros(frames, 4, 4)
    poses[:, :3, 0], poses[:, :3, 1] = right, torch.linalg.cross(backward, right)
    poses[:, :3, 2], poses[:, :3, 3], poses[:, 3, 3] = backward, radius * backward, 1
    return poses
