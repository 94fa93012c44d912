"""Tiled attention against PyTorch's, finite differences, and a count of the bytes it needs."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attention import flash
from attention.attention import causal_mask, scaled_dot_product_attention
from attention.flash import flash_attention
from attention.memory import PeakMemory, measure
from attention.positions import alibi_bias


def inputs(
    queries: int, keys: int, dtype: torch.dtype = torch.float32, heads: int = 3, dim: int = 8
) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, heads, t, dim, generator=g, dtype=torch.float64).to(dtype)
        for t in (queries, keys, keys)
    ]


def with_gradients(function: Any, tensors: list[Tensor]) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = function(*leaves)
    g = torch.Generator().manual_seed(2)
    direction = torch.randn(out.shape, generator=g, dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad(out, leaves, direction)]


# ---- one block of the running softmax


def start(rows: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """m, z and o before the first block, for 2 sequences of `rows` queries."""
    shape = (2, rows)
    zeros = torch.zeros(*shape, 1, dtype=torch.float64)
    return torch.full_like(zeros, -math.inf), zeros, zeros.expand(*shape, dim).clone()


def scores_and_values(keys: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return (
        5 * torch.randn(2, 4, keys, generator=g, dtype=torch.float64),
        torch.randn(2, keys, 3, generator=g, dtype=torch.float64),
    )


@pytest.mark.exercise("flash.online_softmax")
@pytest.mark.parametrize("widths", [[7], [1, 6], [3, 2, 2], [1] * 7])
@pytest.mark.parametrize("order", [1, -1])
def test_blocks_in_any_cut_give_the_softmax(widths: list[int], order: int) -> None:
    """With the keys sorted either way the maximum rises at every block, or at the first alone."""
    scores, v = scores_and_values(7)
    scores = order * scores.sort(dim=-1).values
    state = start(4, 3)
    begin = 0
    for width in widths:
        part = slice(begin, begin + width)
        state = flash.online_softmax(*state, scores[..., part], v[:, part])
        begin += width
    m, z, o = state
    torch.testing.assert_close(o / z, scores.softmax(dim=-1) @ v)
    torch.testing.assert_close((m + z.log()).squeeze(-1), scores.logsumexp(dim=-1))


@pytest.mark.exercise("flash.online_softmax")
@pytest.mark.parametrize("small_first", [True, False])
def test_scores_far_from_0_do_not_overflow(small_first: bool) -> None:
    """The small ones must count for nothing, whenever they come."""
    scores, v = scores_and_values(6)
    scores = scores + torch.tensor([1000.0] * 3 + [-1000.0] * 3, dtype=torch.float64)
    parts = [slice(3, 6), slice(0, 3)]
    state = start(4, 3)
    for part in parts if small_first else parts[::-1]:
        state = flash.online_softmax(*state, scores[..., part], v[:, part])
    _, z, o = state
    torch.testing.assert_close(o / z, scores[..., :3].softmax(dim=-1) @ v[:, :3])


@pytest.mark.exercise("flash.online_softmax")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (1, 1, 1, 1), (2, 3, 3, 3, 3)])
def test_after_every_block_m_z_and_o_are_what_they_stand_for(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Of all the scores so far: the maximum of each row, Σ e^(s - m) and Σ e^(s - m) v.

    The rows and the keys of one block are thousands apart: one maximum for all of them is seen.
    """
    *batch, rows, width, dim = shape
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(*batch, rows, 4 * width, generator=g, dtype=torch.float64).to(dtype)
    scores = scores + 3000 * torch.arange(rows)[:, None] - 2000.0 * (torch.arange(4 * width) % 2)
    v = torch.randn(*batch, 4 * width, dim, generator=g, dtype=torch.float64).to(dtype)
    m = torch.full((*batch, rows, 1), -math.inf, dtype=dtype)
    state = m, torch.zeros_like(m), m.new_zeros(*batch, rows, dim)
    for end in range(width, 4 * width + 1, width):
        block = slice(end - width, end)
        given = (*state, scores[..., block], v[..., block, :])
        before = [x.clone() for x in given]
        state = flash.online_softmax(*given)
        assert all(map(torch.equal, given, before)), "new tensors: the arguments are left alone"
        seen, values = scores[..., :end], v[..., :end, :]
        top = seen.amax(dim=-1, keepdim=True)
        e = (seen - top).exp()
        for ours, expected in zip(state, (top, e.sum(-1, keepdim=True), e @ values), strict=True):
            assert (ours.dtype, ours.shape) == (dtype, expected.shape)
            torch.testing.assert_close(ours, expected)


