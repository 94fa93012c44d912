"""Codes against brute force, torch's own quantised tensors, and torchao."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from labkit import UsageError
from systems.quantize import (
    Quantized,
    absmax,
    llm_int8,
    pack_nibbles,
    round_matrix,
    unpack_nibbles,
    zero_point,
)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.exercise("quantize.absmax")
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_absmax_takes_the_nearest_of_all_codes(bits: int) -> None:
    """Brute force over the whole grid, for rows of different size."""
    x = rows(3, 2, 7) * torch.tensor([0.01, 1.0, 30.0])[:, None, None]
    before = x.clone()
    codes, scale = absmax(x, bits)
    assert torch.equal(x, before)
    most = 2 ** (bits - 1) - 1
    assert codes.dtype == torch.int8
    assert codes.shape == x.shape
    assert scale.shape == (3, 2, 1)
    torch.testing.assert_close(scale * most, x.abs().amax(-1, keepdim=True))
    grid = torch.arange(-most, most + 1) * scale[..., None]  # (3, 2, 1, codes)
    nearest = (x[..., None] - grid).abs().argmin(-1) - most
    assert torch.equal(codes.long(), nearest)


@pytest.mark.exercise("quantize.absmax")
def test_absmax_of_zeros_ties_and_types() -> None:
    codes, scale = absmax(torch.zeros(2, 3), 8)
    assert codes.count_nonzero() == 0
    assert scale.tolist() == [[1.0], [1.0]]
    codes, scale = absmax(torch.tensor([[7.0, 0.5, 1.5, -2.5, 0.0]]), 4)
    assert codes.tolist() == [[7, 0, 2, -2, 0]]  # halves go to even codes
    assert scale.item() == 1
    assert absmax(torch.tensor([[-8.0, 6.0]]), 4)[0].tolist() == [[-7, 5]]
    double = absmax(rows(2, 4).double(), 8)[1]
    assert double.dtype == torch.float64
    assert absmax(torch.empty(2, 4, device="meta"), 8)[1].device.type == "meta"


@pytest.mark.exercise("quantize.absmax")
def test_absmax_is_torchs_symmetric_quantisation() -> None:
    x = rows(5, 16)
    codes, scale = absmax(x, 8)
    zeros = torch.zeros(5, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(x, scale.squeeze(1), zeros, 0, -127, 127)
    torch.testing.assert_close(codes * scale, theirs, rtol=0, atol=1e-6)


@pytest.mark.exercise("quantize.zero_point")
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_zero_point_covers_the_range_and_keeps_zero(bits: int) -> None:
    x = rows(3, 2, 9) + torch.tensor([-0.8, 0.3, 0.0])[:, None, None]
    x[0, 0, 4] = 0.0
    before = x.clone()
    codes, scale, zero = zero_point(x, bits)
    assert torch.equal(x, before)
    most = 2**bits - 1
    assert codes.dtype == zero.dtype == torch.uint8
    assert scale.shape == zero.shape == (3, 2, 1)
    assert codes.max() <= most
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    torch.testing.assert_close(scale * most, high - low)
    value = (codes.float() - zero.float()) * scale
    # The zero is rounded, so the whole grid is shifted by up to half a step at the edges.
    assert ((value - x).abs() <= scale * 1.001).all()
    inner = (x > low + scale) & (x < high - scale)
    assert ((value - x).abs()[inner] <= (scale / 2 * 1.001).expand_as(x)[inner]).all()
    assert value[0, 0, 4] == 0
    assert torch.equal(zero.float(), (-low / scale).round())


@pytest.mark.exercise("quantize.zero_point")
def test_zero_point_by_hand() -> None:
    x = torch.tensor([[-1.0, 0.0, 2.0, 0.5], [3.0, 6.0, 1.0, 2.0], [-5.0, -1.0, -2.0, -4.0]])
    codes, scale, zero = zero_point(x, 4)
    torch.testing.assert_close(scale.flatten(), torch.tensor([3.0, 6.0, 5.0]) / 15)
    assert zero.flatten().tolist() == [5, 0, 15]
    assert codes.tolist() == [[0, 5, 15, 7], [8, 15, 2, 5], [0, 12, 9, 3]]
    codes, scale, zero = zero_point(torch.zeros(1, 3), 8)
    assert codes.tolist() == [[0, 0, 0]]
    assert (scale.item(), zero.item()) == (1, 0)
    assert zero_point(rows(2, 4).double(), 8)[1].dtype == torch.float64
    assert all(t.device.type == "meta" for t in zero_point(torch.empty(2, 4, device="meta"), 8))


@pytest.mark.exercise("quantize.zero_point")
def test_zero_point_never_leaves_its_codes() -> None:
    """Where zero and code both lie on a half, both are rounded up: one too many in the sum."""
    for bits, edge in ((2, 1.5), (4, 7.5), (8, 127.5)):
        codes, scale, zero = zero_point(torch.tensor([[-edge, edge, 0.0]]), bits)
        assert scale.item() == 1
        assert zero.item() == edge + 0.5
        assert codes.tolist() == [[0, 2**bits - 1, edge + 0.5]]


@pytest.mark.exercise("quantize.zero_point")
def test_zero_point_is_torchs_affine_quantisation() -> None:
    x = rows(5, 16) + 0.7
    codes, scale, zero = zero_point(x, 8)
    theirs = torch.fake_quantize_per_channel_affine(
        x, scale.squeeze(1), zero.squeeze(1).int(), 0, 0, 255
    )
    value = (codes.float() - zero.float()) * scale
    torch.testing.assert_close(value, theirs, rtol=0, atol=1e-5)


def test_both_are_torchaos() -> None:
    """torchao's primitives find the same scales, zeros and codes (it is in the extra `bench`)."""
    ao = pytest.importorskip("torchao.quantization.quant_primitives")
    x, size = rows(6, 32) + 0.2, (1, 32)
    for kind, low, high in (
        (ao.MappingType.SYMMETRIC_NO_CLIPPING_ERR, -127, 127),
        (ao.MappingType.ASYMMETRIC, 0, 255),
    ):
        dtype = torch.int8 if low else torch.uint8
        scale, zero = ao.choose_qparams_affine(
            x, kind, size, dtype, low, high, eps=1e-12, scale_dtype=torch.float32
        )
        theirs = ao.quantize_affine(x, size, scale, zero, dtype, low, high)
        if low:
            codes, ours = absmax(x, 8)
        else:
            codes, ours, zeros = zero_point(x, 8)
            assert torch.equal(zeros.flatten().int(), zero.flatten().int())
        torch.testing.assert_close(ours.flatten(), scale.flatten())
        assert (codes.int() - theirs.int()).abs().max() <= 1
        assert (codes.int() != theirs.int()).float().mean() < 0.02  # they divide by 1/scale


