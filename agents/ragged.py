"""Writing behind many texts of unequal length at once.

Padding stands behind the prompts: a causal model never looks ahead, so what it computes for the
prompts themselves is what it computes for each alone. While it writes, every row has a position of
its own: its new key and value take the place of padding, and a mask hides the padding that is left.

Letters: B texts, C width, H heads, d = C / H, T cached positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from attention import KVCache
from labkit.learning.modes import evaluating
from pretraining import GPT, rotate


def write(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    count: int,
    end: int,
    chooser: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Up to `count` tokens behind each prompt: int64 (B, count), filled with `end` behind `end`.

    Args:
        model: a GPT of the modern architecture.
        chooser: takes logits (B, V) to tokens int64 (B, 1); the likeliest token without one.
    Raises:
        ValueError when a prompt is empty, or with `count` longer than the context.
    """
    device, context = model.embedding.weight.device, model.shape.context
    shortest, longest = min(map(len, prompts)), max(map(len, prompts))
    if shortest < 1 or longest + count > context:
        raise ValueError(
            f"prompts of 1 to {context - count} tokens fit into the context of {context} with "
            f"{count} new ones; got {shortest} to {longest}"
        )
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    rows = torch.tensor([[*p, *[end] * (longest - len(p))] for p in prompts], device=device)
    caches = model.new_caches(len(rows), longest + count)
    out = torch.full((len(rows), count), end, device=device)
    with evaluating(model):
        hidden = model.hidden(rows, caches)
        states = hidden[torch.arange(len(rows), device=device), lengths - 1]
        for t in range(count):
            logits = model.logits(states)
            token = logits.argmax(dim=-1) if chooser is None else chooser(logits)[:, 0]
            if t > 0:
                token = token.masked_fill(out[:, t - 1] == end, end)
            out[:, t] = token
            if t == count - 1 or bool((token == end).all()):
                break
            states = next_states(model, token, lengths + t, caches)
    return out


def next_states(model: GPT, tokens: Tensor, places: Tensor, caches: Sequence[KVCache]) -> Tensor:
    """The input of the head at one more token of each row: (B,), (B,) -> (B, C).

    Keys and values are written into the caches at `places`; what lies behind it is not seen.
    """
    batch, filled = len(tokens), int(places.max()) + 1
    row = torch.arange(batch, device=tokens.device)
    seen = torch.arange(filled, device=tokens.device) <= places[:, None]
    turn = model.turn[places][:, None]  # (B, 1, 1, d/2)
    x = model.embedding_norm(model.embedding(tokens))
    for block, cache in zip(model.layers, caches, strict=True):
        qkv = block.attention.qkv(block.norm1(x)).view(batch, 3, model.shape.heads, -1)
        qk = model.norm(rotate(qkv[:, :2], turn))  # (B, 2, H, d)
        cache.keys[row, :, places], cache.values[row, :, places] = qk[:, 1], qkv[:, 2]
        keys, values = cache.keys[:, :, :filled], cache.values[:, :, :filled]
        y = F.scaled_dot_product_attention(
            qk[:, 0, :, None], keys, values, attn_mask=seen[:, None, None]
        )
        x = x + block.attention.out(y.reshape(batch, -1))
        x = x + block.mlp(block.norm2(x))
    out: Tensor = model.norm(x)
    return out
