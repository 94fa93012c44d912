"""Scaled dot-product attention written out (Vaswani et al. 2017, section 3.2.1).

    Attention(Q, K, V) = softmax(Q Kᵀ / √d) V                                         equation 1

Every query is compared with every key; the softmax of its scores gives the weight of each value.
The table of scores has Tq·Tk entries: memory grows with the square of the length. `flash.py` avoids
this.

**Masks** are boolean, and True means *may attend*, as in F.scaled_dot_product_attention. (The masks
of nn.MultiheadAttention mean the opposite: True is left out.) For a query that may attend nowhere,
weights, output and gradient are 0; a softmax over no keys would be 0/0.

**Causal with unlike lengths.** With a cache, the Tq queries are the *last* of the Tk positions:
query i stands at position i + Tk - Tq. So the mask is aligned at its bottom-right corner, as in
FlashAttention. F.scaled_dot_product_attention(is_causal=True) aligns it top-left, query i at
position i: a single new query would see only the first key.

Letters: B batch, H heads, Tq queries, Tk keys, d dimensions of a head.
"""

import torch
from torch import Tensor

from labkit import exercise


def check_mask(mask: Tensor | None) -> None:
    """Raise ValueError for a mask that is not boolean; `bias` takes masks of 0 and -inf."""
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(
            f"a mask is boolean, True where a query may attend; got {mask.dtype}. "
            "Convert an additive mask of 0 and -inf by: mask == 0"
        )


@exercise(minutes=10)
def causal_mask(queries: int, keys: int, device: torch.device | str | None = None) -> Tensor:
    """Which keys the last `queries` of `keys` positions may attend to: their own and earlier ones.

        query i stands at position i + Tk - Tq        True where j <= i + Tk - Tq

    Args:
        queries, keys: Tq and Tk. With Tq > Tk the first queries may attend nowhere.
        device: where the mask is made; the default device when None.
    Returns:
        bool (Tq, Tk), True where query i may attend to key j.
    """
    position = torch.arange(queries, device=device) + (keys - queries)
    return torch.arange(keys, device=device) <= position[:, None]


@exercise(minutes=20)
def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention's output and its weights, by equation 1, with the whole table in memory.

        S = c Q Kᵀ + bias        P = softmax(S) over the keys that may be attended to        O = P V

    Args:
        q: queries (B, H, Tq, d).
        k: keys (B, H, Tk, d).
        v: values (B, H, Tk, any d).
        mask: bool, broadcast to (B, H, Tq, Tk); True where a query may attend.
        causal: also forbid what `causal_mask(Tq, Tk)` forbids.
        scale: c, any number, also 0; 1/√d when None.
        bias: added to the scores before masking, broadcast to (B, H, Tq, Tk); it may be learned.
    Returns:
        O (B, H, Tq, d of v), and P (B, H, Tq, Tk), whose rows sum to 1. For a query that may attend
        nowhere both are 0, and so are the gradients. Both have the dtype of q (also float16, whose
        greatest number is 65504), and are finite however large the scores are.
    Raises:
        ValueError for a mask that is not boolean (`check_mask` says so).
    """
    check_mask(mask)
    if causal:
        past = causal_mask(q.shape[-2], k.shape[-2], q.device)
        mask = past if mask is None else mask & past
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    if mask is None:
        weights = scores.softmax(dim=-1)
    else:
        # The lowest finite number, not -inf: a row of nothing but -inf would be NaN.
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1)
        weights = weights.masked_fill(~mask, 0.0)
    return weights @ v, weights


def entropy(weights: Tensor) -> Tensor:
    """Entropy of each query's weights in nats, (..., Tq) from (..., Tq, Tk); 0 ln 0 is 0.

    ln n when n keys are attended to equally, 0 when one key has all the weight.
    """
    return torch.special.entr(weights).sum(dim=-1)