@pytest.mark.exercise("quantize.pack_nibbles")
def test_two_codes_in_a_byte() -> None:
    codes = torch.tensor([[1, 2, 15, 0], [0, 15, 9, 4], [3, 3, 8, 1]], dtype=torch.uint8)
    before = codes.clone()
    packed = pack_nibbles(codes)
    assert torch.equal(codes, before)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [[0x21, 0x0F], [0xF0, 0x49], [0x33, 0x18]]
    every = torch.cartesian_prod(torch.arange(16), torch.arange(16)).to(torch.uint8)
    assert sorted(pack_nibbles(every).flatten().tolist()) == list(range(256))
    assert torch.equal(unpack_nibbles(pack_nibbles(every)), every)
    assert pack_nibbles(codes.flatten()).shape == (6,)
    assert pack_nibbles(codes[None]).shape == (1, 3, 2)
    assert pack_nibbles(torch.empty(3, 4, dtype=torch.uint8, device="meta")).device.type == "meta"


@pytest.mark.exercise("quantize.llm_int8")
def test_outliers_are_multiplied_exactly() -> None:
    """All inputs outliers: the product with the weights that the codes stand for."""
    x, weight = rows(4, 6) + torch.tensor([50.0, -50, 60, 70, -55, 90]), rows(3, 6, seed=1)
    codes, scale = absmax(weight, 8)
    before = x.clone(), codes.clone(), scale.clone()
    y = llm_int8(x, codes, scale, 6.0)
    assert all(torch.equal(a, b) for a, b in zip((x, codes, scale), before, strict=True))
    torch.testing.assert_close(y, x @ (codes * scale).T)


