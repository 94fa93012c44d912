"""Densities in the plane against their own samples, and normalisers against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from ebm_jepa import densities
from ebm_jepa.densities import SQUARE, log_normaliser


@pytest.mark.parametrize("name", densities.BY_NAME)
def test_density_is_normalised_and_is_that_of_its_samples(name: str) -> None:
    """Quadrature gives 1, and the share of the samples in each cell is the density's integral."""
    density, points = densities.BY_NAME[name](), 161
    p = density.log_prob(densities.grid(points).double()).exp().view(points, points)
    h = 2 * SQUARE / (points - 1)
    edge = 0.02 if name == "checkerboard" else 1e-3  # its edges are jumps
    assert float(p.sum()) * h**2 == pytest.approx(1, abs=edge)
    n, cells = 20_000, 8
    x = density.sample(n, torch.Generator().manual_seed(1))
    assert x.shape == (n, 2)
    assert x.abs().max() < SQUARE
    found = torch.histogramdd(x, bins=[cells, cells], range=[-SQUARE, SQUARE] * 2).hist / n
    size = (points - 1) // cells
    expected = p[:-1, :-1].reshape(cells, size, cells, size).sum(dim=(1, 3)) * h**2
    assert (found - expected).abs().max() < (0.012 if name != "checkerboard" else 0.025)


@pytest.mark.parametrize("name", densities.BY_NAME)
def test_samples_depend_on_the_generator_alone(name: str) -> None:
    density = densities.BY_NAME[name]()
    before = torch.get_rng_state()
    a, b, c = (density.sample(5, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_ring_at_a_mean() -> None:
    """One component's peak; its neighbours, 1.53 away, add e^-13."""
    found = densities.Ring().log_prob(torch.tensor([[2.0, 0.0], [0.0, -2.0]]))
    peak = -math.log(8 * 2 * math.pi * 0.3**2)
    torch.testing.assert_close(found, torch.full((2,), peak), atol=1e-5, rtol=0)


def energies(rows: int, columns: int) -> Tensor:
    draws = torch.Generator().manual_seed(rows)
    return torch.randn(rows, columns, generator=draws, dtype=torch.float64)


def by_trapezoid(energy: Tensor, h: float) -> Tensor:
    """PyTorch's own rule, one direction after the other."""
    inner = torch.trapezoid((-energy).exp(), dx=h, dim=1)
    return torch.trapezoid(inner, dx=h, dim=0).log()


@pytest.mark.exercise("densities.log_normaliser")
@pytest.mark.parametrize("shape", [(2, 2), (2, 5), (7, 4), (30, 31)])
def test_log_normaliser_is_the_trapezoid_rule(shape: tuple[int, int]) -> None:
    energy = energies(*shape)
    kept = energy.clone()
    found = log_normaliser(energy, 0.37)
    assert found.shape == ()
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, by_trapezoid(energy, 0.37))
    assert torch.equal(energy, kept)


@pytest.mark.exercise("densities.log_normaliser")
def test_log_normaliser_of_a_gaussian_is_known() -> None:
    line, other = torch.linspace(-6, 6, 121), torch.linspace(-5, 5, 101)
    square = line[:, None].square() + other.square()
    found = log_normaliser(square / (2 * 0.8**2) - 3, 0.1)
    assert found.item() == pytest.approx(math.log(2 * math.pi * 0.8**2) + 3, abs=1e-5)


@pytest.mark.exercise("densities.log_normaliser")
@pytest.mark.parametrize("shift", [-1000.0, 1000.0])
def test_log_normaliser_neither_underflows_nor_overflows(shift: float) -> None:
    energy = energies(6, 5).float()
    found = log_normaliser(energy + shift, 0.5)
    assert found.item() == pytest.approx(by_trapezoid(energy, 0.5).item() - shift, abs=1e-3)


@pytest.mark.exercise("densities.log_normaliser")
def test_log_normaliser_of_a_flat_energy_is_the_area_and_holes_count_for_nothing() -> None:
    flat = torch.zeros(5, 9, dtype=torch.float64)
    assert log_normaliser(flat, 0.5).item() == pytest.approx(math.log(2.0 * 4.0))
    flat[2, 3] = torch.inf
    assert log_normaliser(flat, 0.5).item() == pytest.approx(math.log(8 - 0.25))


@pytest.mark.exercise("densities.log_normaliser")
def test_gradient_of_log_normaliser_is_minus_the_probability_of_each_point() -> None:
    energy = energies(4, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(log_normaliser(energy, 0.2), energy)
    weight = torch.tensor([0.5, 1, 1, 0.5])[:, None] * torch.tensor([0.5, 1, 0.5])
    mass = weight * (-energy.detach()).exp()
    torch.testing.assert_close(gradient, -mass / mass.sum())


@pytest.mark.exercise("densities.log_normaliser")
def test_log_normaliser_computes_where_the_energy_is() -> None:
    energy = energies(3, 4)
    with torch.device("meta"):
        found = log_normaliser(energy, 0.1)
    torch.testing.assert_close(found, by_trapezoid(energy, 0.1))


def test_log_z_hands_the_grid_over_in_order() -> None:
    """An energy that depends on x and y differently: two one-dimensional Gaussians."""

    def energy(x: Tensor) -> Tensor:
        return (x[:, 0] / 0.5).square() / 2 + ((x[:, 1] - 0.3) / 0.9).square() / 2

    found = densities.log_z(energy, 161).item()
    assert found == pytest.approx(math.log(2 * math.pi * 0.5 * 0.9), abs=1e-3)


def test_gradient_of_log_z_is_that_of_contrastive_divergence_with_perfect_samples() -> None:
    """d log Z / dw = -mean of dE / dw over the model: the reason for the negative phase."""
    from ebm_jepa.energy import PlaneEnergy

    torch.manual_seed(0)
    energy = PlaneEnergy(8, 1)
    weights = list(energy.parameters())
    exact = torch.autograd.grad(densities.log_z(energy, 81), weights)
    points = densities.grid(81)
    line = torch.ones(81)
    line[[0, -1]] = 0.5
    weight = torch.outer(line, line).flatten()
    p = (weight.log() - energy(points)).softmax(dim=0).detach()
    sampled = torch.autograd.grad(-(p * energy(points)).sum(), weights)
    for a, b in zip(exact, sampled, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
