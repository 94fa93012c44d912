"""The Transformer: an encoder that reads, a decoder that writes (Vaswani et al. 2017, section 3).

    encoder layer    x ← x + self-attention(x)      x ← x + mlp(x)
    decoder layer    x ← x + causal self-attention(x)
                     x ← x + attention of x to the encoder's output      x ← x + mlp(x)

Attention, cache and positions are week 5's. Every sublayer has dropout, a residual connection and a
LayerNorm: after the sum in the paper (post-norm), before the sublayer in most later models
(pre-norm; Xiong et al. 2020), which need no careful warm-up. One matrix embeds source and target
and, transposed, makes the logits (section 3.4).

Padding comes after a sentence. In the source it is masked. In the target no mask is needed: the
causal mask hides it from all earlier tokens, and the loss ignores its positions.

Letters: B batch, S source tokens, T target tokens, V vocabulary, H heads, d dimensions of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attention import KVCache, MultiHeadAttention, attend, merge_heads, sinusoidal, split_heads
from attention.heads import Backend
from labkit import exercise
from transformers_lab.batches import padding_mask


@exercise(minutes=10)
def residual(
    x: Tensor,
    sublayer: Callable[[Tensor], Tensor],
    norm: nn.Module,
    dropout: nn.Module,
    pre_norm: bool,
) -> Tensor:
    """A sublayer with dropout, residual and norm (sections 3.1 and 5.4), (B, T, d_model) -> same.

    post-norm    norm(x + dropout(sublayer(x)))
    pre-norm     x + dropout(sublayer(norm(x)))
    """
    if pre_norm:
        return x + dropout(sublayer(norm(x)))
    out: Tensor = norm(x + dropout(sublayer(x)))
    return out


@dataclass(frozen=True)
class Memory:
    """Input of cross-attention: every layer's keys and values of the source, computed once."""

    keys: list[Tensor]
    """Of each layer, (B, H, S, d)."""
    values: list[Tensor]
    mask: Tensor
    """bool (B, 1, 1, S), True where a query may attend."""

    def select(self, rows: Tensor) -> "Memory":
        """The memory of the sentences `rows` (int64), in that order; rows may repeat."""
        return Memory([k[rows] for k in self.keys], [v[rows] for v in self.values], self.mask[rows])


@dataclass(frozen=True)
class Shape:
    """Settings that all layers share. The defaults are the paper's base model (table 3)."""

    d_model: int = 512
    heads: int = 8
    layers: int = 6
    """In the encoder, and in the decoder."""
    d_ff: int = 2048
    dropout: float = 0.1
    pre_norm: bool = False
    backend: Backend = "sdpa"

    def attention(self) -> MultiHeadAttention:
        """Raises ValueError when heads do not divide d_model."""
        return MultiHeadAttention(self.d_model, self.heads, backend=self.backend)

    def feed_forward(self) -> nn.Sequential:
        """Section 3.3: applied to each position separately."""
        d_model, d_ff = self.d_model, self.d_ff
        return nn.Sequential(nn.Linear(d_model, d_ff), nn.ReLU(), nn.Linear(d_ff, d_model))


class EncoderLayer(nn.Module):
    """Section 3.1, left half of figure 1."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention, self.mlp = shape.attention(), shape.feed_forward()
        self.norms = nn.ModuleList(nn.LayerNorm(shape.d_model) for _ in range(2))
        self.dropout, self.pre_norm = nn.Dropout(shape.dropout), shape.pre_norm

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, S, d_model) -> the same; mask (B, 1, 1, S), True where a query may attend."""

        def look(h: Tensor) -> Tensor:
            out: Tensor = self.attention(h, mask=mask)
            return out

        x = residual(x, look, self.norms[0], self.dropout, self.pre_norm)
        return residual(x, self.mlp, self.norms[1], self.dropout, self.pre_norm)


