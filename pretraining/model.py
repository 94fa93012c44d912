"""A GPT in two versions, chosen by one setting: the 2019 recipe and today's (Radford et al. 2019;
Karpathy 2025, nanochat).

    x = E[token] + P[position]        x ← x + attention(norm(x))        x ← x + mlp(norm(x))

                     gpt2                                  modern
    positions        learned, added at the bottom          rotary, in every layer
    norm             LayerNorm with gain and bias          RMSNorm without parameters, also on E
    queries, keys    as they are                           normed after rotation
    activation       GELU (its tanh form)                  squared ReLU
    biases           everywhere                            nowhere
    head             the embedding itself (tied)           a matrix of its own
    residual init    normal, std 0.02 / √(2 layers)        zero

The cache and rotary positions are week 5's. Both architectures open in Hugging Face transformers
without custom code: see huggingface.py.

Letters: B batch, T tokens, V vocabulary, C width, H heads, d = C / H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from attention import KVCache, attend, rotary_tables
from labkit import exercise
from pretraining.kernels import fast_attention, gelu, relu_squared, rms_norm

Architecture = Literal["gpt2", "modern"]
EPS = {"gpt2": 1e-5, "modern": 1e-6}
"""Added to the variance inside a norm, as in Hugging Face's GPT2 and NanoChat."""


@dataclass(frozen=True)
class Shape:
    """The numbers that determine the size of a GPT. GPT-2 124M: Shape(50257, 1024, 768, 12, 12)."""

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int

    def __post_init__(self) -> None:
        """Raises ValueError when a number is not positive, or a head's dimension not even."""
        if min(vars(self).values()) < 1:
            raise ValueError(f"every number of a shape must be 1 or more: {self}")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width must be an even multiple of heads, got {self.width} and {self.heads}"
            )


@exercise(minutes=10)
def initial_std(kind: str, architecture: Architecture, width: int, layers: int) -> float:
    """Standard deviation from which a weight matrix is drawn.

    gpt2 (Radford et al. 2019, section 2.3): 0.02 for every matrix; those that write into the
    residual stream get 1/√N of that, where N counts the residual additions, two in each layer, so
    that the variance of their sum does not grow with depth.
    modern: 1/√width for the matrices inside, so that input of unit variance gives output of unit
    variance; 0 for those that write into the residual stream, so that each layer begins as the
    identity; 1 for the embedding, which is normed anyway; 0.001 for the head, so that the first
    loss is ln V.

    Args:
        kind: "embedding" (of tokens or of positions), "inside", "residual" (writes into the
            residual stream) or "head".
    """
    if architecture == "gpt2":
        return 0.02 / (2 * layers) ** 0.5 if kind == "residual" else 0.02
    return {"embedding": 1.0, "inside": width**-0.5, "residual": 0.0, "head": 0.001}[kind]


class Attention(nn.Module):
    """Self-attention with one matrix for queries, keys and values: (B, T, C) -> (B, T, C)."""

    def __init__(self, shape: Shape, modern: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.modern, self.dropout = shape.heads, modern, dropout
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=not modern)
        self.out = nn.Linear(shape.width, shape.width, bias=not modern)

    def forward(
        self, x: Tensor, turn: Tensor | None, causal: bool, cache: KVCache | None
    ) -> Tensor:
        """`turn`: see `rotate`; `cache` as in week 5."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        qk, v = qkv[:, :, :2], qkv[:, :, 2]
        if turn is not None:
            qk = rms_norm(rotate(qk, turn[:, None]), EPS["modern"])  # both at once
        q, k, v = (each.transpose(1, 2) for each in (*qk.unbind(2), v))  # (B, H, T, d)
        if cache is None:
            y = fast_attention(q, k, v, causal, self.dropout if self.training else 0.0)
        else:
            k, v = cache.append(k, v)
            y = attend(q, k, v, causal=causal)
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, length, width))
        return out


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate each pair of neighbours (x_2i, x_2i+1) of a query or key by its position's angle.

    The layout of Su et al. 2021, section 3.2: a pair is a complex number, and rotation is one
    product. Week 5 and Hugging Face pair halves instead: the same up to the order of dimensions.

    Args:
        x: (B, T, ..., d). turn: complex64 (T, ..., d/2), cos θ + i sin θ, broadcast to x's pairs.
    Returns:
        float32, of x's shape.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2)


class MLP(nn.Module):
    """(B, T, C) -> (B, T, C) by way of 4 C."""

    def __init__(self, width: int, modern: bool) -> None:
        super().__init__()
        self.modern = modern
        self.up = nn.Linear(width, 4 * width, bias=not modern)
        self.down = nn.Linear(4 * width, width, bias=not modern)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        h = relu_squared(h) if self.modern else gelu(h)
        y: Tensor = self.down(h)
        return y


class Block(nn.Module):
    """One layer, the norm before each sublayer: (B, T, C) -> (B, T, C)."""

    def __init__(self, shape: Shape, architecture: Architecture, dropout: float) -> None:
        super().__init__()
        modern = architecture == "modern"
        self.norm1, self.norm2 = norm(shape.width, modern), norm(shape.width, modern)
        self.attention = Attention(shape, modern, dropout)
        self.mlp = MLP(shape.width, modern)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, turn: Tensor | None, causal: bool, cache: KVCache | None
    ) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), turn, causal, cache))
        y: Tensor = x + self.drop(self.mlp(self.norm2(x)))
        return y


class RMSNorm(nn.Module):
    """x over its root mean square, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, EPS["modern"])


