"""Positions against their formulas in Python numbers, complex rotation, and what they promise."""

import math

import pytest
import torch
from torch import Tensor

from attention import positions


@pytest.mark.exercise("positions.sinusoidal")
@pytest.mark.parametrize("start", [0, 11])
@pytest.mark.parametrize(("length", "dim"), [(6, 8), (1, 8), (5, 2), (3, 6)])
@pytest.mark.parametrize("base", [10_000.0, 100.0])
def test_sinusoidal_is_the_papers_formula(start: int, length: int, dim: int, base: float) -> None:
    table = positions.sinusoidal(length, dim, start, base)
    assert table.dtype == torch.float32
    assert table.shape == (length, dim)
    for row in range(length):
        for i in range(dim // 2):
            angle = (start + row) / base ** (2 * i / dim)
            assert table[row, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[row, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    if (start, base) == (0, 10_000):
        assert torch.equal(positions.sinusoidal(length, dim), table), "0 and 10,000 by default"


@pytest.mark.exercise("positions.sinusoidal")
@pytest.mark.parametrize("dim", [7, 1])
def test_sinusoidal_needs_pairs(dim: int) -> None:
    with pytest.raises(ValueError):
        positions.sinusoidal(3, dim)


@pytest.mark.exercise("positions.sinusoidal")
def test_sinusoidal_is_made_where_it_is_asked_for() -> None:
    here = positions.sinusoidal(3, 4)
    assert positions.sinusoidal(3, 4, device="meta").device == torch.device("meta")
    with torch.device("meta"):  # the default device is another
        assert torch.equal(positions.sinusoidal(3, 4, device="cpu"), here)


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
@pytest.mark.parametrize(("dtype", "half_unit"), [(torch.bfloat16, 2**-9), (torch.float16, 2**-12)])
def test_rotary_rounds_once(dtype: torch.dtype, half_unit: float) -> None:
    """Within half a unit in the last place of the exact turn; tables rounded first are not."""
    x, theta = heads(300, 8, dtype), 3 * heads(300, 4)[0, 0]
    given = x, theta.float().cos(), theta.float().sin()
    before = [v.clone() for v in given]
    turned = positions.rotary(*given)
    a, b = x.double().chunk(2, dim=-1)
    cos, sin = (v.double() for v in given[1:])
    exact = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    torch.testing.assert_close(turned.double(), exact, rtol=2.1 * half_unit, atol=1e-5)
    assert turned.dtype == dtype
    assert all(map(torch.equal, given, before)), "the arguments are left alone"


@pytest.mark.exercise("positions.rotary")
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (1, 3, 1, 4), (2, 1, 4, 4), (4, 4, 4, 8)])
def test_rotary_turns_every_batch_and_head_alike(shape: tuple[int, ...]) -> None:
    """One position after the other, by a rotation matrix; the gradient turns back."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    length, dim = shape[2:]
    theta = angles(list(range(3, 3 + length)), dim)
    x.requires_grad_()
    turned = positions.rotary(x, theta.cos(), theta.sin())
    matrix = torch.zeros(length, dim, dim, dtype=torch.float64)
    for t in range(length):
        for i in range(dim // 2):
            c, s, j = math.cos(theta[t, i]), math.sin(theta[t, i]), i + dim // 2
            matrix[t, [i, i, j, j], [i, j, i, j]] = torch.tensor([c, -s, s, c], dtype=torch.float64)
    torch.testing.assert_close(turned, torch.einsum("tij,bhtj->bhti", matrix, x))
    (back,) = torch.autograd.grad(turned.square().sum() / 2, x)
    torch.testing.assert_close(back, x)
    tables = [v.clone().requires_grad_() for v in (theta.cos(), theta.sin())]
    assert torch.autograd.gradcheck(positions.rotary, (x, *tables)), "angles can be learned"


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
@pytest.mark.parametrize("number", [1, 2, 3, 12, 32])
def test_slopes_of_any_number_of_heads(number: int) -> None:
    """They end at 1/256; each is the one before it times the first."""
    slopes = positions.alibi_slopes(number)
    assert slopes.dtype == torch.float32
    assert slopes.tolist() == pytest.approx([256 ** (-h / number) for h in range(1, number + 1)])


@pytest.mark.exercise("positions.alibi_slopes")
def test_slopes_are_made_where_they_are_asked_for() -> None:
    here = positions.alibi_slopes(4)
    assert positions.alibi_slopes(4, device="meta").device == torch.device("meta")
    with torch.device("meta"):  # the default device is another
        assert torch.equal(positions.alibi_slopes(4, torch.device("cpu")), here)


@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (2, 5)])
def test_alibi_bias_is_the_slope_times_the_distance(queries: int, keys: int) -> None:
    slopes = torch.tensor([0.5, 0.25])
    bias = positions.alibi_bias(slopes, queries, keys)
    for h, slope in enumerate(slopes.tolist()):
        for i in range(queries):
            for j in range(keys):
                assert bias[h, i, j].item() == -slope * abs(keys - queries + i - j)
