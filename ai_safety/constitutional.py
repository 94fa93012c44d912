"""Constitutional AI in both stages (Bai et al. 2022): revise one's own answers, then judge pairs.

    stage 1   answer, criticise it by a principle, revise it; learn from the revisions   section 3
    stage 2   two answers to a request; the model says which a principle prefers, and    section 4
              a preference method learns from that

Letters: N rows, S segments, T tokens, K principles, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ai_safety import lessons
from ai_safety.constitution import Principle
from ai_safety.lessons import Lesson
from ai_safety.words import END, Vocabulary
from labkit import UsageError, exercise
from labkit.learning.modes import evaluating
from pretraining import GPT
from rlhf import Rows, respond, texts_of

ANSWER_TOKENS = 18
"""Room for an answer, a critique or a revision, END included."""


@exercise(minutes=20)
def loss_mask(lengths: Tensor, width: int) -> Tensor:
    """Which tokens of each lesson are learned: bool (N, width).

    A row is S segments one after the other, then padding. The 1st, 3rd, 5th ... segment is given
    (a request, an order to revise), the 2nd, 4th, 6th ... is learned (an answer, a critique, a
    revision). A segment may be empty.

    Args:
        lengths: tokens of each segment, int64 (N, S); S is any number. It is not changed.
        width: tokens of a row with padding, at least the longest row.
    Returns:
        True exactly at tokens that are learned, on the device of `lengths`.
    """
    ends = lengths.cumsum(dim=1)  # (N, S)
    position = torch.arange(width, device=lengths.device)
    passed = (position >= ends[..., None]).sum(dim=1)  # segments that end before: (N, width)
    return (passed % 2 == 1) & (passed < lengths.shape[1])


def table(rows: Sequence[Lesson], vocabulary: Vocabulary, context: int) -> Rows:
    """Lessons as tokens with what is learned, (N, T), padded on the right.

    Raises UsageError for one that does not fit into `context`.
    """
    encoded = [[vocabulary.encode(text) for text in lesson] for lesson in rows]
    lengths = torch.tensor([[len(part) for part in parts] for parts in encoded])
    width = int(lengths.sum(dim=1).max())
    if width > context:
        raise UsageError(f"a lesson has {width} tokens, more than context={context}")
    flat = [[token for part in parts for token in part] for parts in encoded]
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in flat])
    return Rows(tokens, loss_mask(lengths, width))


def write(
    model: GPT,
    vocabulary: Vocabulary,
    prompts: Sequence[str],
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
) -> list[str]:
    """What a model writes after each prompt, up to END.

    Raises UsageError for a prompt that leaves no room in the model's context.
    """
    tokens = [vocabulary.encode(prompt) for prompt in prompts]
    longest = max(map(len, tokens))
    if longest >= model.shape.context:
        raise UsageError(
            f"a request of {longest} tokens leaves no room for an answer: the model reads "
            f"{model.shape.context}; ask with fewer words"
        )
    drawn = respond(model, tokens, ANSWER_TOKENS, 0, generator, temperature)
    return [text for text, _ in texts_of(drawn, vocabulary, 0)]


class Revised(NamedTuple):
    """The answer of a model before and after each principle, with its critiques."""

    answers: list[str]
    critiques: list[str]


def critique_and_revise(
    model: GPT,
    vocabulary: Vocabulary,
    requests: Sequence[str],
    answers: Sequence[str],
    principle: Principle,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
) -> Revised:
    """One round: the model criticises each answer by a principle and writes it anew."""
    asked = [
        lessons.critique_prompt(request, answer, principle)
        for request, answer in zip(requests, answers, strict=True)
    ]
    critiques = write(model, vocabulary, asked, generator, temperature)
    more = f" {END} {lessons.revision_prompt(principle)}"
    revising = [f"{one} {two}{more}" for one, two in zip(asked, critiques, strict=True)]
    return Revised(write(model, vocabulary, revising, generator, temperature), critiques)


@exercise(minutes=20)
def pair_preference(one_first: Tensor, one_second: Tensor) -> Tensor:
    """Probability that answer one is better than answer two, by the model's own judgement: (P,).

    A model asked to choose between (a) and (b) also has a taste for a place. So each pair is shown
    in both orders. In each order and by each principle the log-odds that answer one is better are
    the log-probability of its letter minus that of the other letter; what is returned is the
    sigmoid of the mean of the log-odds over both orders and all K principles. A model that always
    chooses the same letter has 0.5, and exchanging the two answers gives 1 - p.

    Args:
        one_first: log-probabilities of the letters "a" and "b" where answer one stands at (a),
            (K, P, 2).
        one_second: the same where answer one stands at (b), (K, P, 2).
    """
    first = one_first[..., 0] - one_first[..., 1]
    second = one_second[..., 1] - one_second[..., 0]
    return torch.sigmoid((first + second).mean(dim=0) / 2)


def letters(model: GPT, vocabulary: Vocabulary, prompts: Sequence[str]) -> Tensor:
    """Log-probabilities of "a" and "b" as the next word after each prompt, (N, 2)."""
    found = torch.empty(len(prompts), 2)
    tokens = [vocabulary.encode(prompt) for prompt in prompts]
    wanted = [vocabulary.number["a"], vocabulary.number["b"]]
    device = model.embedding.weight.device
    with evaluating(model):
        for length in sorted({len(row) for row in tokens}):
            index = [i for i, row in enumerate(tokens) if len(row) == length]
            batch = torch.tensor([tokens[i] for i in index], device=device)
            logits = model.logits(model.hidden(batch)[:, -1]).float()
            found[index] = logits.log_softmax(dim=-1)[:, wanted].cpu()
    return found


def reasoned(model: GPT, vocabulary: Vocabulary, prompts: Sequence[str]) -> list[str]:
    """Each prompt with the reason that the model writes before it chooses a letter.

    A chain of thought, as in section 4.1: the letter alone is harder to learn. What the model wrote
    behind its last "so" is left out.
    """
    reasons = write(model, vocabulary, prompts, None, 0.0)
    return [f"{p} {r.rpartition('so')[0]}so" for p, r in zip(prompts, reasons, strict=True)]


def own_judgement(
    model: GPT,
    vocabulary: Vocabulary,
    requests: Sequence[str],
    ones: Sequence[str],
    twos: Sequence[str],
    principles: Sequence[Principle],
) -> Tensor:
    """Probability (P,) that each first answer is better, by `model` and all principles."""
    orders = []
    for left, right in ((ones, twos), (twos, ones)):
        by_principle = []
        for principle in principles:
            prompts = [
                lessons.comparison_prompt(request, first, second, principle)
                for request, first, second in zip(requests, left, right, strict=True)
            ]
            by_principle.append(letters(model, vocabulary, reasoned(model, vocabulary, prompts)))
        orders.append(torch.stack(by_principle))  # (K, P, 2)
    return pair_preference(*orders)
