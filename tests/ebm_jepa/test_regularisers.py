"""VICReg and SIGReg against NumPy, loops and integrals; the effective rank against its entropy."""

import math
import statistics

import numpy as np
import pytest
import torch
from torch import Tensor

from ebm_jepa import regularisers
from ebm_jepa.regularisers import covariance_loss, effective_rank, epps_pulley, variance_loss


def embeddings(n: int, d: int, seed: int = 0) -> Tensor:
    """Correlated columns of very different widths, some above 1."""
    draws = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=draws, dtype=torch.float64)
    return (z + z.roll(1, dims=1)) * torch.logspace(-1, 0.5, d, dtype=torch.float64) + 3


@pytest.mark.exercise("regularisers.variance_loss")
@pytest.mark.parametrize("shape", [(2, 1), (5, 8), (40, 3)])
@pytest.mark.parametrize(("gamma", "eps"), [(1.0, 1e-4), (0.3, 0.05), (2.0, 0.0)])
def test_variance_loss_is_the_papers(shape: tuple[int, int], gamma: float, eps: float) -> None:
    z = embeddings(*shape)
    kept = z.clone()
    hinges = [
        max(0.0, gamma - math.sqrt(statistics.variance(column) + eps)) for column in z.T.tolist()
    ]
    found = variance_loss(z, gamma, eps)
    assert found.shape == ()
    assert found.item() == pytest.approx(statistics.fmean(hinges))
    assert torch.equal(z, kept)


@pytest.mark.exercise("regularisers.variance_loss")
def test_variance_loss_by_default_asks_for_a_deviation_of_one() -> None:
    z = embeddings(6, 4)
    assert variance_loss(z).item() == pytest.approx(variance_loss(z, 1.0, 1e-4).item())
    same = torch.ones(5, 3)
    assert variance_loss(same).item() == pytest.approx(1 - 0.01)
    assert variance_loss(10 * torch.eye(4)).item() == 0


@pytest.mark.exercise("regularisers.variance_loss")
def test_variance_loss_of_a_batch_whose_rows_are_all_alike_has_a_finite_gradient() -> None:
    z = torch.full((4, 3), 2.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(variance_loss(z), z)
    assert torch.isfinite(gradient).all()


@pytest.mark.exercise("regularisers.variance_loss")
def test_gradient_of_variance_loss_is_that_of_differences() -> None:
    z = 0.1 * embeddings(5, 2)
    assert torch.autograd.gradcheck(variance_loss, z.requires_grad_())
    (gradient,) = torch.autograd.grad(variance_loss(z), z)
    assert gradient.abs().max() > 0


@pytest.mark.exercise("regularisers.covariance_loss")
@pytest.mark.parametrize("shape", [(2, 1), (3, 6), (40, 4)])
def test_covariance_loss_is_numpys(shape: tuple[int, int]) -> None:
    z = embeddings(*shape)
    kept = z.clone()
    matrix = np.cov(z.numpy(), rowvar=False).reshape(shape[1], shape[1])
    expected = sum(matrix[i, j] ** 2 for i in range(shape[1]) for j in range(shape[1]) if i != j)
    found = covariance_loss(z)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected / shape[1], abs=1e-12)
    assert torch.equal(z, kept)


@pytest.mark.exercise("regularisers.covariance_loss")
def test_gradient_of_covariance_loss_is_that_of_differences() -> None:
    z = embeddings(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(covariance_loss, z)
    (gradient,) = torch.autograd.grad(covariance_loss(z), z)
    assert gradient.abs().max() > 0


@pytest.mark.exercise("regularisers.covariance_loss")
def test_columns_at_right_angles_cost_nothing() -> None:
    z = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert covariance_loss(z + 5).item() == pytest.approx(0, abs=1e-10)
    assert covariance_loss(z[:, [0, 0]]).item() == pytest.approx(2 * (4 / 3) ** 2 / 2)


def integral(column: list[float]) -> float:
    """The statistic with the integral over all t in closed form: pairs, singles, a constant."""
    n = len(column)
    pairs = sum(math.exp(-((a - b) ** 2) / 2) for a in column for b in column) / n**2
    singles = 2 / n * sum(math.exp(-(a**2) / 4) for a in column) / math.sqrt(2)
    return n * math.sqrt(2 * math.pi) * (pairs - singles + 1 / math.sqrt(3))


@pytest.mark.exercise("regularisers.epps_pulley")
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 5)])
def test_epps_pulley_is_the_integral(shape: tuple[int, int]) -> None:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.3
    x = x + 0.4
    kept = x.clone()
    found = epps_pulley(x, 9.0, 401)
    assert found.shape == (shape[1],)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([integral(c) for c in x.T.tolist()], abs=1e-6)
    assert torch.equal(x, kept)
    assert epps_pulley(x).tolist() == pytest.approx(found.tolist(), abs=2e-3)


