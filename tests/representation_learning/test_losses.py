"""The contrastive loss against a double loop and against pytorch-metric-learning."""

import math
from typing import Any

import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor

from labkit import bugs
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
def test_nt_xent_does_not_see_the_lengths_of_the_projections() -> None:
    z1, z2 = projections(8, 8)
    scaled = losses.nt_xent(1e4 * z1.float(), 1e-4 * z2.float(), 0.1)
    assert scaled.item() == pytest.approx(by_loops(z1, z2, 0.1), rel=1e-4)


@pytest.mark.exercise("losses.nt_xent")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1), (torch.float64, 1e-9)]
)
def test_nt_xent_keeps_the_dtype_and_the_projections(dtype: torch.dtype, tolerance: float) -> None:
    pair = [z.to(dtype) for z in projections(4, 8)]
    before = [z.clone() for z in pair]
    loss = losses.nt_xent(*pair, 0.5)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(by_loops(*pair, 0.5), rel=tolerance)
    assert all(map(torch.equal, pair, before)), "the arguments are left alone"


@pytest.mark.exercise("losses.nt_xent")
@pytest.mark.parametrize("temperature", [1e-3, 1e-10])
def test_nt_xent_at_a_tiny_temperature_is_how_far_the_partner_is_behind(temperature: float) -> None:
    """t l -> (greatest similarity - partner's), where e^(s / t) itself would overflow."""
    z1 = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    z2 = torch.tensor([[0.6, 0.8], [0.0, -1.0]], dtype=torch.float64)
    # similarities: z1 0 to z2 0 0.6, the other two 0; z1 1 to z2 0 0.8, z2 1 -1; z2 0 to z2 1 -0.8
    behind = (0 + 1.8 + 0.2 + 1.0) / 4
    for scale in (1, 1e4):
        loss = losses.nt_xent(scale * z1, scale * z2, temperature)
        assert loss.item() * temperature == pytest.approx(behind, abs=1e-3)


