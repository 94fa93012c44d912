"""Newton-Schulz beside the singular value decomposition, and who moves which parameter."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from labkit.learning.muon import Muon
from pretraining import GPT, Shape, newton_schulz, optimizer
from pretraining.optimizer import build_optimizers

A, B, C = 3.4445, -4.7750, 2.0315  # of the quintic, as published


def by_svd(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """The quintic applied to the singular values themselves."""
    u, s, vt = torch.linalg.svd(matrix.double() / matrix.double().norm(), full_matrices=False)
    for _ in range(steps):
        s = A * s + B * s**3 + C * s**5
    return u @ torch.diag(s) @ vt


@pytest.mark.exercise("optimizer.newton_schulz")
@pytest.mark.parametrize("shape", [(6, 6), (4, 10), (10, 4), (1, 5)])
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_newton_schulz_is_the_quintic_on_the_singular_values(
    shape: tuple[int, int], steps: int
) -> None:
    matrix = 7 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    expected = by_svd(matrix, steps).float()
    torch.testing.assert_close(newton_schulz(matrix, steps), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.exercise("optimizer.newton_schulz")
def test_newton_schulz_comes_near_an_orthogonal_matrix() -> None:
    """Singular values from 1 down to 1/100 all end between 0.6 and 1.3, at any scale."""
    torch.manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(12, 12)).Q for _ in range(2))
    matrix = u @ torch.diag(torch.logspace(-2, 0, 12)) @ v
    for scale in (1e-3, 1.0, 1e3):
        values = torch.linalg.svdvals(newton_schulz(scale * matrix))
        assert values.min() > 0.6
        assert values.max() < 1.3


@pytest.mark.exercise("optimizer.newton_schulz")
def test_newton_schulz_takes_several_matrices_and_leaves_them_alone() -> None:
    stack = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0))
    before = stack.clone()
    out = newton_schulz(stack)
    torch.testing.assert_close(out, torch.stack([newton_schulz(each) for each in stack]))
    assert torch.equal(stack, before)
    assert newton_schulz(stack.bfloat16()).dtype == torch.bfloat16
    assert not newton_schulz(torch.zeros(2, 3)).any()


@pytest.mark.exercise("optimizer.newton_schulz")
@pytest.mark.parametrize(
    "shape", [(1, 1), (5, 1), (1, 1, 4), (2, 3, 4, 6), (2, 3, 6, 4), (3, 5, 5), (0, 3, 4)]
)
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_newton_schulz_of_any_stack_and_in_its_own_type(shape: tuple[int, ...], steps: int) -> None:
    """In float64 it is the quintic to nearly all of its digits; what is given stays as it is."""
    g = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=g, dtype=torch.float64)
    given = matrix.clone()
    found = newton_schulz(matrix, steps)
    assert (found.shape, found.dtype) == (matrix.shape, torch.float64)
    stacks = (x.reshape(-1, *shape[-2:]) for x in (matrix, found))
    for one, out in zip(*stacks, strict=True):
        torch.testing.assert_close(out, by_svd(one, steps), atol=1e-10, rtol=1e-8)
    assert torch.equal(matrix, given)
    last = tuple(range(matrix.dim()))[::-1]
    swapped = matrix.permute(last).contiguous().permute(last)  # laid out the other way
    torch.testing.assert_close(newton_schulz(swapped, steps), found)


@pytest.mark.exercise("optimizer.newton_schulz")
def test_newton_schulz_repeats_five_times_by_default() -> None:
    matrix = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(newton_schulz(matrix), by_svd(matrix, 5).float(), atol=1e-4, rtol=0)


@pytest.mark.exercise("optimizer.newton_schulz")
@pytest.mark.parametrize("norm", [8e-8, 1.2e-7, 1e-7, 1e-9])
def test_small_matrices_are_divided_by_a_least_norm(norm: float) -> None:
    """The least norm is a minimum and not a summand, and it is 1e-7."""
    direction = torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]], dtype=torch.float64) / 5
    expected = direction * norm / max(norm, 1e-7)
    torch.testing.assert_close(newton_schulz(norm * direction, 0), expected)
    stack = torch.stack([direction, norm * direction])
    torch.testing.assert_close(newton_schulz(stack, 0), torch.stack([direction, expected]))


@pytest.mark.exercise("optimizer.newton_schulz")
@pytest.mark.parametrize("shape", [(64, 2), (2, 64), (3, 64, 2), (70, 2, 64), (1, 70, 64, 2)])
def test_the_smaller_of_the_two_products_is_taken(shape: tuple[int, ...]) -> None:
    """A is 2 x 2, not 64 x 64: X X\u1d40, A² and the product with X, five times."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        newton_schulz(torch.randn(shape))
    one = 5 * (2 * 2 * 2 * 64 + 2 * 2**3 + 2 * 2 * 2 * 64)
    assert counter.get_total_flops() <= 2 * one * math.prod(shape[:-2])


@pytest.mark.exercise("optimizer.newton_schulz")
def test_newton_schulz_computes_where_the_matrix_is() -> None:
    with FakeTensorMode() as fake, torch.device("cuda"):
        matrix = torch.zeros(2, 5, 3)
    with fake:
        assert newton_schulz(matrix).device.type == "cuda"


def test_the_weeks_own_newton_schulz_is_what_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a learner writes into `newton_schulz` decides every step of Muon."""
    model = GPT(Shape(20, 8, 16, 2, 2), "modern")
    monkeypatch.setattr(optimizer, "newton_schulz", lambda stack, steps: torch.ones_like(stack))
    muon = build_optimizers(model, "muon", 1e-3, 0.5, 0.0)[1]
    matrices = [p for group in muon.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in matrices]
    for p in matrices:
        p.grad = torch.randn_like(p)
    muon.step()
    for p, start in zip(matrices, before, strict=True):
        rows, columns = p.shape
        rate = 0.5 * max(1.0, rows / columns) ** 0.5
        torch.testing.assert_close(p.detach(), start - rate)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_every_parameter_is_optimised_once(name: str, architecture: str) -> None:
    model = GPT(Shape(20, 8, 16, 2, 2), architecture)  # type: ignore[arg-type]
    optimizers = build_optimizers(model, name, 1e-3, 0.02, 0.1)  # type: ignore[arg-type]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    taken = [id(p) for group in groups for p in group["params"]]
    assert sorted(taken) == sorted(id(p) for p in model.parameters())
    inside = {id(m.weight) for m in model.blocks.modules() if isinstance(m, torch.nn.Linear)}
    muons = [group for o in optimizers if isinstance(o, Muon) for group in o.param_groups]
    by_muon = {id(p) for group in muons for p in group["params"]}
    assert by_muon == (inside if name == "muon" else set())
    for group in groups:
        assert group["peak_lr"] == (0.02 if id(group["params"][0]) in by_muon else 1e-3)
        assert all((p.dim() < 2) == (group["weight_decay"] == 0) for p in group["params"])
