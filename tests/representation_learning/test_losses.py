"""The contrastive loss against a double loop and against pytorch-metric-learning."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor

from representation_learning import losses


def projections(n: int = 5, d: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z1 = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return z1, z1 + torch.randn(n, d, generator=generator, dtype=torch.float64)


def by_loops(z1: Tensor, z2: Tensor, temperature: float) -> float:
    """Equation 1 and algorithm 1 of the paper, in Python numbers."""
    n, rows = len(z1), [*z1.tolist(), *z2.tolist()]

    def s(i: int, j: int) -> float:
        dot = sum(a * b for a, b in zip(rows[i], rows[j], strict=True))
        return dot / (math.hypot(*rows[i]) * math.hypot(*rows[j]))

    total = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = sum(math.exp(s(i, k) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(s(i, j) / temperature) / others)
    return total / (2 * n)


@pytest.mark.exercise("losses.nt_xent")
@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
@pytest.mark.parametrize("n", [2, 5])
def test_nt_xent_is_the_papers_equation(n: int, temperature: float) -> None:
    z1, z2 = projections(n)
    loss = losses.nt_xent(z1, z2, temperature)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(by_loops(z1, z2, temperature), rel=1e-9)


@pytest.mark.exercise("losses.nt_xent")
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_and_its_gradient_are_pytorch_metric_learnings(temperature: float) -> None:
    leaves = [z.float().requires_grad_() for z in projections(16, 8)]
    loss = losses.nt_xent(*leaves, temperature)
    loss.backward()
    twins = [z.float().requires_grad_() for z in projections(16, 8)]
    expected = NTXentLoss(temperature)(torch.cat(twins), torch.arange(16).repeat(2))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for z, twin in zip(leaves, twins, strict=True):
        torch.testing.assert_close(z.grad, twin.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.exercise("losses.nt_xent")
def test_nt_xent_of_orthogonal_pairs_is_known() -> None:
    """Equal partners, everything else at right angles: -log(e^(1/t) / (e^(1/t) + 2 N - 2))."""
    z, t = torch.eye(4), 0.5
    expected = -math.log(math.exp(1 / t) / (math.exp(1 / t) + 6))
    assert losses.nt_xent(z, 3 * z, t).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.exercise("losses.nt_xent")
def test_nt_xent_takes_bf16_and_huge_projections() -> None:
    z1, z2 = projections(8, 8)
    scaled = losses.nt_xent(1e4 * z1.float(), 1e-4 * z2.float(), 0.1)
    assert scaled.item() == pytest.approx(by_loops(z1, z2, 0.1), rel=1e-4)


def test_without_the_mask_the_loss_has_a_floor_at_ln_2() -> None:
    z = torch.eye(50)  # the best there is: equal partners, all others at right angles
    assert losses.nt_xent(z, z, 0.01).item() == pytest.approx(0, abs=1e-6)
    assert losses.nt_xent_without_mask(z, z, 0.01).item() == pytest.approx(math.log(2), rel=1e-5)


def test_partners_found_by_hand() -> None:
    z1 = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    z2 = torch.tensor([[1.0, 0.1], [1.0, -0.2], [1.0, 0.9]])
    # z1[1] is nearest to z1[2], and its partner z2[1] to z1[0]; the other four find theirs
    assert losses.partners_found(z1, z2).item() == pytest.approx(100 * 4 / 6)
    assert losses.partners_found(z1, z2, mask=False).item() == 0


@pytest.mark.exercise("losses.alignment")
def test_alignment_is_the_mean_squared_distance_on_the_sphere() -> None:
    z1, z2 = projections(6, 3)
    expected = 0.0
    for a, b in zip(z1.tolist(), z2.tolist(), strict=True):
        na, nb = math.hypot(*a), math.hypot(*b)
        expected += sum((p / na - q / nb) ** 2 for p, q in zip(a, b, strict=True)) / 6
    assert losses.alignment(z1, z2).item() == pytest.approx(expected, rel=1e-9)
    assert losses.alignment(z1, 5 * z1).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.exercise("losses.uniformity")
@pytest.mark.parametrize("t", [2.0, 0.5])
def test_uniformity_is_the_log_of_the_mean_kernel_over_pairs(t: float) -> None:
    z, _ = projections(6, 3)
    unit = [[v / math.hypot(*row) for v in row] for row in z.tolist()]
    pairs = [(a, b) for i, a in enumerate(unit) for b in unit[:i]]
    kernel = [math.exp(-t * sum((p - q) ** 2 for p, q in zip(a, b, strict=True))) for a, b in pairs]
    expected = math.log(sum(kernel) / len(pairs))
    assert losses.uniformity(z, t).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.exercise("losses.uniformity")
def test_uniformity_of_a_collapsed_representation_is_0() -> None:
    assert losses.uniformity(torch.ones(9, 4)).item() == pytest.approx(0, abs=1e-5)
