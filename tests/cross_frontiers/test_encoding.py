"""Encodings against their formulas, interpolation by scipy, the hash by plain integers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from cross_frontiers import encoding, interpolation
from cross_frontiers.hashgrid import HashGrid, level_resolutions


@pytest.mark.exercise("encoding.positional_encoding")
def test_sines_and_cosines_of_doubled_frequencies() -> None:
    x = torch.tensor([[0.3, -0.7], [0.1, 0.9], [0.0, -1.0]], dtype=torch.float64)
    kept = x.clone()
    found = encoding.positional_encoding(x, 3)
    assert torch.equal(x, kept)
    assert found.shape == (3, 14)
    for p in range(3):
        row = x[p].tolist()
        wanted = list(row)
        for k in range(3):
            wanted += [math.sin(2**k * math.pi * each) for each in row]
            wanted += [math.cos(2**k * math.pi * each) for each in row]
        np.testing.assert_allclose(found[p], wanted, atol=1e-12)


@pytest.mark.exercise("encoding.positional_encoding")
def test_no_frequencies_leave_the_coordinates() -> None:
    x = torch.rand(4, 3)
    assert torch.equal(encoding.positional_encoding(x, 0), x)
    assert encoding.positional_encoding(x[:1], 1).shape == (1, 9)
    assert encoding.positional_encoding(x.to("meta"), 2).device.type == "meta"
    y = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: encoding.positional_encoding(each, 2), (y,))


def test_harmonics_are_orthonormal_over_the_sphere() -> None:
    cosine, weight = np.polynomial.legendre.leggauss(8)
    turn = np.arange(16) * 2 * np.pi / 16
    z, angle = np.meshgrid(cosine, turn, indexing="ij")
    flat = np.sqrt(1 - z**2)
    directions = np.stack((flat * np.cos(angle), flat * np.sin(angle), z), -1).reshape(-1, 3)
    area = np.repeat(weight, 16) * 2 * np.pi / 16
    y = encoding.spherical_harmonics(torch.from_numpy(directions)).numpy()
    np.testing.assert_allclose((y * area[:, None]).T @ y, np.eye(9), atol=1e-6)


@pytest.mark.exercise("encoding.hash_index")
def test_the_hash_of_plain_integers() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 2048, (5, 8, 3), generator=generator)
    kept = corners.clone()
    found = encoding.hash_index(corners, 1 << 14)
    assert torch.equal(corners, kept)
    assert found.shape == (5, 8)
    assert found.dtype == torch.int64
    for row, index in zip(corners.view(-1, 3).tolist(), found.flatten().tolist(), strict=True):
        x, y, z = row
        assert index == (x ^ (y * 2654435761) ^ (z * 805459861)) % (1 << 14)
    assert encoding.hash_index(corners, 1).unique().tolist() == [0]
    assert encoding.hash_index(torch.tensor([3, 1, 2]), 16).shape == ()


@pytest.mark.exercise("encoding.hash_index")
@pytest.mark.parametrize("size", [0, 12, -4])
def test_a_table_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="power of 2"):
        encoding.hash_index(torch.zeros(2, 3, dtype=torch.int64), size)


@pytest.mark.exercise("interpolation.trilinear")
@pytest.mark.parametrize("resolution", [1, 5])
def test_interpolation_is_that_of_scipy(resolution: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=[resolution + 1] * 3)
    line = np.linspace(0, 1, resolution + 1)
    points = np.concatenate((rng.random((40, 3)), np.array([(0, 0, 0), (1, 1, 1), (1, 0.3, 0)])))
    wanted = RegularGridInterpolator((line, line, line), values)(points)
    given = torch.from_numpy(points)
    kept = given.clone()
    cells, weights = interpolation.trilinear(given, resolution)
    assert torch.equal(given, kept)
    assert cells.shape == (43, 3)
    assert cells.dtype == torch.int64
    assert cells.min() >= 0
    assert cells.max() < resolution
    assert weights.shape == (43, 8)
    corners = cells[:, None] + torch.tensor(interpolation.OFFSETS)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(43, dtype=torch.float64))
    x, y, z = corners.numpy().transpose(2, 0, 1)
    np.testing.assert_allclose((values[x, y, z] * weights.numpy()).sum(1), wanted, atol=1e-12)


@pytest.mark.exercise("interpolation.trilinear")
def test_points_outside_are_taken_for_the_nearest_inside() -> None:
    outside = torch.tensor([[-0.4, 0.5, 1.7], [2.0, -1.0, 0.1]])
    found = interpolation.trilinear(outside, 4)
    wanted = interpolation.trilinear(torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.0, 0.1]]), 4)
    assert torch.equal(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1])
    assert found[0][0].tolist() == [0, 2, 3]  # the last cell of z, not one beyond it


@pytest.mark.exercise("interpolation.trilinear")
def test_weights_have_a_gradient_type_and_device() -> None:
    points = torch.tensor([[0.1, 0.45, 0.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: interpolation.trilinear(p, 3)[1], (points,))
    assert interpolation.trilinear(points.detach().float(), 3)[1].dtype == torch.float32
    meta = interpolation.trilinear(torch.rand(4, 3, device="meta"), 3)
    assert {each.device.type for each in meta} == {"meta"}


def test_corners_and_their_numbers() -> None:
    cells = torch.tensor([[0, 1, 2], [3, 0, 1]])
    corners = interpolation.corners_of(cells)
    assert corners[1, 0].tolist() == [3, 0, 1]
    assert corners[1, 6].tolist() == [4, 1, 1]
    counted = torch.arange(5**3).view(5, 5, 5)
    wanted = counted[corners[..., 0], corners[..., 1], corners[..., 2]]
    assert torch.equal(interpolation.corner_numbers(cells, 5), wanted)


def test_weighted_rows_and_their_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(9, 4, generator=generator).double().requires_grad_()
    rows = torch.randint(0, 9, (6, 8), generator=generator)  # some rows more than once
    weights = torch.rand(6, 8, generator=generator).double()
    plain = (table[rows] * weights[..., None]).sum(dim=1)
    found = interpolation.weighted_rows(table, rows, weights)
    torch.testing.assert_close(found, plain)
    grad = torch.randn(6, 4, generator=generator).double()
    (wanted,) = torch.autograd.grad(plain, table, grad)
    (own,) = torch.autograd.grad(found, table, grad)
    torch.testing.assert_close(own, wanted)


def test_levels_of_a_hash_grid() -> None:
    assert level_resolutions(4, 16, 128) == [16, 32, 64, 128]
    assert level_resolutions(1, 16, 128) == [16]
    torch.manual_seed(0)
    grid = HashGrid(1.0, levels=3, coarsest=4, finest=16, log2_rows=8, width=8, occupancy=4)
    assert [len(table) for table in grid.tables] == [125, 256, 256]
    at_corner = grid.encode(torch.tensor([[-1.0, -1.0, -0.5]]))  # corner (0, 0, 1) of level 0
    torch.testing.assert_close(at_corner[0, :2], grid.tables[0][1].detach())
    torch.testing.assert_close(
        at_corner[0, 2:4],
        grid.tables[1][int(encoding.hash_index(torch.tensor([0, 0, 2]), 256))].detach(),
    )
    sigma, features = grid.density(torch.rand(5, 3) * 2 - 1)
    colour = grid.colour(features, torch.nn.functional.normalize(torch.randn(5, 3), dim=1))
    assert sigma.shape == (5,)
    assert colour.shape == (5, 3)
    grid.prune(1.0)  # nothing hides everything, and a field without a cell could not learn
    assert grid.occupancy.share() == 1
