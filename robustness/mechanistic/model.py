"""A transformer of attention layers alone, small enough to be understood whole.

    x ← E[token]        x ← x + Σ_h P_h (norm(x) W_V^h) W_O^h        logits = norm(x) W_U

Without MLPs every path from a token to the logits is a chain of heads (Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits"). Positions are added to the input of queries and
keys only, in every layer (Press et al. 2021, "Shortformer", section 4): the residual stream then
carries tokens alone, and what a head writes does not depend on where it stands. The norm is x over
its root mean square, without parameters; biases there are none.

The activations have names, see hooks.py: `embedding` is what the stream begins with, `blocks.1` the
stream after the second layer, `blocks.1.pattern` its attention (B, H, T, T), `blocks.1.mixed` what
its heads read, before W_O.

Letters: B batch, T tokens, V vocabulary, C width, H heads, d = C / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention import causal_mask, merge_heads, split_heads

EPS = 1e-5
"""Added to the mean square inside the norm."""


class Heads(nn.Module):
    """One layer: (B, T, C) -> (B, T, C), the residual connection included."""

    def __init__(self, width: int, heads: int) -> None:
        """Raises ValueError when the width is not a multiple of the heads."""
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        self.count = heads
        self.q, self.k, self.v, self.out = (
            nn.Parameter(torch.randn(width, width) * width**-0.5) for _ in range(4)
        )
        self.pattern, self.mixed = nn.Identity(), nn.Identity()  # places to read and to change

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """`positions` (T, C) are seen by queries and keys, not by values."""
        normed = rms_norm(x)
        placed = normed + positions
        q, k, v = (
            split_heads(each, self.count)  # (B, H, T, d)
            for each in (placed @ self.q, placed @ self.k, normed @ self.v)
        )
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        seen = causal_mask(x.shape[1], x.shape[1], x.device)
        pattern = self.pattern(scores.masked_fill(~seen, -torch.inf).softmax(-1))
        return x + merge_heads(self.mixed(pattern @ v)) @ self.out

    def written(self, mixed: Tensor) -> Tensor:
        """What each head adds to the stream: (B, H, T, d) -> (B, H, T, C)."""
        return torch.einsum("bhtd,hdc->bhtc", mixed, self.writing())

    def reading(self, weight: Tensor) -> Tensor:
        """The columns of W_Q, W_K or W_V that belong to each head: (C, C) -> (H, C, d)."""
        return weight.unflatten(1, (self.count, -1)).transpose(0, 1)

    def writing(self) -> Tensor:
        """The rows of W_O that belong to each head: (H, d, C)."""
        return self.out.unflatten(0, (self.count, -1))

    def ov(self) -> Tensor:
        """W_V W_O of each head (H, C, C): what a head writes about the token it attends to."""
        return self.reading(self.v) @ self.writing()

    def qk(self) -> Tensor:
        """W_Q W_Kᵀ of each head (H, C, C): a query x and a key y have the score x QK yᵀ / √d."""
        return self.reading(self.q) @ self.reading(self.k).transpose(-2, -1)


class AttentionOnly(nn.Module):
    """Tokens to logits of the next token: int64 (B, T) -> (B, T, V)."""

    def __init__(self, vocabulary: int, context: int, width: int, layers: int, heads: int) -> None:
        """Raises ValueError as `Heads` does, and when there is no layer."""
        super().__init__()
        if layers < 1:
            raise ValueError(f"there must be at least one layer, got {layers}")
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(context, width))
        self.blocks = nn.ModuleList(Heads(width, heads) for _ in range(layers))
        self.unembedding = nn.Parameter(torch.randn(width, vocabulary) * width**-0.5)

    @property
    def layers(self) -> list[Heads]:
        """The blocks, by their type."""
        return [block for block in self.blocks if isinstance(block, Heads)]

    def forward(self, tokens: Tensor) -> Tensor:
        """Raises ValueError when the tokens are more than the context."""
        length = tokens.shape[1]
        if length > len(self.positions):
            raise ValueError(f"{length} tokens do not fit into a context of {len(self.positions)}")
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.positions[:length])
        return self.logits(self.norm(x))

    def norm(self, x: Tensor) -> Tensor:
        """The last norm, (..., C) -> (..., C)."""
        return rms_norm(x)

    def logits(self, normed: Tensor) -> Tensor:
        """(..., C) -> (..., V)."""
        return normed @ self.unembedding


def rms_norm(x: Tensor) -> Tensor:
    """x over its root mean square."""
    return F.rms_norm(x, x.shape[-1:], eps=EPS)
