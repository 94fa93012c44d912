"""A small decoder-only Transformer from this week's parts (Vaswani et al. 2017, sections 3.1-3.5).

    x = √d_model E[token] + PE        x ← x + attention(norm(x))        x ← x + mlp(norm(x))

Layers as in section 3.1, without the encoder and its cross-attention, and with the norm before each
sublayer instead of after it, which makes training easier. Positions are added to the embeddings
(sinusoidal), or enter the attention of every layer (rotary, ALiBi).

Letters: B batch, T tokens, V vocabulary, H heads.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from attention.cache import KVCache
from attention.heads import Backend, MultiHeadAttention
from attention.positions import sinusoidal

Positions = Literal["sinusoidal", "rotary", "alibi", "none"]


class Block(nn.Module):
    """One layer: (B, T, d_model) -> (B, T, d_model)."""

    def __init__(self, d_model: int, attention: MultiHeadAttention) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = attention
        self.mlp = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.ReLU(), nn.Linear(4 * d_model, d_model)
        )  # section 3.3

    def forward(self, x: Tensor, cache: KVCache | None, start: int) -> Tensor:
        x = x + self.attention(self.norm1(x), causal=True, cache=cache, start=start)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Transformer(nn.Module):
    """Tokens to logits of the next token."""

    def __init__(
        self,
        vocabulary: int,
        d_model: int,
        heads: int,
        layers: int,
        kv_heads: int | None = None,
        positions: Positions = "sinusoidal",
        backend: Backend = "sdpa",
    ) -> None:
        """Settings are those of MultiHeadAttention, which also raises their ValueErrors."""
        super().__init__()
        self.d_model, self.sinusoidal = d_model, positions == "sinusoidal"
        self.embedding = nn.Embedding(vocabulary, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)  # times √d_model: 1, like PE
        inside: Literal["none", "rotary", "alibi"]
        inside = "none" if positions == "sinusoidal" else positions
        self.blocks = nn.ModuleList(
            Block(d_model, MultiHeadAttention(d_model, heads, kv_heads, inside, backend))
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, vocabulary, bias=False)

    @property
    def layers(self) -> list[Block]:
        """The blocks, by their type."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(self, tokens: Tensor, caches: Sequence[KVCache] | None = None) -> Tensor:
        """int64 (B, T) -> logits (B, T, V). With caches, tokens are the next T.

        Raises ValueError when the caches are full.
        """
        start = caches[0].length if caches else 0
        x = self._embed(tokens, start)
        each: Sequence[KVCache | None] = caches or [None] * len(self.layers)
        for block, cache in zip(self.layers, each, strict=True):
            x = block(x, cache, start)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def maps(self, tokens: Tensor) -> Tensor:
        """Attention weights of all layers (layers, B, H, T, T)."""
        x = self._embed(tokens, 0)
        weights = []
        for block in self.layers:
            weights.append(block.attention.maps(block.norm1(x), causal=True))
            x = block(x, None, 0)
        return torch.stack(weights)

    def new_caches(self, batch: int, capacity: int) -> list[KVCache]:
        """An empty cache for each layer."""
        return [block.attention.new_cache(batch, capacity) for block in self.layers]

    @torch.no_grad()
    def generate(self, prompt: Tensor, count: int, use_cache: bool = True) -> Tensor:
        """The `count` likeliest next tokens, one after the other: int64 (B, T) -> (B, count).

        With the cache each token costs one position; without it, the whole sequence again.
        """
        caches = self.new_caches(len(prompt), prompt.shape[1] + count) if use_cache else None
        tokens = feed = prompt
        for _ in range(count):
            following = self(feed, caches)[:, -1:].argmax(dim=-1)  # (B, 1)
            tokens = torch.cat([tokens, following], dim=1)
            feed = following if use_cache else tokens
        return tokens[:, prompt.shape[1] :]

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        """Embeddings with their positions from `start` on (B, T, d_model)."""
        x = self.embedding(tokens) * self.d_model**0.5  # section 3.4
        if self.sinusoidal:
            x = x + sinusoidal(tokens.shape[1], self.d_model, start, device=tokens.device)
        return x
