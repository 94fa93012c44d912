"""Generating text with a language model, token by token.

    temperature    logits / τ: below 1 the likely becomes likelier, 0 always takes the likeliest
    top-k          only the k likeliest tokens                     Fan et al. 2018
    top-p          only the likeliest that together have p         Holtzman et al. 2020, section 3.1

Letters: B rows, T tokens of the prompt, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labkit import exercise
from labkit.learning.modes import evaluating
from pretraining.model import GPT


@exercise(minutes=10)
def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (..., V), with -inf for all but the k largest of each row; those equal to the k-th
    stay too. All stay when k is V or more. Logits that stay keep their gradient."""
    kth = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < kth, -torch.inf)


@exercise(minutes=20)
def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (..., V), with -inf outside of each row's nucleus.

    The nucleus is the smallest set of the likeliest tokens whose probabilities sum to p or more: in
    descending order, a token belongs to it exactly when those *before* it sum to less than p. So
    the token that crosses p stays, too. The likeliest stays for any p, also for p = 0. The order of
    the vocabulary is unchanged, and logits that stay keep their gradient.
    """
    ordered, index = logits.sort(dim=-1, descending=True)
    shares = ordered.softmax(dim=-1)
    outside = shares.cumsum(dim=-1) - shares >= p
    outside[..., 0] = False
    ordered = ordered.masked_fill(outside, -torch.inf)
    return torch.empty_like(logits).scatter_(-1, index, ordered)


def choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:  # fmt: skip
    """One token for each row: (B, V) -> int64 (B, 1)."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits.float() / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)


def generate(
    model: GPT,
    prompt: Tensor,
    count: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    end: int | None = None,
    use_cache: bool = True,
    chooser: Callable[[Tensor], Tensor] | None = None,
    copies: int = 1,
) -> Tensor:
    """`count` new tokens for each row of the prompt: int64 (B, T) -> (B, count).

    With the cache a token costs one position; without it, the whole sequence again.

    Args:
        temperature: 0 is greedy.
        top_k, top_p: see above; None turns them off. If both are given, k comes first.
        generator: of the random draws; the global one when None.
        end: stop when every row has this token; a row that has it is filled with it.
        chooser: takes logits (B, V) to tokens int64 (B, 1), instead of the four settings above.
            It sees every step, so it can also note the log-probabilities of what it draws.
        copies: continuations of each prompt, one after the other: (B, T) -> (B copies, count). With
            the cache each prompt is read only once.
    Raises:
        ValueError when the prompt is empty, or with `count` longer than the context.
    """
    length = prompt.shape[1]
    if not 1 <= length <= model.shape.context - count:
        raise ValueError(
            f"a prompt of {length} tokens and {count} new ones: the prompt must not be empty, and "
            f"together they must fit into the context of {model.shape.context}"
        )
    caches = model.new_caches(len(prompt), length + count) if use_cache else None
    feed = prompt
    prompt = prompt.repeat_interleave(copies, dim=0)
    row = torch.cat([prompt, prompt.new_full((len(prompt), count), end or 0)], dim=1)
    with evaluating(model):
        for t in range(length, length + count):
            logits = model.logits(model.hidden(feed, caches)[:, -1])
            if t == length and copies > 1:
                logits = logits.repeat_interleave(copies, dim=0)
                for cache in caches or []:
                    cache.repeat(copies)
            if chooser is not None:
                token = chooser(logits)
            else:
                token = choose(logits, temperature, top_k, top_p, generator)
            if end is not None and t > length:
                token = token.masked_fill(row[:, t - 1 : t] == end, end)
            row[:, t : t + 1] = token
            if end is not None and bool((token == end).all()):
                break
            feed = token if use_cache else row[:, : t + 1]
    return row[:, length:]