@pytest.mark.exercise("regularisers.epps_pulley")
@pytest.mark.parametrize(("reach", "knots"), [(5.0, 17), (2.0, 5), (1.0, 2)])
def test_epps_pulley_uses_the_knots_it_was_given(reach: float, knots: int) -> None:
    x = torch.linspace(-1, 2, 12, dtype=torch.float64).view(6, 2)
    t = np.linspace(-reach, reach, knots)
    characteristic = np.exp(1j * x.numpy()[:, :, None] * t).mean(axis=0)
    error = np.abs(characteristic - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
    expected = 6 * np.trapezoid(error, t, axis=1)
    assert epps_pulley(x, reach, knots).tolist() == pytest.approx(expected.tolist(), rel=1e-11)
    if (reach, knots) == (5.0, 17):
        assert epps_pulley(x).tolist() == pytest.approx(expected.tolist())


@pytest.mark.exercise("regularisers.epps_pulley")
def test_gradient_of_epps_pulley_is_that_of_differences() -> None:
    x = torch.linspace(-1, 2, 6, dtype=torch.float64).view(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: epps_pulley(x, 4.0, 9), x)


@pytest.mark.exercise("regularisers.epps_pulley")
def test_epps_pulley_makes_its_knots_where_the_sample_is() -> None:
    x = torch.linspace(-1, 2, 6).view(3, 2)
    expected = epps_pulley(x)
    with torch.device("meta"):
        found = epps_pulley(x)
    torch.testing.assert_close(found, expected)


def test_sigreg_of_gaussian_embeddings_is_at_its_floor_and_of_others_above() -> None:
    torch.manual_seed(0)
    n, d = 300, 6
    along = regularisers.directions(d, 400)
    torch.testing.assert_close(along.norm(dim=0), torch.ones(400))
    z = torch.randn(n, d)
    floor = regularisers.gaussian_floor(n)
    assert regularisers.sigreg(z, along).item() == pytest.approx(floor, rel=0.3)
    for worse in (1.5 * z, z + 0.5, z * torch.tensor([1, 1, 1, 1, 1, 0]), torch.zeros(n, d)):
        assert regularisers.sigreg(worse, along).item() > 1.5 * floor


@pytest.mark.exercise("regularisers.effective_rank")
@pytest.mark.parametrize("shape", [(1, 3), (4, 4), (3, 7), (9, 2)])
def test_effective_rank_is_the_exponential_of_the_entropy(shape: tuple[int, int]) -> None:
    z = embeddings(*shape)
    kept = z.clone()
    s = np.linalg.svd(z.numpy(), compute_uv=False)
    p = s / s.sum() + 1e-7
    found = effective_rank(z)
    assert found.shape == ()
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)), rel=1e-9)
    assert torch.equal(z, kept)
    p = s / s.sum() + 0.01
    other = effective_rank(z, 0.01)
    assert other.item() == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)), rel=1e-9)


@pytest.mark.exercise("regularisers.effective_rank")
def test_effective_rank_of_known_matrices() -> None:
    assert effective_rank(torch.eye(5)).item() == pytest.approx(5, rel=1e-4)
    assert effective_rank(1e-9 * torch.eye(5, 8)).item() == pytest.approx(5, rel=1e-4)
    collapsed = torch.ones(6, 1) @ torch.arange(1.0, 5)[None]
    assert effective_rank(collapsed).item() == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.zeros(4, 3)).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.exercise("regularisers.effective_rank")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_effective_rank_is_a_measure_in_32_bits(dtype: torch.dtype) -> None:
    z = embeddings(6, 4).to(dtype).requires_grad_()
    found = effective_rank(z)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert found.item() == pytest.approx(effective_rank(z.double()).item(), rel=1e-4)
    assert not effective_rank(z.double()).requires_grad
