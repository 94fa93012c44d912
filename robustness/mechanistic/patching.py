"""Activation patching: which activation carries the answer?

A *clean* input has the right answer, a *corrupt* one differs in one place and does not. The model
reads the corrupt input, while one activation at one position is replaced by that of the clean run.
If the answer comes back, that activation carried what was missing (Meng et al. 2022, "causal
tracing"; Zhang and Nanda 2024, "Towards Best Practices of Activation Patching").

Letters: B batch, H heads, T tokens, C width, V vocabulary, P period of a repeated pattern.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from labkit import exercise
from robustness.mechanistic.hooks import Hook, run_with_cache, run_with_hooks
from robustness.mechanistic.model import AttentionOnly


@exercise(minutes=15)
def patch(corrupt: Tensor, clean: Tensor, positions: Tensor, head: int | None = None) -> Tensor:
    """The corrupt run's activation with some of the clean run's put into it.

    Args:
        corrupt, clean: (B, T, C), or (B, H, T, d) of heads; the positions are the dimension before
            the last in both.
        positions: int64 (n,), those that are replaced; none leaves all as it is.
        head: only this head is replaced, in (B, H, T, d); all of them when None.
    Returns:
        a new tensor of the same shape; the arguments stay as they are.
    Raises:
        ValueError when the two shapes differ, or a head is asked for in (B, T, C).
    """
    if corrupt.shape != clean.shape:
        raise ValueError(f"shapes differ: corrupt {corrupt.shape} and clean {clean.shape}")
    if head is not None and corrupt.dim() != 4:
        raise ValueError(f"a head needs (B, H, T, d), got {tuple(corrupt.shape)}")
    patched = corrupt.clone()
    if head is None:
        patched[..., positions, :] = clean[..., positions, :]
    else:
        patched[:, head, positions] = clean[:, head, positions]
    return patched


@exercise(minutes=15)
def restored(patched: Tensor, clean: Tensor, corrupt: Tensor, answer: Tensor) -> Tensor:
    """How much of the answer a patch brings back: 0 like the corrupt run, 1 like the clean one.

    With p the probability of the right answer by softmax over V, averaged over the batch:

        (p_patched - p_corrupt) / (p_clean - p_corrupt)

    It may be below 0 or above 1.

    Args:
        patched, clean, corrupt: logits (B, V) at the place of the answer.
        answer: int64 (B,), the right tokens of the clean input.
    Returns:
        a scalar.
    Raises:
        ValueError when the clean and the corrupt run give the answer the same probability.
    """
    p, best, worst = (
        logits.softmax(-1).gather(1, answer[:, None]).mean() for logits in (patched, clean, corrupt)
    )
    if best == worst:
        raise ValueError("the corrupt run answers as the clean one: there is nothing to restore")
    return (p - worst) / (best - worst)


class Question(NamedTuple):
    """Rows that end with a token seen before, whose successor is asked for."""

    clean: Tensor
    """Tokens (B, T)."""
    corrupt: Tensor
    """The same, but the earlier place of the last token holds another one, new to the row."""
    answer: Tensor
    """(B,), what followed at the earlier place."""
    source: int
    """Position of the answer in the row: one behind the place that differs."""


def question(tokens: Tensor, period: int, vocabulary: int) -> Question:
    """Cut rows that repeat with `period`, P, in the middle of their second copy.

    Args:
        tokens: (B, at least 2 P), each row the same pattern twice.
    Raises:
        ValueError when the rows are shorter, or when every token is in the pattern.
    """
    if tokens.shape[1] < 2 * period or period < 2:
        raise ValueError(
            f"rows of {tokens.shape[1]} tokens do not hold a pattern of {period} twice"
        )
    if period >= vocabulary:
        raise ValueError(f"no token is left to put in: the pattern has all {vocabulary}")
    asked = period + period // 2
    source = asked + 1 - period
    clean, corrupt = tokens[:, : asked + 1], tokens[:, : asked + 1].clone()
    free = torch.ones(len(tokens), vocabulary, dtype=torch.bool, device=tokens.device)
    free.scatter_(1, tokens[:, :period], False)
    corrupt[:, source - 1] = free.int().argmax(1)  # the first token that the pattern lacks
    return Question(clean, corrupt, tokens[:, source], source)


def patched_logits(
    model: nn.Module,
    asked: Question,
    cache: Mapping[str, Tensor],
    name: str,
    positions: Tensor,
    head: int | None = None,
) -> Tensor:
    """Logits (B, V) after the last token of the corrupt rows, one activation patched.

    Args:
        cache: activations of the clean rows.
    """
    hooks: dict[str, Hook] = {name: lambda x: patch(x, cache[name], positions, head)}
    return run_with_hooks(model, asked.corrupt, hooks)[:, -1]


def restoration_map(model: AttentionOnly, asked: Question) -> Tensor:
    """`restored` for each head and position, one at a time: (layers, H, T).

    Raises ValueError as `restored` does.
    """
    names = [f"blocks.{layer}.mixed" for layer in range(len(model.blocks))]
    clean, cache = run_with_cache(model, asked.clean, names)
    corrupt = run_with_hooks(model, asked.corrupt, {})[:, -1]
    length, heads = asked.clean.shape[1], model.layers[0].count
    found = torch.zeros(len(names), heads, length)
    for layer, name in enumerate(names):
        for head in range(heads):
            for position in range(length):
                place = torch.tensor([position], device=corrupt.device)
                logits = patched_logits(model, asked, cache, name, place, head)
                found[layer, head, position] = restored(logits, clean[:, -1], corrupt, asked.answer)
    return found