def norm(width: int, modern: bool) -> nn.Module:
    """RMSNorm without parameters (modern), or LayerNorm with gain and bias."""
    if modern:
        return RMSNorm()
    return nn.LayerNorm(width, eps=EPS["gpt2"])


class GPT(nn.Module):
    """Tokens to logits of the next token."""

    turn: Tensor

    def __init__(
        self,
        shape: Shape,
        architecture: Architecture = "gpt2",
        dropout: float = 0.0,
        causal: bool = True,
    ) -> None:
        """Args:
        dropout: of the embedding, of attention's weights and of what each sublayer adds.
        causal: false lets every token see all others (masked language modelling).
        """
        super().__init__()
        self.shape, self.architecture, self.causal = shape, architecture, causal
        modern = architecture == "modern"
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = None if modern else nn.Embedding(shape.context, shape.width)
        self.embedding_norm = norm(shape.width, True) if modern else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(shape, architecture, dropout) for _ in range(shape.layers)
        )
        self.norm = norm(shape.width, modern)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        if not modern:
            self.head.weight = self.embedding.weight
        cos, sin = rotary_tables(torch.arange(shape.context), shape.width // shape.heads)
        self.register_buffer("turn", torch.complex(cos, sin)[:, None], persistent=False)
        self._initialise()

    @property
    def layers(self) -> list[Block]:
        """The blocks, by their type."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(self, tokens: Tensor, caches: Sequence[KVCache] | None = None) -> Tensor:
        """int64 (B, T) -> logits (B, T, V). With caches, tokens are the next T.

        Raises ValueError when the tokens, with those in the caches, are more than the context.
        """
        return self.logits(self.hidden(tokens, caches))

    def hidden(self, tokens: Tensor, caches: Sequence[KVCache] | None = None) -> Tensor:
        """The input of the head: (B, T, C). Raises as `forward` does."""
        past, length = caches[0].length if caches else 0, tokens.shape[1]
        if past + length > self.shape.context:
            raise ValueError(
                f"{past + length} tokens do not fit into a context of {self.shape.context}"
            )
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions.weight[past : past + length]
        x = self.drop(self.embedding_norm(x))
        turn = self.turn[past : past + length] if self.architecture == "modern" else None
        each: Sequence[KVCache | None] = caches or [None] * len(self.blocks)
        for block, cache in zip(self.blocks, each, strict=True):
            x = block(x, turn, self.causal, cache)
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V)."""
        out: Tensor = self.head(hidden)
        return out

    def new_caches(self, batch: int, capacity: int) -> list[KVCache]:
        """An empty cache for each layer, in the weights' dtype and on their device."""
        like, heads = self.embedding.weight, self.shape.heads
        return [
            KVCache(batch, heads, capacity, self.shape.width // heads, like.dtype, like.device)
            for _ in self.blocks
        ]

    def count_parameters(self, embeddings: bool = True) -> int:
        """Number of parameters, each counted once. Without embeddings: those in the layers alone,
        N of Kaplan et al. 2020, section 1.3 (without token and position embeddings and head)."""
        return sum(p.numel() for p in (self if embeddings else self.blocks).parameters())

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue  # biases are 0 and gains 1: see below
            kind = {"embedding": "embedding", "positions": "embedding", "head": "head"}.get(
                name.split(".")[0],
                "residual" if name.endswith(("out.weight", "down.weight")) else "inside",
            )
            std = initial_std(kind, self.architecture, self.shape.width, self.shape.layers)
            nn.init.normal_(parameter, std=std)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