@pytest.mark.exercise("losses.nt_xent")
def test_nt_xent_of_a_batch_whose_rows_are_all_alike_is_that_of_guessing() -> None:
    leaves = [torch.ones(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    loss = losses.nt_xent(*leaves, 0.5)
    assert loss.item() == pytest.approx(math.log(9))
    for grad in torch.autograd.grad(loss, leaves):
        torch.testing.assert_close(grad, torch.zeros(5, 3, dtype=torch.float64))


@pytest.mark.exercise("losses.nt_xent")
def test_nt_xent_makes_its_tables_where_the_projections_are() -> None:
    """Here the default device is another: what is made without `device=` does not fit."""
    z1, z2 = projections(4, 3)
    with torch.device("meta"):
        loss = losses.nt_xent(z1, z2, 0.5)
    assert loss.item() == pytest.approx(by_loops(z1, z2, 0.5))


def test_without_the_mask_the_loss_has_a_floor_at_ln_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `experiment=broken_mask` trains: then no view finds its partner, but itself."""
    z = torch.eye(50)  # the best there is: equal partners, all others at right angles
    assert losses.nt_xent(z, z, 0.01).item() == pytest.approx(0, abs=1e-6)
    assert losses.partners_found(z, z).item() == 100
    file, text = bugs.planted("representation_learning", "losses.itself: nothing is left out")
    broken: dict[str, Any] = {}
    exec(compile(text, file, "exec"), broken)
    assert broken["nt_xent"](z, z, 0.01).item() == pytest.approx(math.log(2), rel=1e-5)
    assert broken["partners_found"](*projections(8, 4)).item() == 0


def test_partners_found_by_hand() -> None:
    z1 = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    z2 = torch.tensor([[1.0, 0.1], [1.0, -0.2], [1.0, 0.9]])
    # z1[1] is nearest to z1[2], and its partner z2[1] to z1[0]; the other four find theirs
    assert losses.partners_found(z1, z2).item() == pytest.approx(100 * 4 / 6)


@pytest.mark.exercise("losses.alignment")
def test_alignment_is_the_mean_squared_distance_on_the_sphere() -> None:
    z1, z2 = projections(6, 3)
    expected = 0.0
    for a, b in zip(z1.tolist(), z2.tolist(), strict=True):
        na, nb = math.hypot(*a), math.hypot(*b)
        expected += sum((p / na - q / nb) ** 2 for p, q in zip(a, b, strict=True)) / 6
    assert losses.alignment(z1, z2).item() == pytest.approx(expected, rel=1e-9)
    assert losses.alignment(z1, 5 * z1).item() == pytest.approx(0, abs=1e-12)
    assert losses.alignment(z1, -z1).item() == pytest.approx(4)
    assert losses.alignment(z1[:1], z2[:1]).shape == ()


@pytest.mark.exercise("losses.alignment")
@pytest.mark.parametrize(("n", "d"), [(6, 3), (1, 4), (3, 1)])
def test_alignment_and_both_gradients_are_those_of_the_cosine(n: int, d: int) -> None:
    """|a - b|^2 = 2 - 2 cos on the sphere."""
    pair = projections(n, d)
    before = [z.clone() for z in pair]
    leaves, twins = ([z.clone().requires_grad_() for z in pair] for _ in range(2))
    loss = losses.alignment(*leaves)
    expected = (2 - 2 * torch.cosine_similarity(*twins, dim=1)).mean()
    assert (loss.shape, loss.dtype) == ((), torch.float64)
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, leaves)
    for a, b in zip(found, torch.autograd.grad(expected, twins), strict=True):
        torch.testing.assert_close(a, b)
    losses.alignment(*pair)
    assert all(map(torch.equal, pair, before)), "the arguments are left alone"


@pytest.mark.exercise("losses.alignment")
def test_alignment_of_equal_views_has_no_gradient_and_no_nan() -> None:
    leaves = [torch.ones(4, 3, requires_grad=True) for _ in range(2)]
    for grad in torch.autograd.grad(losses.alignment(*leaves), leaves):
        torch.testing.assert_close(grad, torch.zeros(4, 3))


@pytest.mark.exercise("losses.uniformity")
@pytest.mark.parametrize("t", [2.0, 0.5])
@pytest.mark.parametrize("n", [2, 6])
def test_uniformity_is_the_log_of_the_mean_kernel_over_pairs(t: float, n: int) -> None:
    z, _ = projections(n, 3)
    before = z.clone()
    unit = [[v / math.hypot(*row) for v in row] for row in z.tolist()]
    pairs = [(a, b) for i, a in enumerate(unit) for b in unit[:i]]
    kernel = [math.exp(-t * sum((p - q) ** 2 for p, q in zip(a, b, strict=True))) for a, b in pairs]
    expected = math.log(sum(kernel) / len(pairs))
    loss = losses.uniformity(z, t)
    assert (loss.shape, loss.dtype) == ((), torch.float64)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert t != 2 or losses.uniformity(z).item() == loss.item(), "t is 2 when it is not given"
    assert torch.equal(z, before), "the argument is left alone"


@pytest.mark.exercise("losses.uniformity")
@pytest.mark.parametrize("t", [2.0, 0.5])
def test_the_gradient_of_uniformity_is_what_finite_differences_measure(t: float) -> None:
    z = projections(5, 3)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: losses.uniformity(z, t), (z,))


@pytest.mark.exercise("losses.uniformity")
def test_uniformity_where_every_exponential_underflows() -> None:
    """Three points at squared distances 2, 2 and 4: one third of e^-2t twice, for a large t."""
    z = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-1.0, 0.0]], requires_grad=True)
    loss = losses.uniformity(z, 1e3)
    assert loss.item() == pytest.approx(-2e3 + math.log(2 / 3))
    assert torch.autograd.grad(loss, z)[0].isfinite().all()


@pytest.mark.exercise("losses.uniformity")
def test_uniformity_of_a_collapsed_representation_is_0() -> None:
    z = torch.ones(9, 4, requires_grad=True)
    loss = losses.uniformity(z)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], torch.zeros(9, 4))