@pytest.mark.exercise("quantize.llm_int8")
def test_the_rest_is_a_product_of_whole_numbers() -> None:
    """No outlier: sums of Python integers, times both scales."""
    x, weight = rows(4, 6) * torch.tensor([[0.1], [1.0], [0.5], [2.0]]), rows(3, 6, seed=1)
    codes, scale = absmax(weight, 8)
    row_codes, row_scale = absmax(x, 8)
    y = llm_int8(x, codes, scale, 100.0)
    for n in range(4):
        for o in range(3):
            whole = sum(
                a * b for a, b in zip(row_codes[n].tolist(), codes[o].tolist(), strict=True)
            )
            expected = whole * float(row_scale[n]) * float(scale[o])
            assert float(y[n, o]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.exercise("quantize.llm_int8")
def test_an_outlier_column_does_not_spoil_the_rows() -> None:
    x, weight = rows(5, 8), rows(3, 8, seed=1)
    x[2, 3], x[4, 6] = 6.0, -80.0  # at the threshold, and below minus the threshold
    codes, scale = absmax(weight, 8)
    exact = x @ (codes * scale).T
    split, plain = llm_int8(x, codes, scale, 6.0), llm_int8(x, codes, scale, 1e9)
    assert (split - exact).abs().max() < 0.05
    assert (plain - exact)[4].abs().max() > 4 * (split - exact)[4].abs().max()
    rest = x.clone()
    rest[:, [3, 6]] = 0  # both columns are taken out whole, in all rows
    row_codes, row_scale = absmax(rest, 8)
    expected = (row_codes * row_scale) @ (codes * scale).T + x[:, [3, 6]] @ (codes * scale)[
        :, [3, 6]
    ].T
    torch.testing.assert_close(split, expected)
    one = llm_int8(x[:1], codes, scale, 6.0)
    torch.testing.assert_close(one, llm_int8(x[:1], codes, scale, 1e9))
    assert llm_int8(x.double(), codes, scale, 6.0).dtype == torch.float64


@pytest.mark.exercise("quantize.llm_int8")
def test_long_rows_are_summed_exactly() -> None:
    """1,500 products of 127 · 127 and small ones are more than float32 can count."""
    x = torch.ones(1, 1501)
    x[0, -1] = 1 / 127  # code 1
    codes = torch.full((2, 1501), 127, dtype=torch.int8)
    codes[1, -1] = 126
    y = llm_int8(x, codes, torch.ones(2, 1), 6.0).double() * 127
    whole = torch.tensor([1500 * 127 * 127 + 127, 1500 * 127 * 127 + 126], dtype=torch.float64)
    torch.testing.assert_close(y[0], whole, rtol=2e-7, atol=0)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["absmax", "zero_point"])
def test_finer_groups_have_smaller_errors(bits: int, kind: str) -> None:
    weight = rows(8, 32) * torch.logspace(-2, 0, 8)[:, None] * torch.logspace(-1, 0, 32)
    errors = []
    for group, whole in ((0, True), (0, False), (8, False), (2, False)):
        found = round_matrix(weight, bits, kind, group, whole)  # type: ignore[arg-type]
        assert found.codes.shape == weight.shape
        errors.append(float((found.dequantize() - weight).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 4 * errors[-1]


def test_groups_are_neighbours_in_a_row() -> None:
    weight = torch.tensor([[1.0, -0.5, 100.0, 50.0], [0.0, 0.0, 2.0, -2.0]])
    found = round_matrix(weight, 8, "absmax", 2)
    torch.testing.assert_close(found.scale, torch.tensor([[1, 100], [127, 2]]) / 127)
    torch.testing.assert_close(found.dequantize(), weight, atol=0.5, rtol=0)


def test_order_and_column_scales_are_undone() -> None:
    codes = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.int8)
    order, columns = torch.tensor([2, 0, 1]), torch.tensor([1.0, 2.0, 4.0])
    found = Quantized(codes, torch.ones(2, 1), None, 8, columns, order)
    assert found.dequantize().tolist() == [[2, 1.5, 0.25], [5, 3, 1]]


def test_a_group_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        UsageError, match="group=5 does not divide a row of 12 weights; try group=4"
    ):
        round_matrix(rows(2, 12), 4, "absmax", 5)
    with pytest.raises(UsageError, match="try group=12"):
        round_matrix(rows(2, 12), 4, "absmax", 64)
