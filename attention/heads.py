"""Several attentions side by side (Vaswani et al. 2017, section 3.2.2), with few keys or many.

    head_h = Attention(Q W_q^h, K W_k^h, V W_v^h)        MultiHead = Concat(head_1, ...) W_o

Each head works in its own space of d = d_model / H dimensions, so all heads together cost as much
as one large one. During generation the cache of keys and values fills the memory, so heads may
share them:

    kv_heads = H     multi-head attention
    kv_heads = G     grouped-query: H / G heads for each key and value   Ainslie et al. 2023
    kv_heads = 1     multi-query: one key and value for all              Shazeer 2019

Letters: B batch, H heads, T positions (Tq queries, Tk keys), d dimensions of a head.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention.attention import causal_mask, check_mask, scaled_dot_product_attention
from attention.cache import KVCache
from attention.flash import flash_attention
from attention.positions import alibi_bias, alibi_slopes, rotary, rotary_tables
from labkit import exercise

Backend = Literal["naive", "tiled", "sdpa"]
"""Implementation: the equation as written, the tiles of `flash.py`, or PyTorch's own kernels."""


@exercise(minutes=10)
def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H d) -> (B, H, T, d): the first d of the last dimension are head 0's, and so on."""
    batch, length, width = x.shape
    return x.view(batch, length, heads, width // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, d) -> (B, T, H d): the inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)


@exercise(minutes=10)
def repeat_kv(x: Tensor, times: int) -> Tensor:
    """Give every query head its keys (or values): head h uses those of pair h // times.

    Args:
        x: keys or values (B, G, T, d).
        times: query heads that share a pair, H / G.
    Returns:
        (B, G times, T, d): pair 0 `times` times in a row, then pair 1, ...; x itself for times = 1.
    """
    return x if times == 1 else x.repeat_interleave(times, dim=1)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    slopes: Tensor | None = None,
    backend: Backend = "sdpa",
) -> Tensor:
    """Attention by any backend, under one convention: (B, H, Tq, d).

    Args:
        q: (B, H, Tq, d).
        k, v: (B, G, Tk, d), where G divides H.
        mask: bool, broadcast to (B, H, Tq, Tk), True where a query may attend.
        causal: the queries are the last of the keys' positions and see no later one.
        scale: 1/√d when None.
        slopes: ALiBi's (H,), or None.
    Raises:
        ValueError for an unknown backend, or a mask that is not boolean.
    """
    check_mask(mask)
    if backend == "sdpa":
        return _sdpa(q, k, v, mask, causal, scale, slopes)
    times = q.shape[1] // k.shape[1]
    k, v = repeat_kv(k, times), repeat_kv(v, times)
    if backend == "tiled":
        return flash_attention(q, k, v, mask, causal, scale, slopes)
    if backend == "naive":
        return scaled_dot_product_attention(q, k, v, mask, causal, scale, _bias(slopes, q, k))[0]
    raise ValueError(f"unknown backend '{backend}': choose naive, tiled or sdpa")


def _bias(slopes: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    """ALiBi's bias for these queries and keys (H, Tq, Tk), in their dtype."""
    return None if slopes is None else alibi_bias(slopes, q.shape[2], k.shape[2]).to(q.dtype)


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool,
    scale: float | None, slopes: Tensor | None,
) -> Tensor:  # fmt: skip
    """PyTorch's function under this module's conventions: causal is aligned bottom-right."""
    queries, keys = q.shape[2], k.shape[2]
    square = causal and queries == keys and mask is None and slopes is None
    if causal and not square and queries > 1:  # a single query is the last: it sees everything
        past = causal_mask(queries, keys, q.device)
        mask = past if mask is None else mask & past
    bias = _bias(slopes, q, k)
    if bias is not None:
        mask = bias if mask is None else torch.where(mask, bias, -torch.inf)
    grouped = k.shape[1] != q.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=square, scale=scale, enable_gqa=grouped
    )


