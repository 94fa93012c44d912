"""Positions against their formulas in Python numbers, complex rotation, and what they promise."""

import math

import pytest
import torch
from torch import Tensor

from attention import positions


@pytest.mark.exercise("positions.sinusoidal")
@pytest.mark.parametrize("start", [0, 11])
def test_sinusoidal_is_the_papers_formula(start: int) -> None:
    table = positions.sinusoidal(6, 8, start)
    assert table.dtype == torch.float32
    assert table.shape == (6, 8)
    for row in range(6):
        for i in range(4):
            angle = (start + row) / 10_000 ** (2 * i / 8)
            assert table[row, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[row, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.exercise("positions.sinusoidal")
def test_sinusoidal_needs_pairs() -> None:
    with pytest.raises(ValueError, match="dim must be even, got 7"):
        positions.sinusoidal(3, 7)


def test_a_shift_is_a_rotation() -> None:
    """PE(p + s) is a linear map of PE(p), the same for every p: the reason given in section 3.5."""
    table = positions.sinusoidal(20, 8)
    shift = 5
    frequency = 10_000 ** (-torch.arange(0, 8, 2) / 8)
    cos, sin = (shift * frequency).cos(), (shift * frequency).sin()
    s, c = table[:-shift, ::2], table[:-shift, 1::2]
    torch.testing.assert_close(table[shift:, ::2], s * cos + c * sin, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(table[shift:, 1::2], c * cos - s * sin, atol=1e-5, rtol=1e-5)


def angles(positions: list[int], dim: int) -> Tensor:
    """p / 10000^(2i/d), float64 (T, d/2), in Python numbers."""
    return torch.tensor(
        [[p / 10_000 ** (2 * i / dim) for i in range(dim // 2)] for p in positions],
        dtype=torch.float64,
    )


def heads(length: int, dim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, length, dim, generator=g, dtype=torch.float64).to(dtype)


@pytest.mark.exercise("positions.rotary")
@pytest.mark.parametrize("dim", [2, 8])
def test_rotary_is_multiplication_by_a_complex_number(dim: int) -> None:
    """(x_i, x_{i+d/2}) is the complex number x_i + i x_{i+d/2}, and is multiplied by e^(iθ)."""
    x, theta = heads(5, dim), angles([0, 1, 2, 7, 100], dim)
    turned = torch.complex(x[..., : dim // 2], x[..., dim // 2 :]) * torch.polar(
        torch.ones_like(theta), theta
    )
    expected = torch.cat([turned.real, turned.imag], dim=-1)
    torch.testing.assert_close(positions.rotary(x, theta.cos(), theta.sin()), expected)


@pytest.mark.exercise("positions.rotary")
def test_rotary_keeps_the_dtype_and_the_length() -> None:
    x, theta = heads(5, 8, torch.bfloat16), angles([3, 4, 5, 6, 7], 8).float()
    turned = positions.rotary(x, theta.cos(), theta.sin())
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(
        turned.float().norm(dim=-1), x.float().norm(dim=-1), rtol=2e-2, atol=0
    )


@pytest.mark.exercise("positions.rotary")
def test_scores_depend_on_the_distance_alone() -> None:
    q, k = heads(1, 8), heads(1, 8).flip(0)

    def score(p: int, p_key: int) -> Tensor:
        a, b = angles([p], 8), angles([p_key], 8)
        turned_q = positions.rotary(q, a.cos(), a.sin())
        return (turned_q * positions.rotary(k, b.cos(), b.sin())).sum(dim=-1)

    torch.testing.assert_close(score(5, 2), score(105, 102))
    torch.testing.assert_close(score(7, 7), (q * k).sum(dim=-1))
    assert not torch.allclose(score(5, 2), score(2, 5))  # which of them is later does matter


def test_rotary_tables_are_the_angles() -> None:
    cos, sin = positions.rotary_tables(torch.tensor([0, 3, 50]), 8)
    expected = angles([0, 3, 50], 8).float()
    torch.testing.assert_close(cos, expected.cos(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sin, expected.sin(), atol=1e-5, rtol=1e-5)
    assert cos.dtype == torch.float32
    with pytest.raises(ValueError, match="must be even, got 5"):
        positions.rotary_tables(torch.arange(3), 5)


@pytest.mark.exercise("positions.alibi_slopes")
def test_slopes_of_8_and_16_heads_are_the_papers() -> None:
    """Press et al. 2022, section 3: 1/2 ... 1/256 for 8 heads; 16 begin at 1/√2 and end there."""
    assert positions.alibi_slopes(8).tolist() == pytest.approx([1 / 2**i for i in range(1, 9)])
    of_16 = positions.alibi_slopes(16)
    assert of_16.tolist() == pytest.approx([2 ** (-i / 2) for i in range(1, 17)])
    assert of_16.dtype == torch.float32


@pytest.mark.exercise("positions.alibi_slopes")
def test_slopes_of_2_heads() -> None:
    assert positions.alibi_slopes(2).tolist() == pytest.approx([1 / 16, 1 / 256])


@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (2, 5)])
def test_alibi_bias_is_the_slope_times_the_distance(queries: int, keys: int) -> None:
    slopes = torch.tensor([0.5, 0.25])
    bias = positions.alibi_bias(slopes, queries, keys)
    for h, slope in enumerate(slopes.tolist()):
        for i in range(queries):
            for j in range(keys):
                assert bias[h, i, j].item() == -slope * abs(keys - queries + i - j)