class DecoderLayer(nn.Module):
    """Section 3.1, right half of figure 1."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention, self.cross = shape.attention(), shape.attention()
        self.mlp = shape.feed_forward()
        self.norms = nn.ModuleList(nn.LayerNorm(shape.d_model) for _ in range(3))
        self.dropout, self.pre_norm = nn.Dropout(shape.dropout), shape.pre_norm

    def remember(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's output (B, S, d_model), each (B, H, S, d)."""
        heads = self.cross.heads
        return split_heads(self.cross.k(encoded), heads), split_heads(self.cross.v(encoded), heads)

    @exercise(minutes=20)
    def look_across(self, h: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Cross-attention: queries from the decoder, keys and values from the encoder's output.

        Args:
            h: (B, T, d_model); `self.cross.q` makes the queries from it.
            keys, values: (B, H, S, d), from `remember`.
            mask: (B, 1, 1, S), True where a query may attend. Nothing is causal here: the whole
                source is known.
        Returns:
            (B, T, d_model), through the output projection `self.cross.out`.
        """
        q = split_heads(self.cross.q(h), self.cross.heads)
        seen = attend(q, keys, values, mask, backend=self.cross.backend)
        out: Tensor = self.cross.out(merge_heads(seen))
        return out

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, cache: KVCache | None
    ) -> Tensor:
        """(B, T, d_model) -> the same. With a cache, x holds the next T tokens."""

        def look_back(h: Tensor) -> Tensor:
            out: Tensor = self.attention(h, causal=True, cache=cache)
            return out

        def look_across(h: Tensor) -> Tensor:
            return self.look_across(h, keys, values, mask)

        x = residual(x, look_back, self.norms[0], self.dropout, self.pre_norm)
        x = residual(x, look_across, self.norms[1], self.dropout, self.pre_norm)
        return residual(x, self.mlp, self.norms[2], self.dropout, self.pre_norm)


class Transformer(nn.Module):
    """Source and target tokens to logits of the next target token."""

    def __init__(self, vocabulary: int, shape: Shape) -> None:
        """Args:
            vocabulary: V, of both languages together.
        Raises:
            ValueError when heads do not divide d_model, or (later) when d_model is odd.
        """
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(vocabulary, shape.d_model)
        nn.init.normal_(
            self.embedding.weight, std=shape.d_model**-0.5
        )  # times √d_model: 1, like PE
        self.encoder = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.layers))
        self.decoder = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        # Post-norm ends every layer with a norm; pre-norm leaves the last sum without one.
        self.encoder_norm = nn.LayerNorm(shape.d_model) if shape.pre_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(shape.d_model) if shape.pre_norm else nn.Identity()
        self.dropout = nn.Dropout(shape.dropout)

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        """The decoder's layers, by their type."""
        return [layer for layer in self.decoder if isinstance(layer, DecoderLayer)]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """int64 (B, S) and (B, T) -> logits (B, T, V): position t sees the target up to token t."""
        return self.logits(self.decode(target, self.encode(source)))

    def encode(self, source: Tensor) -> Memory:
        """Encode the source, int64 (B, S), padded at the end with PAD."""
        mask = padding_mask(source)
        x = self._embed(source, 0)
        for layer in self.encoder:
            x = layer(x, mask)
        x = self.encoder_norm(x)
        pairs = [layer.remember(x) for layer in self.decoder_layers]
        return Memory([keys for keys, _ in pairs], [values for _, values in pairs], mask)

    def decode(
        self, target: Tensor, memory: Memory, caches: Sequence[KVCache] | None = None
    ) -> Tensor:
        """int64 (B, T) -> (B, T, d_model), for `logits`. With caches, the next T tokens."""
        x = self._embed(target, caches[0].length if caches else 0)
        each: Sequence[KVCache | None] = caches or [None] * len(self.decoder)
        for layer, keys, values, cache in zip(
            self.decoder, memory.keys, memory.values, each, strict=True
        ):
            x = layer(x, keys, values, memory.mask, cache)
        out: Tensor = self.decoder_norm(x)
        return out

    def logits(self, x: Tensor) -> Tensor:
        """(..., d_model) -> (..., V), by the embedding matrix."""
        return x @ self.embedding.weight.T

    def maps(self, source: Tensor, target: Tensor) -> Tensor:
        """Weights of the cross-attention of every layer, (layers, B, H, T, S)."""
        seen: list[Tensor] = []
        hooks = [
            layer.cross.q.register_forward_hook(lambda _, __, q: seen.append(q))
            for layer in self.decoder_layers
        ]
        memory = self.encode(source)
        self.decode(target, memory)
        for hook in hooks:
            hook.remove()
        scores = [
            split_heads(q, layer.cross.heads) @ keys.mT * layer.cross.dim**-0.5
            for q, keys, layer in zip(seen, memory.keys, self.decoder_layers, strict=True)
        ]
        return torch.stack(scores).masked_fill(~memory.mask, -torch.inf).softmax(dim=-1)

    def new_caches(self, batch: int, capacity: int) -> list[KVCache]:
        """An empty cache for the self-attention of each layer of the decoder."""
        return [layer.attention.new_cache(batch, capacity) for layer in self.decoder_layers]

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        """Embeddings with their positions from `start` on (B, T, d_model), section 3.4 and 3.5."""
        d_model = self.shape.d_model
        x = self.embedding(tokens) * d_model**0.5
        x = x + sinusoidal(tokens.shape[1], d_model, start, device=tokens.device)
        dropped: Tensor = self.dropout(x)
        return dropped