class MultiHeadAttention(nn.Module):
    """Self-attention, or cross-attention to a `context`; with a cache, one token at a time."""

    slopes: Tensor | None

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None = None,
        positions: Literal["none", "rotary", "alibi"] = "none",
        backend: Backend = "sdpa",
        bias: bool = False,
        base: float = 10_000.0,
    ) -> None:
        """Args:
            kv_heads: pairs of keys and values, G; as many as heads when None.
            positions: the position encoding inside attention (see `positions.py`).
            backend: see `Backend`; all three give the same numbers.
            bias: whether the four projections have biases.
            base: of rotary's frequencies.
        Raises:
            ValueError when heads do not divide d_model, or kv_heads heads, or when a head's
            dimension is odd and rotary.
        """
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or d_model % heads:
            raise ValueError(f"heads must divide d_model: {d_model} / {heads} is not whole")
        if kv_heads < 1 or heads % kv_heads:
            raise ValueError(f"kv_heads must divide heads: {heads} / {kv_heads} is not whole")
        self.heads, self.kv_heads, self.dim = heads, kv_heads, d_model // heads
        if positions == "rotary" and self.dim % 2:
            raise ValueError(f"rotary positions turn pairs: a head has {self.dim} dimensions")
        self.positions, self.backend, self.base = positions, backend, base
        self.q = nn.Linear(d_model, heads * self.dim, bias)
        self.k = nn.Linear(d_model, kv_heads * self.dim, bias)
        self.v = nn.Linear(d_model, kv_heads * self.dim, bias)
        self.out = nn.Linear(heads * self.dim, d_model, bias)
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.normal_(linear.weight, std=d_model**-0.5)  # unit variance in, unit variance out
            if bias:
                nn.init.zeros_(linear.bias)
        slopes = alibi_slopes(heads) if positions == "alibi" else None
        self.register_buffer("slopes", slopes, persistent=False)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KVCache | None = None,
        start: int | None = None,
    ) -> Tensor:
        """(B, Tq, d_model) -> (B, Tq, d_model).

        Args:
            context: (B, Tk, d_model), from which keys and values are computed instead of from x.
            mask, causal: see `attend`. With a cache, Tk counts its positions too.
            cache: the new keys and values are appended; the queries attend to all of it.
            start: position of x's first token, for rotary; the cache's length when None.
        Raises:
            ValueError when the cache is full, or for a context together with a cache or with
            positions, which are defined within *one* sequence.
        """
        q, k, v = self._project(x, context, cache, start)
        heads = attend(q, k, v, mask, causal, slopes=self.slopes, backend=self.backend)
        return self.out(merge_heads(heads))

    def maps(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """The weights that `forward` would use, (B, H, Tq, Tk), by equation 1."""
        q, k, v = self._project(x, context, None, None)
        times = self.heads // self.kv_heads
        k, v = repeat_kv(k, times), repeat_kv(v, times)
        bias = _bias(self.slopes, q, k)
        return scaled_dot_product_attention(q, k, v, mask, causal, bias=bias)[1]

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for this layer, in its weights' dtype and on their device."""
        like = self.k.weight
        return KVCache(batch, self.kv_heads, capacity, self.dim, like.dtype, like.device)

    def _project(
        self, x: Tensor, context: Tensor | None, cache: KVCache | None, start: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, H, Tq, d), k and v (B, G, Tk, d): rotated, and joined with the cached ones."""
        if context is not None and (cache is not None or self.positions != "none"):
            raise ValueError(
                "cross-attention to a context takes neither a cache nor rotary or ALiBi positions"
            )
        source = x if context is None else context
        q = split_heads(self.q(x), self.heads)
        k = split_heads(self.k(source), self.kv_heads)
        v = split_heads(self.v(source), self.kv_heads)
        if self.positions == "rotary":
            begin = start if start is not None else cache.length if cache is not None else 0
            positions = torch.arange(begin, begin + x.shape[1], device=x.device)
            tables = rotary_tables(positions, self.dim, self.base)
            q, k = rotary(q, *tables), rotary(k, *tables)
        if cache is not None:
            k, v = cache.append(k, v)
        return q, k, v
