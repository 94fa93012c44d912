"""Fields, the cells that are skipped, rendering them, and the surface of a density."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cross_frontiers import mesh
from cross_frontiers.encoding import spherical_harmonics
from cross_frontiers.grid import VoxelGrid
from cross_frontiers.mlp import RadianceMLP
from cross_frontiers.occupancy import Occupancy, cell_middles
from cross_frontiers.render import Rays, RenderSettings, render_rays, render_views, tighten
from cross_frontiers.rendering import on_background
from cross_frontiers.scene import reduce


def rays(count: int = 6) -> Rays:
    """Rays down the z axis, at different x."""
    x = torch.linspace(-0.9, 0.9, count)
    origins = torch.stack((x, torch.full_like(x, 0.1), torch.full_like(x, 3.0)), dim=1)
    down = torch.tensor([0.0, 0.0, -1.0]).expand(count, 3)
    return Rays(origins, down, torch.full((count,), 2.0), torch.full((count,), 4.0))


class Ball:
    """A field of constant density in a ball of radius 0.5 around the origin, of one colour."""

    bound = 1.0

    def __init__(self, sigma: float) -> None:
        self.sigma, self.occupancy = sigma, Occupancy(16, 1.0)

    def density(self, points: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.sigma * (points.norm(dim=1) < 0.5).float(), (points,)

    def colour(self, features: tuple[Tensor, ...], directions: Tensor) -> Tensor:
        assert len(features[0]) == len(directions)
        return torch.tensor([0.2, 0.4, 0.6]).expand(len(directions), 3)

    def prune(self, threshold: float) -> None: ...


@pytest.mark.parametrize("background", [1.0, 0.0])
def test_a_ball_has_the_opacity_of_its_chords(background: float) -> None:
    ball, given = Ball(1.5), rays()
    out = render_rays(ball, given, RenderSettings(2000, background=background, faint=0.0))
    chord = 2 * (0.25 - given.origins[:, 0] ** 2 - 0.01).clamp(min=0).sqrt()
    opacity = 1 - torch.exp(-1.5 * chord)
    torch.testing.assert_close(out.opacity, opacity, atol=3e-3, rtol=0)
    wanted = opacity[:, None] * torch.tensor([0.2, 0.4, 0.6]) + (1 - opacity[:, None]) * background
    torch.testing.assert_close(out.colour, wanted, atol=3e-3, rtol=0)
    assert out.depth[0].item() == pytest.approx(4.0)


class Fog:
    """White fog of one density everywhere in the cube."""

    bound = 1.0

    def __init__(self, sigma: Tensor) -> None:
        self.sigma, self.occupancy = sigma, Occupancy(1, 1.0)

    def density(self, points: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.sigma.expand(len(points)), (points,)

    def colour(self, features: tuple[Tensor, ...], directions: Tensor) -> Tensor:
        return torch.ones(len(directions), 3)

    def prune(self, threshold: float) -> None: ...


def test_only_random_backgrounds_tell_white_fog_from_nothing() -> None:
    given, nothing = rays(2000), torch.zeros(2000, 4)
    behind = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
    losses, gradients = [], []
    for colours in (torch.ones(2000, 3), behind):
        sigma = torch.tensor(0.4, requires_grad=True)
        out = render_rays(Fog(sigma), given, RenderSettings(20, faint=0.0), True, colours)
        loss = (out.colour - on_background(nothing, colours)).square().mean()
        loss.backward()
        assert sigma.grad is not None
        losses.append(loss.item())
        gradients.append(sigma.grad.item())
    assert losses[0] < 1e-12
    assert abs(gradients[0]) < 1e-6
    # The error of a pixel is a (1 - b); the mean of (1 - b)^2 is 1/3, over the fog's opacity a. A
    # ray's first sample is at random in its part, and what lies before it is not counted.
    opacity = 1 - math.exp(-0.4 * 2)
    assert losses[1] == pytest.approx(opacity**2 / 3, rel=0.05)
    assert gradients[1] > 0.1  # less fog is better


def test_skipping_empty_cells_changes_nothing() -> None:
    ball, given = Ball(6.0), rays(40)
    whole = render_rays(ball, given, RenderSettings(400))
    middles = cell_middles(16, 1.0).view(16, 16, 16, 3)
    ball.occupancy.set_cells(middles.norm(dim=-1) < 0.55)
    assert 0.05 < ball.occupancy.share() < 0.4
    cut, numbers = tighten(given, ball.occupancy)
    assert 0 < len(cut) < 40
    assert (cut.near >= given.near[numbers]).all()
    assert (cut.far <= given.far[numbers]).all()
    assert (cut.far - cut.near).mean() < 1.7
    part = render_rays(ball, cut, RenderSettings(400))
    torch.testing.assert_close(part.colour, whole.colour[numbers], atol=0.02, rtol=0)
    missed = torch.ones(40, dtype=torch.bool)
    missed[numbers] = False
    assert (whole.opacity[missed] == 0).all()
    pictures, depth = render_views(ball, given, RenderSettings(400), 5, 8)
    assert pictures.shape == (1, 3, 5, 8)
    assert (depth.view(-1)[missed] == 4).all()
    assert depth.shape == (1, 5, 8)
    torch.testing.assert_close(depth.view(-1), whole.depth, atol=0.02, rtol=0)
    torch.testing.assert_close(
        pictures[0].permute(1, 2, 0).reshape(-1, 3), whole.colour, atol=0.02, rtol=0
    )


def test_occupancy_by_cell() -> None:
    occupancy = Occupancy(4, 2.0)
    occupancy.cells = torch.zeros(4, 4, 4, dtype=torch.bool)
    occupancy.cells[3, 0, 1] = True
    points = torch.tensor(
        [[1.5, -1.5, -0.5], [-0.5, -1.5, 1.5], [2.5, -1.5, -0.5], [1.5, -2.1, -0.5]]
    )
    assert occupancy.at(points).tolist() == [True, False, False, False]
    occupancy.split(8)
    assert occupancy.cells.sum() == 8
    assert occupancy.at(points).tolist() == [True, False, False, False]
    occupancy.set_cells(occupancy.cells)
    assert occupancy.cells.sum() == 3 * 3 * 4  # two cells and a neighbour at walls, four inside


def filled_grid() -> VoxelGrid:
    torch.manual_seed(0)
    grid = VoxelGrid(12, 1.0, degree=1)
    with torch.no_grad():
        corners = torch.cartesian_prod(*[torch.linspace(-1, 1, 13)] * 3)
        grid.density_table[:, 0] = 8 - 20 * corners.norm(dim=1)
        grid.colour_table.normal_()
    return grid


def test_a_finer_grid_shows_the_same_and_keeps_less() -> None:
    grid = filled_grid()
    points = torch.rand(50, 3) * 0.6 - 0.3
    ways = torch.nn.functional.normalize(torch.randn(50, 3), dim=1)
    before, features = grid.density(points)
    colours = grid.colour(features, ways)
    grid.prune(0.01)
    assert grid.occupancy.share() < 1
    optimizer = torch.optim.Adam(grid.parameters())
    grid.refine(optimizer, 24, 1)
    assert len(grid.density_table) < 25**3
    after, features = grid.density(points)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grid.colour(features, ways), colours, rtol=1e-4, atol=1e-4)
    grid.refine(optimizer, 24, 2)
    torch.testing.assert_close(
        grid.colour(grid.density(points)[1], ways), colours, atol=1e-4, rtol=0
    )
    other = VoxelGrid(12, 1.0, degree=1)
    other.load_state_dict(grid.state_dict())  # of another size than it was made with
    torch.testing.assert_close(other.density(points)[0], after)


def test_a_compact_grid_shows_the_same_and_steps_on() -> None:
    grid, whole = filled_grid(), filled_grid()
    points = torch.rand(50, 3) * 0.6 - 0.3
    ways = torch.nn.functional.normalize(torch.randn(50, 3), dim=1)
    optimizer = torch.optim.Adam(grid.parameters(), 0.1)
    plain = torch.optim.Adam(whole.parameters(), 0.1)

    def step(grid: VoxelGrid, optimizer: torch.optim.Optimizer) -> Tensor:
        sigma, features = grid.density(points)
        optimizer.zero_grad()
        (sigma.sum() + grid.colour(features, ways).square().sum()).backward()
        optimizer.step()
        return torch.cat((grid.density(points)[0], grid.colour(features, ways).flatten()))

    torch.testing.assert_close(step(grid, optimizer), step(whole, plain))
    grid.prune(0.01)
    grid.compact(optimizer)
    assert len(grid.density_table) == len(grid.colour_table) < 13**3
    for _ in range(2):  # the optimiser remembers its averages
        torch.testing.assert_close(step(grid, optimizer), step(whole, plain))


def test_corners_of_occupied_cells_are_stored() -> None:
    grid = filled_grid()
    optimizer = torch.optim.Adam(grid.parameters())
    grid.prune(0.01)
    grid.refine(optimizer, 24, 1)
    kept = grid.occupancy.cells.clone()
    with torch.no_grad():
        grid.density_table.fill_(5.0)
    grid.prune(0.01)  # finds every cell full, and its neighbours have no corners
    assert torch.equal(grid.occupancy.cells, kept)
    assert len(grid.rows[grid.needed()].unique()) == len(grid.needed())


def test_colours_are_harmonics_of_the_direction() -> None:
    grid = filled_grid()
    way = torch.nn.functional.normalize(torch.randn(1, 3), dim=1)
    corner = torch.tensor([[-1.0, -1.0, -1.0]])
    colour = grid.colour(grid.density(corner)[1], way)
    coefficients = grid.colour_table[0].view(3, 4)
    wanted = torch.sigmoid(coefficients @ spherical_harmonics(way)[0, :4] / 0.28209479)
    torch.testing.assert_close(colour[0], wanted)


def test_an_untrained_grid_is_nearly_transparent() -> None:
    out = render_rays(VoxelGrid(8, 1.0, degree=0), rays(), RenderSettings(50))
    torch.testing.assert_close(
        out.opacity, torch.full((6,), 1 - math.exp(-0.05)), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("frequencies", [0, 3])
def test_the_network_has_the_direction_in_its_colour_only(frequencies: int) -> None:
    torch.manual_seed(0)
    network = RadianceMLP(1.0, width=16, layers=3, frequencies=frequencies)
    points = torch.rand(5, 3)
    sigma, features = network.density(points)
    one = network.colour(features, torch.tensor([[0.0, 0.0, 1.0]]).expand(5, 3))
    other = network.colour(features, torch.tensor([[0.0, 1.0, 0.0]]).expand(5, 3))
    assert sigma.shape == (5,)
    assert (sigma > 0).all()
    assert not torch.allclose(one, other)
    out = render_rays(network, rays(), RenderSettings(8, fine=8), training=True)
    out.colour.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_reduced_pictures_weight_colours_by_opacity() -> None:
    picture = torch.zeros(1, 4, 2, 4)
    picture[0, :, 0, 0] = torch.tensor([1.0, 0.5, 0.0, 1.0])
    picture[0, :3, 1, 1] = 0.9  # transparent: its colour does not count
    found = reduce(picture, 2)
    assert found.shape == (1, 4, 1, 2)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([1.0, 0.5, 0.0, 0.25]))
    assert found[0, 3, 0, 1] == 0


def test_the_surface_of_a_ball(tmp_path: Path) -> None:
    line = np.arange(20) - 9.3
    x, y, z = np.meshgrid(line, line, line, indexing="ij")
    places, faces = mesh.isosurface(-np.sqrt(x**2 + y**2 + z**2), -6.0)
    a, b, c = ((places - 9.3)[faces[:, i]] for i in range(3))
    np.testing.assert_allclose(np.linalg.norm(places - 9.3, axis=1), 6, atol=0.1)
    normal = np.cross(b - a, c - a)
    assert np.linalg.norm(normal, axis=1).sum() / 2 == pytest.approx(4 * np.pi * 36, rel=0.02)
    volume = (a * np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 216, rel=0.02)  # all normals point outwards
    edges = np.sort(np.concatenate((faces[:, :2], faces[:, 1:], faces[:, ::2])), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()  # closed
    mesh.save_ply(tmp_path / "ball.ply", places, faces, np.zeros((len(places), 3), np.uint8))
    raw = (tmp_path / "ball.ply").read_bytes()
    header, _, body = raw.partition(b"end_header\n")
    assert f"element vertex {len(places)}".encode() in header
    assert len(body) == 15 * len(places) + 13 * len(faces)
