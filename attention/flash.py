"""Attention in tiles: exact, and in memory that grows with the length, not with its square.

The whole table of scores is never in memory. Queries and keys are cut into blocks; the softmax over
a row, which seems to need all its scores, is updated block by block ("online"): a running maximum
m, a running sum z and an output o are rescaled whenever the maximum rises. The backward pass
computes the weights again, from the log-sum-exp of each row: the forward pass keeps only the output
and this one number per row.

    L_i = log Σ_j exp(S_ij)        P_ij = exp(S_ij - L_i)        D_i = Σ_c dO_ic O_ic
    dV = Pᵀ dO        dS = P ∘ (dO Vᵀ - D)        dQ = c dS K        dK = c dSᵀ Q

Dao et al. 2022 (FlashAttention): algorithms 1 (forward) and 4 (backward), without dropout. Dao 2023
(FlashAttention-2): the queries in the outer loop, o divided by z at the end, L instead of m and z.
On a GPU the gain in time comes from tiles that stay in fast memory, which needs a fused kernel. The
loops here show the algorithm and have its memory use.

Letters: B batch, H heads, Tq queries, Tk keys, d dimensions of a head; n rows, w columns of a tile.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attention.attention import check_mask
from labkit import exercise

Running = tuple[Tensor, Tensor, Tensor]
"""m (..., n, 1), z (..., n, 1) and o (..., n, d)."""


@exercise(minutes=25)
def online_softmax(m: Tensor, z: Tensor, o: Tensor, scores: Tensor, v: Tensor) -> Running:
    """Add one more block of keys to the running softmax of n queries.

        m' = max(m, max_j s_j)
        z' = e^(m - m') z + Σ_j e^(s_j - m')        o' = e^(m - m') o + Σ_j e^(s_j - m') v_j

    After the last block, o / z is softmax(s) v and m + log z is log Σ_j e^(s_j).
    The papers write ℓ for z.

    Args:
        m: greatest score so far (..., n, 1); -inf before the first block.
        z: Σ e^(s - m) so far (..., n, 1); 0 at first.
        o: Σ e^(s - m) v so far (..., n, d); 0 at first.
        scores: s of the new block (..., n, w); -inf where a query may not attend.
        v: its values (..., w, d).
    Returns:
        m', z', o': new tensors. A row without any key so far keeps m = -inf, z = 0, o = 0; no NaN.
    """
    top = torch.maximum(m, scores.amax(dim=-1, keepdim=True))
    finite = top.masked_fill(top == -torch.inf, 0.0)  # -inf - (-inf) would be NaN
    p = (scores - finite).exp()  # (..., n, w)
    shrink = (m - finite).exp()
    return top, shrink * z + p.sum(dim=-1, keepdim=True), shrink * o + p @ v


@exercise(minutes=25)
def tile_gradients(
    p: Tensor, grad: Tensor, delta: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The contribution of one tile to the gradients of its queries, keys and values.

        dP = dO Vᵀ        dS = P ∘ (dP - D)        dQ = c dS K        dK = c dSᵀ Q        dV = Pᵀ dO

    Args:
        p: the tile's weights P (..., n, w).
        grad: dO, gradient of the output's rows (..., n, d).
        delta: D, of each row: Σ_c dO_c O_c over the *whole* output, (..., n, 1).
        q: queries (..., n, d).
        k, v: keys and values (..., w, d).
        scale: c.
    Returns:
        dQ (..., n, d), dK (..., w, d) and dV (..., w, d).
    """
    ds = p * (grad @ v.transpose(-2, -1) - delta)
    dq = scale * (ds @ k)
    dk = scale * (ds.transpose(-2, -1) @ q)
    return dq, dk, p.transpose(-2, -1) @ grad


def blocks(length: int, size: int, end: int | None = None) -> Iterator[slice]:
    """Slices of `size` over 0..length, the last one shorter; none begins at `end` or later."""
    for begin in range(0, length if end is None else min(length, end), size):
        yield slice(begin, min(begin + size, length))


class Tiles:
    """The masked scores of one tile at a time; both passes use them."""

    def __init__(
        self, q: Tensor, k: Tensor, mask: Tensor | None, slopes: Tensor | None,
        causal: bool, scale: float, size: int,
    ) -> None:  # fmt: skip
        self.q, self.k, self.mask, self.slopes = q, k, mask, slopes
        self.causal, self.scale, self.size = causal, scale, size
        self.offset = k.shape[-2] - q.shape[-2]  # position of the first query
        self.dtype = torch.promote_types(q.dtype, torch.float32)  # of all sums

    def rows(self) -> Iterator[slice]:
        return blocks(self.q.shape[-2], self.size)

    def columns(self, rows: slice) -> Iterator[slice]:
        """Blocks of keys for these queries, without blocks that lie entirely in their future."""
        end = rows.stop + self.offset if self.causal else None
        return blocks(self.k.shape[-2], self.size, end)

    def cut(self, x: Tensor, part: slice) -> Tensor:
        """Rows `part` of x (..., T, d), in the dtype of the sums."""
        return x[..., part, :].to(self.dtype)

    def scores(self, rows: slice, columns: slice) -> Tensor:
        """S of the tile (B, H, n, w), -inf where a query may not attend."""
        s = (self.scale * self.cut(self.q, rows)) @ self.cut(self.k, columns).transpose(-2, -1)
        i = torch.arange(rows.start, rows.stop, device=s.device)[:, None] + self.offset
        j = torch.arange(columns.start, columns.stop, device=s.device)
        if self.slopes is not None:
            s -= self.slopes[:, None, None] * (i - j).abs()
        if self.mask is not None:
            mask = self.mask if self.mask.shape[-2] == 1 else self.mask[..., rows, :]
            s.masked_fill_(~(mask if mask.shape[-1] == 1 else mask[..., columns]), -torch.inf)
        if self.causal and columns.stop - 1 > rows.start + self.offset:
            s.masked_fill_(j > i, -torch.inf)
        return s


class FlashAttention(torch.autograd.Function):
    """O from Q, K, V; for the backward pass it keeps those, O, and L."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, slopes: Tensor | None,
        causal: bool, scale: float, size: int,
    ) -> Tensor:  # fmt: skip
        tiles = Tiles(q, k, mask, slopes, causal, scale, size)
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        lse = q.new_empty(*q.shape[:-1], 1, dtype=tiles.dtype)
        with torch.autocast(q.device.type, enabled=False):  # it would round the sums
            for rows in tiles.rows():
                shape = (*q.shape[:-2], rows.stop - rows.start)
                z = q.new_zeros(*shape, 1, dtype=tiles.dtype)
                o = q.new_zeros(*shape, v.shape[-1], dtype=tiles.dtype)
                m = torch.full_like(z, -torch.inf)
                for columns in tiles.columns(rows):
                    s = tiles.scores(rows, columns)
                    m, z, o = online_softmax(m, z, o, s, tiles.cut(v, columns))
                nothing = z == 0  # rows that may attend nowhere: 0, now and in the backward pass
                out[..., rows, :] = o / z.masked_fill(nothing, 1.0)
                lse[..., rows, :] = (m + z.log()).masked_fill(nothing, torch.inf)
        ctx.save_for_backward(q, k, v, out, lse, mask, slopes)
        ctx.settings = causal, scale, size
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, mask, slopes = ctx.saved_tensors
        tiles = Tiles(q, k, mask, slopes, *ctx.settings)
        dq, dk, dv = (torch.zeros_like(x, dtype=tiles.dtype) for x in (q, k, v))
        with torch.autocast(q.device.type, enabled=False):
            for rows in tiles.rows():
                g = tiles.cut(grad, rows)
                delta = (g * tiles.cut(out, rows)).sum(dim=-1, keepdim=True)
                for columns in tiles.columns(rows):
                    p = (tiles.scores(rows, columns) - lse[..., rows, :]).exp()
                    parts = (tiles.cut(q, rows), tiles.cut(k, columns), tiles.cut(v, columns))
                    add = tile_gradients(p, g, delta, *parts, tiles.scale)
                    dq[..., rows, :] += add[0]
                    dk[..., columns, :] += add[1]
                    dv[..., columns, :] += add[2]
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None, None, None, None


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    slopes: Tensor | None = None,
    block: int = 256,
) -> Tensor:
    """The output of `scaled_dot_product_attention`, in memory linear in the length.

    Args:
        q: (B, H, Tq, d).
        k, v: (B, H, Tk, d).
        mask: bool (..., Tq or 1, Tk or 1), broadcast to (B, H, Tq, Tk); True where a query may
            attend. A full mask is itself quadratic; causal and ALiBi are made tile by tile.
        causal: the queries are the last of the keys' positions and see no later one.
        scale: 1/√d when None.
        slopes: ALiBi's, (H,); they get no gradient.
        block: queries and keys in a tile; lengths need not divide by it.
    Returns:
        (B, H, Tq, d), in the dtype of q; sums are in fp32 (float64 for float64).
    Raises:
        ValueError for a block below 1, shapes that do not fit, or a mask that is not boolean.
    """
    check_mask(mask)
    if block < 1:
        raise ValueError(f"block must be 1 or more, got {block}")
    if k.shape[:-1] != v.shape[:-1] or q.shape[:-2] != k.shape[:-2] or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            "expected q (B, H, Tq, d), k (B, H, Tk, d) and v (B, H, Tk, any), got "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out: Tensor = FlashAttention.apply(q, k, v, mask, slopes, causal, scale, block)
    return out
