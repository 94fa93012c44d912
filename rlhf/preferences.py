"""Preference rows as tokens, and the log-probabilities of their answers.

    tokens   n a m e ? | g l a d l y  o w l <eos> . .      the prompt, the answer, padding
    mask     0 0 0 0 0   1 1 1 1 1 1  1 1 1  1    0 0      what the losses of this week count

Every method of this week is about the answer alone, given the prompt: no token of the prompt counts
and no padding. Padding stands on the right, so that a causal model never sees it from a token that
counts, and needs no attention mask. Prompt and answer are tokenized separately, as in week 8.

Letters: P pairs, N rows, T tokens in a row, C width, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from labkit import UsageError, exercise
from labkit.data import Preference
from labkit.learning.modes import evaluating
from labkit.show.console import say
from pretraining import GPT


class Pair(NamedTuple):
    """Tokens of a prompt and of two answers, the preferred one first. Answers end in the
    end-of-text token."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


class Rows(NamedTuple):
    """Prompts with their answers, padded on the right: int64 and bool, (..., T)."""

    tokens: Tensor
    mask: Tensor

    def trimmed(self) -> "Rows":
        """Without the columns in which every row is padding."""
        width = int(self.mask.flatten(0, -2).any(dim=0).nonzero().max()) + 1
        return Rows(self.tokens[..., :width], self.mask[..., :width])

    def lengths(self) -> Tensor:
        """Tokens of each answer, int64 (...)."""
        return self.mask.sum(dim=-1)


def tokens_of(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Each text as tokens, none of them special.

    Raises UsageError for a text that the tokenizer cannot write; its message does not show it.
    """
    found: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
    )["input_ids"]
    for number, tokens in enumerate(found):
        if not tokens or tokenizer.eos_token_id in tokens:
            raise UsageError(
                f"the base's tokenizer has no tokens for text {number} of the data; take a base "
                "that can write any text, such as base=gpt2 or base=lab://pretraining/tiny"
            )
    return found


def encode(
    rows: Sequence[Preference], tokenizer: Any, context: int, answer: int, long: str = "refuse"
) -> list[Pair]:
    """Rows as pairs of at most `context` tokens each, with answers of at most `answer` tokens.

    Args:
        long: refuse, or drop, rows that do not fit; what was dropped is said.
    Raises:
        UsageError for a row that does not fit, for two answers of equal tokens, and when no row is
        left. The message gives the row's number and not its text, which may be offensive.
    """
    prompts, chosen, rejected = (
        tokens_of([getattr(row, part) for row in rows], tokenizer)
        for part in ("prompt", "chosen", "rejected")
    )
    end = [tokenizer.eos_token_id]
    pairs = [Pair(p, [*c, *end], [*r, *end]) for p, c, r in zip(prompts, chosen, rejected)]  # noqa: B905
    kept = []
    for number, pair in enumerate(pairs):
        if pair.chosen == pair.rejected:
            raise UsageError(
                f"the two answers of row {number} are the same tokens: nothing can be preferred; "
                "leave the row out of the data"
            )
        longest = max(len(pair.chosen), len(pair.rejected))
        if longest <= answer and len(pair.prompt) + longest <= context:
            kept.append(pair)
        elif long == "refuse":
            what = f"its prompt has {len(pair.prompt)} tokens, its longer answer {longest}"
            full = "the prompt alone fills the context: " if len(pair.prompt) >= context else ""
            raise UsageError(
                f"row {number} does not fit into context={context} with answer_tokens={answer}: "
                f"{full}{what}. Raise them, or type long_rows=drop to leave such rows out"
            )
    if not kept:
        raise UsageError(f"none of the {len(rows)} rows fits into context={context}")
    if len(kept) < len(rows):
        say(f"{len(rows) - len(kept)} of {len(rows)} rows are too long and were left out")
    return kept


@exercise(minutes=15)
def answer_mask(prompt: Tensor, total: Tensor, width: int) -> Tensor:
    """Which tokens of each row belong to its answer: bool (N, width).

    A row is its prompt, its answer (with the end of text) and padding on the right, in this order.

    Args:
        prompt: tokens of each prompt, int64 (N,).
        total: tokens of prompt and answer together, int64 (N,).
        width: tokens of a row with padding.
    Returns:
        True exactly at the positions of the answer, on the device of `prompt`.
    """
    position = torch.arange(width, device=prompt.device)
    return (position >= prompt[:, None]) & (position < total[:, None])


def collate(
    prompts: Sequence[list[int]], answers: Sequence[list[int]], device: Any = "cpu"
) -> Rows:
    """Rows (N, T) of prompts with their answers, padded to the longest with token 0."""
    rows = [[*p, *a] for p, a in zip(prompts, answers, strict=True)]
    total = torch.tensor([len(row) for row in rows])
    width = int(total.max())
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = answer_mask(torch.tensor([len(p) for p in prompts]), total, width)
    return Rows(tokens.to(device), mask.to(device))


def table(pairs: Sequence[Pair], device: Any = "cpu") -> Rows:
    """All pairs in memory, (P, 2, T): the chosen answer at [:, 0], the rejected one at [:, 1]."""
    prompts = [pair.prompt for pair in pairs for _ in range(2)]
    rows = collate(prompts, [side for pair in pairs for side in pair[1:]], device)
    return Rows(*(part.unflatten(0, (-1, 2)) for part in rows))


def mismatched(pairs: Sequence[Pair], device: Any = "cpu") -> Rows:
    """Each prompt with an answer to the next pair's prompt, (P, T): by turns a chosen and a
    rejected one. KTO's reference point is estimated on them.
    """
    answers = [pairs[(i + 1) % len(pairs)][1 + i % 2] for i in range(len(pairs))]
    return collate([pair.prompt for pair in pairs], answers, device)


def token_logps(model: GPT, rows: Rows) -> Tensor:
    """Log-probability of each token of the answers, (N, T); 0 at prompt and padding.

    The token at t is predicted by the state at t - 1. Logits, the largest tensor of a step, are
    computed only where a token of an answer is predicted.
    """
    counted = rows.mask[:, 1:]
    states = model.hidden(rows.tokens[:, :-1])[counted]  # (n, C)
    target = rows.tokens[:, 1:][counted]
    logps = model.logits(states).float().log_softmax(dim=-1)  # (n, V)
    found = torch.zeros(rows.mask.shape, dtype=logps.dtype, device=logps.device)
    found[:, 1:][counted] = logps.gather(1, target[:, None]).squeeze(1)
    return found


def answer_logps(model: GPT, rows: Rows) -> Tensor:
    """Log-probability of each whole answer: (N, T) or (P, 2, T) -> (N,) or (P, 2)."""
    flat = Rows(*(part.reshape(-1, part.shape[-1]) for part in rows))
    return token_logps(model, flat).sum(dim=1).view(rows.mask.shape[:-1])


def in_batches(
    model: torch.nn.Module, measure: Callable[[Rows], Tensor], rows: Rows, size: int
) -> Tensor:
    """`measure` of all rows, `size` at a time, with `model` in evaluation mode, no gradients."""
    parts = zip(rows.tokens.split(size), rows.mask.split(size), strict=True)
    with evaluating(model):
        return torch.cat([measure(Rows(*part).trimmed()) for part in parts])