@pytest.mark.exercise("flash.online_softmax")
def test_a_block_that_is_masked_whole_changes_nothing() -> None:
    scores, v = scores_and_values(4)
    empty = torch.full((2, 4, 2), -math.inf, dtype=torch.float64)
    first = flash.online_softmax(*start(4, 3), empty, v[:, :2])
    assert (first[0] == -math.inf).all()
    assert not first[1].any()
    assert not first[2].any()
    m, z, o = flash.online_softmax(*first, scores, v)
    for a, b in zip(flash.online_softmax(m, z, o, empty, v[:, :2]), (m, z, o), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(o / z, scores.softmax(dim=-1) @ v)


# ---- one tile of the backward pass


@pytest.mark.exercise("flash.tile_gradients")
@pytest.mark.parametrize("scale", [0.3, 1.7])
def test_one_tile_that_is_the_whole_table_has_autograds_gradients(scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v, grad = (
        torch.randn(2, t, d, generator=g, dtype=torch.float64)
        for t, d in ((4, 3), (6, 3), (6, 5), (4, 5))
    )
    leaves = [x.requires_grad_() for x in (q, k, v)]
    p = (scale * q @ k.mT).softmax(dim=-1)
    expected = torch.autograd.grad(p @ v, leaves, grad)
    p, (q, k, v) = p.detach(), [x.detach() for x in leaves]
    delta = (grad * (p @ v)).sum(dim=-1, keepdim=True)
    found = flash.tile_gradients(p, grad, delta, q, k, v, scale)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.exercise("flash.tile_gradients")
@pytest.mark.parametrize("shape", [(2, 3, 4, 6, 3), (1, 1, 1, 1, 1), (3, 3, 3, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_tile_of_any_shape_by_sums(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The five equations index by index; weights that are a part of a row, so no softmax."""
    *batch, rows, width, dim = shape
    g = torch.Generator().manual_seed(2)
    sizes = ((rows, width), (rows, dim), (rows, 1), (rows, dim), (width, dim), (width, dim))
    given = [torch.rand(*batch, *s, generator=g, dtype=torch.float64).to(dtype) for s in sizes]
    before = [x.clone() for x in given]
    found = flash.tile_gradients(*given, -0.7)
    assert all(map(torch.equal, given, before)), "the arguments are left alone"
    p, grad, delta, q, k, v = given
    ds = p * (torch.einsum("...ic,...jc->...ij", grad, v) - delta)
    expected = (
        -0.7 * torch.einsum("...ij,...jc->...ic", ds, k),
        -0.7 * torch.einsum("...ij,...ic->...jc", ds, q),
        torch.einsum("...ij,...ic->...jc", p, grad),
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.exercise("flash.tile_gradients")
def test_tiles_side_by_side_add_up() -> None:
    """D is of the whole row: a tile that used its own part of it would be wrong."""
    g = torch.Generator().manual_seed(1)
    q, k, v, grad = (torch.randn(t, 3, generator=g, dtype=torch.float64) for t in (4, 6, 6, 4))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    p = (0.5 * q @ k.T).softmax(dim=-1)
    expected = torch.autograd.grad(p @ v, leaves, grad)
    p, (q, k, v) = p.detach(), [x.detach() for x in leaves]
    delta = (grad * (p @ v)).sum(dim=-1, keepdim=True)
    parts = [slice(0, 2), slice(2, 6)]
    found = [flash.tile_gradients(p[:, c], grad, delta, q, k[c], v[c], 0.5) for c in parts]
    torch.testing.assert_close(found[0][0] + found[1][0], expected[0])
    for i in (1, 2):
        torch.testing.assert_close(torch.cat([found[0][i], found[1][i]]), expected[i])


# ---- the whole


@pytest.mark.parametrize("block", [1, 3, 4, 100])
@pytest.mark.parametrize(("queries", "keys"), [(8, 8), (7, 10), (10, 7), (1, 5)])
@pytest.mark.parametrize("causal", [False, True])
def test_values_and_gradients_are_torchs(block: int, queries: int, keys: int, causal: bool) -> None:
    tensors = inputs(queries, keys)
    ours = with_gradients(lambda *x: flash_attention(*x, causal=causal, block=block), tensors)
    allowed = causal_mask(queries, keys) if causal else torch.ones(queries, keys, dtype=torch.bool)
    rows = allowed.any(dim=1)  # PyTorch is asked only about rows that may attend somewhere
    assert not ours[0][:, :, ~rows].any()
    g = torch.Generator().manual_seed(2)
    direction = torch.randn(ours[0].shape, generator=g, dtype=torch.float64).float()  # as above
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = F.scaled_dot_product_attention(
        leaves[0][:, :, rows], leaves[1], leaves[2], attn_mask=allowed[rows]
    )
    theirs = [out, *torch.autograd.grad(out, leaves, direction[:, :, rows])]
    torch.testing.assert_close(ours[0][:, :, rows], theirs[0], atol=1e-5, rtol=1e-5)
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_bf16_is_as_near_the_truth_as_torchs(causal: bool) -> None:
    tensors = inputs(20, 20, torch.bfloat16)
    exact = with_gradients(
        lambda *x: F.scaled_dot_product_attention(*x, is_causal=causal),
        [x.double() for x in tensors],
    )
    ours = with_gradients(lambda *x: flash_attention(*x, causal=causal, block=8), tensors)
    theirs = with_gradients(
        lambda *x: F.scaled_dot_product_attention(*x, is_causal=causal), tensors
    )
    for a, b, truth in zip(ours, theirs, exact, strict=True):
        assert a.dtype == torch.bfloat16
        error, peer = ((x.double() - truth).abs().max().item() for x in (a, b))
        assert error <= max(2 * peer, 0.01 * truth.abs().max().item())


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_what_finite_differences_measure(causal: bool) -> None:
    tensors = [x.requires_grad_() for x in inputs(5, 7, torch.float64, heads=2, dim=3)]
    mask = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.7
    slopes = torch.tensor([0.5, 0.1], dtype=torch.float64)

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flash_attention(q, k, v, mask, causal, slopes=slopes, block=3)

    assert torch.autograd.gradcheck(function, tensors)


@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (2, 1, 1, 9), (7, 9), (1, 1, 7, 1)])
def test_masks_broadcast_and_empty_rows_are_0(shape: tuple[int, ...]) -> None:
    tensors = inputs(7, 9)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.4
    slopes = torch.tensor([0.5, 0.25, 0.125])
    ours = with_gradients(lambda *x: flash_attention(*x, mask, slopes=slopes, block=4), tensors)
    bias = alibi_bias(slopes, 7, 9)
    naive = with_gradients(
        lambda *x: scaled_dot_product_attention(*x, mask=mask, bias=bias)[0], tensors
    )
    for a, b in zip(ours, naive, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": 0}, "block must be 1 or more, got 0"),
        ({"mask": torch.zeros(5, 5)}, "a mask is boolean"),
        ({"k": torch.zeros(2, 3, 4, 8)}, r"got \(2, 3, 5, 8\), \(2, 3, 4, 8\)"),
        ({"q": torch.zeros(2, 6, 5, 8)}, r"expected q \(B, H, Tq, d\)"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], message: str) -> None:
    q, k, v = inputs(5, 5)
    with pytest.raises(ValueError, match=message):
        flash_attention(**({"q": q, "k": k, "v": v} | change))


# ---- memory


def test_only_the_output_and_one_number_a_row_are_kept() -> None:
    leaves = [x.requires_grad_() for x in inputs(40, 40)]
    kept: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = flash_attention(*leaves, block=16)
    given = {x.data_ptr() for x in leaves}
    own = [x.shape for x in kept if x.data_ptr() not in given]
    assert sorted(own) == sorted([out.shape, (2, 3, 40, 1)])


def test_tiled_memory_is_linear_and_naive_quadratic() -> None:
    """Bytes of the tensors that are alive at once, counted; no clock and no other process in it."""

    def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v)[0]

    def tiled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flash_attention(q, k, v, causal=True, block=64)

    short, long = (inputs(t, t, heads=1, dim=16) for t in (1024, 2048))
    table = 2 * 4 * 2048**2  # bytes of the scores of the long one, for both sequences
    assert measure(naive, *long).largest == table
    assert measure(naive, *long).peak / measure(naive, *short).peak == pytest.approx(4, rel=0.05)
    assert measure(tiled, *long).peak / measure(tiled, *short).peak == pytest.approx(2, rel=0.1)
    assert measure(tiled, *long).peak < table / 10


def test_peak_memory_counts_what_is_alive() -> None:
    before = torch.ones(1000)
    with PeakMemory() as memory:
        a = before + 1  # 4,000 bytes
        b = a.view(10, 100)[:5]  # a view
        a.add_(1)  # in place
        c = torch.cat([b, b])  # 4,000 more
        del a, b, c
        d = before.double()  # 8,000, when the others are gone
        assert memory.now == 8000
        del d
    assert memory.peak == 8000
    assert memory.largest == 8000
    assert memory.now == 0
