"""GPTQ against least squares solved anew at each column, and AWQ against its own definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from systems.awq import awq, column_scales, output_error
from systems.gptq import Hessian, gptq, inverse_factor, quantize_columns
from systems.quantize import round_matrix


def problem(outputs: int = 5, inputs: int = 8, n: int = 40) -> tuple[Tensor, Tensor]:
    """Weights (O, I), and inputs (n, I) whose features depend on each other; float64."""
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    x = torch.randn(n, inputs, generator=generator, dtype=torch.float64) @ mix
    return torch.randn(outputs, inputs, generator=generator, dtype=torch.float64), x


def nearest(step: float) -> object:
    return lambda j, current: (current[:, j] / step).round() * step


def by_least_squares(weight: Tensor, x: Tensor, step: float) -> Tensor:
    """Round a column, then solve for the columns left such that the outputs are closest; again."""
    free, target = weight.clone(), x @ weight.T
    for j in range(weight.shape[1]):
        free[:, j] = (free[:, j] / step).round() * step
        if j + 1 < weight.shape[1]:
            missing = target - x[:, : j + 1] @ free[:, : j + 1].T
            free[:, j + 1 :] = torch.linalg.lstsq(x[:, j + 1 :], missing).solution.T
    return free


@pytest.mark.exercise("gptq.quantize_columns")
@pytest.mark.parametrize("outputs", [1, 5])
def test_repairs_are_the_best_that_there_are(outputs: int) -> None:
    weight, x = problem(outputs)
    before = weight.clone()
    factor = inverse_factor(x.T @ x, 0.0)
    found = quantize_columns(weight, factor, nearest(0.5))  # type: ignore[arg-type]
    assert torch.equal(weight, before)
    torch.testing.assert_close(found, by_least_squares(weight, x, 0.5))
    plain = (weight / 0.5).round() * 0.5
    error = [float(((q - weight) @ x.T).square().sum()) for q in (found, plain)]
    assert outputs == 1 or error[0] < 0.7 * error[1]


@pytest.mark.exercise("gptq.quantize_columns")
def test_rounding_sees_the_matrix_with_all_repairs() -> None:
    """It is asked once for each column, in order, and may look ahead."""
    weight, x = problem(3, 4)
    factor, asked = inverse_factor(x.T @ x, 0.0), []

    def look(j: int, current: Tensor) -> Tensor:
        asked.append((j, current.clone()))
        return current[:, j].round()

    found = quantize_columns(weight, factor, look)
    assert [j for j, _ in asked] == [0, 1, 2, 3]
    assert torch.equal(asked[0][1], weight)
    error = (weight[:, 0] - found[:, 0]) / factor[0, 0]
    expected = weight[:, 1:] - error[:, None] * factor[0, 1:]
    torch.testing.assert_close(asked[1][1][:, 1:], expected)
    assert torch.equal(found, found.round())


@pytest.mark.exercise("gptq.quantize_columns")
def test_independent_inputs_need_no_repairs() -> None:
    weight, _ = problem(2, 6)
    factor = torch.diag(torch.tensor([3.0, 0.1, 2, 5, 1, 4], dtype=torch.float64))
    found = quantize_columns(weight, factor, nearest(0.25))  # type: ignore[arg-type]
    torch.testing.assert_close(found, (weight / 0.25).round() * 0.25)
    single = quantize_columns(weight[:, :1], factor[:1, :1], nearest(1.0))  # type: ignore[arg-type]
    torch.testing.assert_close(single, weight[:, :1].round())


def test_the_factor_is_that_of_the_damped_inverse() -> None:
    _, x = problem()
    h = x.T @ x
    u = inverse_factor(h, 0.05)
    assert torch.equal(u, u.triu())
    damped = h + 0.05 * h.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(u.T @ u, torch.linalg.inv(damped))
    h[:, 2] = h[2] = 0
    assert inverse_factor(h, 0.01).isfinite().all()


def test_the_hessian_is_twice_the_mean_square() -> None:
    _, x = problem()
    hessian = Hessian(8)
    for part in x.float().split(7):
        hessian.add(part[None])
    torch.testing.assert_close(hessian.value(), 2 * x.T @ x / 40, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(
    ("bits", "kind", "group"), [(4, "zero_point", 4), (3, "absmax", 0), (4, "absmax", 8)]
)
def test_gptq_is_better_than_rounding(bits: int, kind: str, group: int, act_order: bool) -> None:
    weight, x = problem(12, 16, 200)
    h = 2 * x.T @ x / len(x)
    found = gptq(weight.float(), h, bits, kind, group, 0.01, act_order)  # type: ignore[arg-type]
    plain = round_matrix(weight.float(), bits, kind, group)  # type: ignore[arg-type]
    assert output_error(weight, found.dequantize(), h) < 0.8 * output_error(
        weight, plain.dequantize(), h
    )
    assert found.codes.dtype == plain.codes.dtype
    assert found.scale.shape == plain.scale.shape
    assert int(found.codes.max()) <= (2**bits - 1 if kind == "zero_point" else 2 ** (bits - 1) - 1)
    assert (found.order is not None) == act_order


def test_codes_say_what_gptq_decided() -> None:
    """`dequantize` gives the matrix that the loop returned."""
    weight, x = problem(6, 8, 100)
    h = 2 * x.T @ x / len(x)
    found = gptq(weight.float(), h, 4, "zero_point", 4, 0.01)
    scale, zero = found.scale.double(), found.zero
    assert zero is not None

    def look(j: int, current: Tensor) -> Tensor:
        s, z = scale[:, j // 4], zero[:, j // 4].double()
        return (((current[:, j] / s).round() + z).clamp(0, 15) - z) * s

    again = quantize_columns(weight.float().double(), inverse_factor(h, 0.01), look)
    torch.testing.assert_close(found.dequantize().double(), again, atol=1e-6, rtol=1e-6)


def test_dead_inputs_get_zero_weights() -> None:
    weight, x = problem(4, 8)
    x[:, 3] = 0
    found = gptq(weight.float(), 2 * x.T @ x, 4, "zero_point", 0)
    assert found.dequantize()[:, 3].abs().max() == 0


@pytest.mark.exercise("awq.column_scales")
def test_column_scales_follow_the_inputs() -> None:
    mean = torch.tensor([0.5, 2.0, 8.0, 1.0])
    before = mean.clone()
    assert column_scales(mean, 0).tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(column_scales(mean, 1), mean / 2)
    half = column_scales(mean, 0.5)
    torch.testing.assert_close(half, torch.tensor([0.5, 1.0, 2.0, math.sqrt(0.5)]))
    assert torch.equal(mean, before)
    for alpha in (0.2, 0.7):
        s = column_scales(mean, alpha)
        assert float(s.max() * s.min()) == pytest.approx(1)
        torch.testing.assert_close(s / s[0], (mean / mean[0]) ** alpha)


@pytest.mark.exercise("awq.column_scales")
def test_silent_columns_have_finite_scales() -> None:
    mean = torch.tensor([0.0, 1e-9, 1.0])
    s = column_scales(mean, 1.0)
    assert mean[0] == 0, "the argument was changed"
    torch.testing.assert_close(s, torch.tensor([0.01, 0.01, 100.0]))
    assert column_scales(torch.tensor([3.0]), 0.5).tolist() == [1.0]
    assert column_scales(torch.ones(3, dtype=torch.float64), 0.3).dtype == torch.float64


def test_awq_protects_columns_with_large_inputs() -> None:
    weight, x = problem(12, 16, 200)
    x[:, 5] *= 30
    h, mean = 2 * x.T @ x / len(x), x.abs().mean(0).float()
    found = awq(weight.float(), h, mean, 4, "zero_point", 8)
    plain = round_matrix(weight.float(), 4, "zero_point", 8)
    errors = [output_error(weight, each.dequantize(), h) for each in (found, plain)]
    assert errors[0] < 0.7 * errors[1]
    assert found.columns is not None
    assert found.columns.argmax() == 5
    exact = float(((weight - found.dequantize()) @ x.T).square().sum(0).mean()) * 2
    assert errors[0] == pytest.approx(exact, rel=1e-6)
