"""Gaussians: their covariances and pictures, and what lies before what."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from cross_frontiers import gaussians, splatting
from cross_frontiers.cameras import project, turntable
from cross_frontiers.gaussians import Gaussians


@pytest.mark.exercise("gaussians.covariance")
def test_covariances_are_those_of_scipys_rotations() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.rand(5, 3, generator=generator).double() + 0.1
    quaternions = 3 * torch.randn(5, 4, generator=generator).double()
    kept = scales.clone(), quaternions.clone()
    found = gaussians.covariance(scales, quaternions)
    assert torch.equal(scales, kept[0])
    assert torch.equal(quaternions, kept[1])
    assert found.dtype == torch.float64
    for each, scale, (w, x, y, z) in zip(found, scales, quaternions.tolist(), strict=True):
        r = Rotation.from_quat([x, y, z, w]).as_matrix()
        wanted = r @ np.diag(scale.numpy() ** 2) @ r.T
        np.testing.assert_allclose(each.numpy(), wanted, atol=1e-12)


@pytest.mark.exercise("gaussians.covariance")
def test_covariances_have_a_gradient_and_a_device() -> None:
    generator = torch.Generator().manual_seed(1)
    scales = (torch.rand(2, 3, generator=generator).double() + 0.1).requires_grad_()
    quaternions = torch.randn(2, 4, generator=generator).double().requires_grad_()
    assert torch.autograd.gradcheck(gaussians.covariance, (scales, quaternions))
    meta = gaussians.covariance(torch.ones(1, 3, device="meta"), torch.ones(1, 4, device="meta"))
    assert meta.shape == (1, 3, 3)


def camera_at(elevation: float = 0.4) -> Tensor:
    """A pose (4, 4) that is no special case, in float64."""
    return turntable(5, 4.0, elevation)[1].double()


@pytest.mark.exercise("gaussians.project_covariance")
def test_small_gaussians_have_the_spread_of_their_projected_points() -> None:
    generator = torch.Generator().manual_seed(2)
    pose, focal = camera_at(), 90.0
    means = torch.tensor([[0.9, -0.5, 0.3], [-0.2, 0.8, -0.7]], dtype=torch.float64)
    half = 0.003 * torch.randn(2, 3, 3, generator=generator).double()
    covariances = half @ half.transpose(1, 2)
    camera = (means - pose[:3, 3]) @ pose[:3, :3]
    kept = covariances.clone(), camera.clone()
    found = gaussians.project_covariance(covariances, camera, pose[:3, :3], focal)
    assert torch.equal(covariances, kept[0])
    assert torch.equal(camera, kept[1])
    noise = torch.randn(40_000, 3, generator=generator).double()
    noise = torch.cat((noise, -noise))  # of mean 0
    for mean, spread, each in zip(means, half, found, strict=True):
        at, _ = project(mean + noise @ spread.T, pose, focal, 60, 80)
        torch.testing.assert_close(each, torch.cov(at.T), rtol=0.03, atol=1e-4)


@pytest.mark.exercise("gaussians.project_covariance")
def test_a_sphere_on_the_axis_is_a_disc() -> None:
    camera = torch.tensor([[0.0, 0.0, -4.0], [0.0, 0.0, -2.0]])
    covariances = 0.25 * torch.eye(3).expand(2, 3, 3)
    found = gaussians.project_covariance(covariances, camera, torch.eye(3), 10.0)
    wanted = torch.eye(2) * torch.tensor([(0.5 * 10 / 4) ** 2, (0.5 * 10 / 2) ** 2])[:, None, None]
    torch.testing.assert_close(found, wanted)


@pytest.mark.exercise("gaussians.project_covariance")
def test_the_projection_has_a_gradient() -> None:
    camera = torch.tensor([[0.3, -0.2, -3.0]], dtype=torch.float64, requires_grad=True)
    covariances = torch.eye(3, dtype=torch.float64)[None].clone().requires_grad_()
    turned = camera_at()[:3, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s, c, r: gaussians.project_covariance(s, c, r, 5.0), (covariances, camera, turned)
    )


def cloud_of(count: int, scale: float = 0.15) -> Gaussians:
    generator = torch.Generator().manual_seed(3)
    cloud = Gaussians(torch.rand(count, 3, generator=generator) * 2 - 1, scale, degree=1)
    with torch.no_grad():
        for parameter, by in (
            (cloud.log_scales, 0.4),
            (cloud.quaternions, 1),
            (cloud.coefficients, 1),
        ):
            parameter += by * torch.randn(parameter.shape, generator=generator)
        cloud.raw_opacities.copy_(3 * torch.randn(count, generator=generator))
    return cloud


@pytest.mark.parametrize(
    ("height", "width", "background"),
    [(13, 17, 1.0), (10, 5, 0.25), (10, 5, torch.tensor([0.9, 0.2, 0.4]))],
)
def test_pictures_are_those_of_all_gaussians_at_every_pixel(
    height: int, width: int, background: float | Tensor
) -> None:
    cloud, pose, focal = cloud_of(40), camera_at().float(), 20.0
    with torch.no_grad():
        picture, depth = splatting.splat(cloud, pose, focal, height, width, background, 6.0)
        at, far = project(cloud.means, pose, focal, height, width)
        shape = gaussians.project_covariance(
            cloud.covariances(), (cloud.means - pose[:3, 3]) @ pose[:3, :3], pose[:3, :3], focal
        )
        inverse = torch.linalg.inv(shape + 0.3 * torch.eye(2)).double().numpy()
        opacity = cloud.raw_opacities.sigmoid().double().numpy()
        colours = cloud.colours(pose[:3, 3]).double().numpy()
        reach = (cloud.means - pose[:3, 3]).norm(dim=1).double().numpy()
    order = far.argsort().tolist()
    assert picture.shape == (3, height, width)
    for i in range(height):
        for j in range(width):
            left, colour, mean = 1.0, np.zeros(3), 0.0
            for n in order:
                d = np.array((i + 0.5, j + 0.5)) - at[n].double().numpy()
                alpha = min(0.99, opacity[n] * math.exp(-0.5 * d @ inverse[n] @ d))
                if alpha <= 1 / 255:
                    continue
                colour, mean = colour + left * alpha * colours[n], mean + left * alpha * reach[n]
                left *= 1 - alpha
            np.testing.assert_allclose(
                picture[:, i, j].numpy(), colour + left * np.asarray(background), atol=1e-4
            )
            assert depth[i, j].item() == pytest.approx(mean + left * 6.0, abs=1e-3)


def test_gradients_reach_every_parameter_and_agree_with_differences() -> None:
    cloud = cloud_of(6, scale=0.4).double()
    pose = camera_at()
    weights = torch.randn(3, 10, 10, generator=torch.Generator().manual_seed(4)).double()

    def total() -> Tensor:
        picture, _ = splatting.splat(cloud, pose, 12.0, 10, 10, 1.0, 6.0)
        return (picture * weights).sum()

    total().backward()
    for name in ("log_scales", "quaternions", "raw_opacities", "coefficients"):
        parameter = getattr(cloud, name)
        flat, grad = parameter.data.view(-1), parameter.grad.view(-1)
        at = int(grad.abs().argmax())
        values = []
        for step in (1e-6, -2e-6):
            flat[at] += step
            values.append(total().item())
        flat[at] += 1e-6
        assert grad[at].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-3), name


def test_what_is_behind_the_camera_is_not_seen() -> None:
    pose = camera_at().float()
    behind = pose[:3, 3] * 1.5
    picture, depth = splatting.splat(
        Gaussians(behind[None], 0.3, degree=0), pose, 20.0, 8, 6, 1.0, 6.0
    )
    assert (picture == 1).all()
    assert (depth == 6).all()
    assert picture.shape == (3, 8, 6)


def test_sums_before_a_row_in_its_run() -> None:
    values = torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]])
    found = splatting.before(values, torch.tensor([0, 0, 2, 2, 2]))
    assert found.flatten().tolist() == [0, 1, 0, 4, 12]


def test_the_hull_of_a_disc_seen_from_the_side() -> None:
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[0, 5:15, 10:20] = True
    pose = torch.eye(4)
    pose[2, 3] = 4.0
    points = torch.tensor([[0.0, 0, 0], [0, 1.5, 0], [1.5, 0, 0], [50.0, 0, 0], [0, 0, 5.0]])
    kept = gaussians.carve(points, mask, pose[None], 20.0)
    assert kept.tolist() == [True, False, False, True, True]  # the last two no picture shows


def test_transparent_gaussians_move_to_opaque_ones() -> None:
    cloud = cloud_of(20)
    with torch.no_grad():
        cloud.raw_opacities.copy_(torch.linspace(-8, 4, 20))
    optimizer = torch.optim.Adam(cloud.groups(1e-2))
    sum(p.sum() for p in cloud.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    before = cloud.means.detach().clone()
    faint = cloud.raw_opacities.sigmoid() < 0.02
    torch.manual_seed(0)
    assert cloud.relocate(optimizer) == int(faint.sum())
    assert cloud.raw_opacities.sigmoid().min() >= 0.009
    moved = (cloud.means - before).norm(dim=1) > 0
    assert torch.equal(moved, faint)
    assert (optimizer.state[cloud.means]["exp_avg"][faint] == 0).all()
    assert (optimizer.state[cloud.means]["exp_avg"] != 0).any()
    assert cloud.relocate(torch.optim.Adam(cloud.groups(1.0)), faint=1.0) == 0  # nobody to go to
