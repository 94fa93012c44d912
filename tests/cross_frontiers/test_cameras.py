"""Rays against projection, the cube against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cross_frontiers import cameras
from labkit.data.views import rigid


def some_pose(dtype: torch.dtype = torch.float64) -> Tensor:
    """A camera at (2, -3, 1.5) that is turned in all three axes."""
    torch.manual_seed(3)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    rotation = rotation * torch.det(rotation)  # no reflection
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = rotation, torch.tensor([2.0, -3.0, 1.5])
    return pose.to(dtype)


@pytest.mark.exercise("cameras.camera_rays")
@pytest.mark.parametrize(("height", "width"), [(4, 7), (6, 3), (1, 1)])
def test_points_on_a_ray_fall_on_the_centre_of_its_pixel(height: int, width: int) -> None:
    pose, focal = some_pose(), 5.5
    kept = pose.clone()
    origins, directions = cameras.camera_rays(pose, focal, height, width)
    assert torch.equal(pose, kept)
    assert origins.shape == directions.shape == (height, width, 3)
    assert origins.dtype == directions.dtype == torch.float64
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(height, width).double())
    points = (origins + 2.5 * directions).reshape(-1, 3)
    # Written out, not by the module: x right, y up, the camera looks along -z.
    camera = torch.linalg.solve(pose, torch.cat((points, torch.ones(len(points), 1)), 1).T).T
    assert (camera[:, 2] < 0).all()
    column = width / 2 + focal * camera[:, 0] / -camera[:, 2]
    row = height / 2 - focal * camera[:, 1] / -camera[:, 2]
    wanted_row = (torch.arange(height) + 0.5)[:, None].expand(height, width).reshape(-1)
    wanted_column = (torch.arange(width) + 0.5)[None].expand(height, width).reshape(-1)
    torch.testing.assert_close(row, wanted_row.double())
    torch.testing.assert_close(column, wanted_column.double())
    torch.testing.assert_close(origins.reshape(-1, 3)[-1], pose[:3, 3])


@pytest.mark.exercise("cameras.camera_rays")
def test_rays_take_type_and_device_of_the_pose() -> None:
    pose = torch.eye(4, dtype=torch.float32)
    origins, directions = cameras.camera_rays(pose, 10.0, 2, 3)
    assert origins.dtype == directions.dtype == torch.float32
    meta = cameras.camera_rays(pose.to("meta"), 10.0, 2, 3)
    assert {each.device.type for each in meta} == {"meta"}


@pytest.mark.exercise("cameras.camera_rays")
def test_rays_have_the_gradient_of_the_pose() -> None:
    pose = some_pose().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: cameras.camera_rays(p, 5.0, 2, 3), (pose,))


def test_projection_inverts_the_rays() -> None:
    pose = some_pose()
    origins, directions = cameras.camera_rays(pose, 8.0, 5, 9)
    places, depth = cameras.project((origins + 3 * directions).reshape(-1, 3), pose, 8.0, 5, 9)
    assert places.shape == (45, 2)
    torch.testing.assert_close(places[0], torch.tensor([0.5, 0.5]).double())
    torch.testing.assert_close(places[-1], torch.tensor([4.5, 8.5]).double())
    assert (depth <= 3 + 1e-9).all()
    assert (depth > 0).all()


def test_rays_are_cut_to_the_cube() -> None:
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(300, 3, generator=generator) * 3
    directions = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=1)
    directions[0], origins[0] = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.2, 0.3, -4.0])
    near, far = cameras.clip_to_cube(origins, directions, 1.0, 0.5, 6.0)
    t = torch.linspace(0.5, 6.0, 4001)
    inside = (origins[:, None] + t[:, None] * directions[:, None]).abs().amax(-1) <= 1
    for ray in range(300):
        if inside[ray].any():
            hit = t[inside[ray]]
            assert near[ray] == pytest.approx(hit[0].item(), abs=2e-3)
            assert far[ray] == pytest.approx(hit[-1].item(), abs=2e-3)
        else:
            assert far[ray] - near[ray] < 3e-3
    assert near[0] == pytest.approx(3)
    assert far[0] == pytest.approx(5)


def test_a_turntable_looks_at_the_origin() -> None:
    poses = cameras.turntable(5, 4.0, 0.5)
    for pose in poses:
        assert rigid(pose.double().numpy())
        origins, directions = cameras.camera_rays(pose, 50.0, 9, 9)
        torch.testing.assert_close(
            origins[4, 4] + 4 * directions[4, 4], torch.zeros(3), atol=1e-5, rtol=0
        )
        assert pose[2, 3] == pytest.approx(4 * math.sin(0.5))
        assert directions[0, 4, 2] > directions[8, 4, 2]  # the first row looks higher
