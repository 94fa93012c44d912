"""Who says what is right: people with their labels, or a written constitution and the model itself.

Both teach in two stages. They give lessons to imitate, and probabilities that one of two answers is
the better one. What follows is the same for both: supervised training, then week 16's DPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ai_safety import constitutional, lessons
from ai_safety.constitution import Principle
from ai_safety.dialogues import Request, ask, help_for, refusal_of, violates
from ai_safety.jailbreaks import attack
from ai_safety.lessons import Lesson
from ai_safety.words import END, Vocabulary
from labkit import RunFailed, UsageError
from labkit.text import closest
from pretraining import GPT
from rlhf import Rows, collate

TUNABLE = ("role_play", "suppression", "prefix", "reversed")
"""Attacks that safety data can have: those that are one request."""


class Sent(NamedTuple):
    """A request of the safety data and its text, which may have the form of an attack."""

    request: Request
    text: str


class Teacher(Protocol):
    """What both have. `shown` are the first requests, each with all that was written about it."""

    shown: list[list[str]]

    def answers(self, sent: Sequence[Sent]) -> list[str]:
        """Answers to imitate."""

    def prefers(self, sent: Sequence[Sent], ones: Sequence[str], twos: Sequence[str]) -> Tensor:
        """Probability (P,) that the first answer is better."""


class People:
    """Labels by people: right answers, and which answer is better, some labels wrong."""

    def __init__(self, noise: float, seed: int) -> None:
        self.noise, self.rng = noise, Random(seed)
        self.shown: list[list[str]] = []

    def answers(self, sent: Sequence[Sent]) -> list[str]:
        """A refusal of what is harmful, and help with the rest."""
        found = []
        for each in sent:
            refuse = (each.request.harms is not None) != (self.rng.random() < self.noise)
            found.append((refusal_of if refuse else help_for)(each.request, self.rng))
        return found

    def prefers(self, sent: Sequence[Sent], ones: Sequence[str], twos: Sequence[str]) -> Tensor:
        """1 or 0 where one answer breaks a principle and the other does not, else 0.5."""
        found = []
        for (request, _), one, two in zip(sent, ones, twos, strict=True):
            faults = [
                sum(violates(request, answer, about) for about in lessons.PRINCIPLES)
                for answer in (one, two)
            ]
            better = 0.5 + 0.5 * (faults[0] < faults[1]) - 0.5 * (faults[0] > faults[1])
            found.append(1 - better if self.rng.random() < self.noise else better)
        return torch.tensor(found)


class Constitution:
    """The model itself, by written principles: no label is used."""

    def __init__(
        self, model: GPT, vocabulary: Vocabulary, principles: Sequence[Principle], seed: int
    ) -> None:
        """`model` is the one after the supervised start; its answers are drawn with `seed`."""
        self.model, self.vocabulary, self.principles = model, vocabulary, principles
        self.generator = torch.Generator(model.embedding.weight.device).manual_seed(seed)
        self.shown: list[list[str]] = []
        """Of the first requests: the request, the answer, and each critique with its revision."""

    def answers(self, sent: Sequence[Sent]) -> list[str]:
        """The model's own answers, criticised and revised by one principle after the other.

        Answers are drawn; critiques and revisions are the likeliest ones.
        """
        texts = [each.text for each in sent]
        prompts = [lessons.prompt_of(text) for text in texts]
        found = constitutional.write(self.model, self.vocabulary, prompts, self.generator)
        self.shown = [list(pair) for pair in zip(texts[:20], found[:20], strict=True)]
        for principle in self.principles:
            revised = constitutional.critique_and_revise(
                self.model, self.vocabulary, texts, found, principle, None, 0.0
            )
            found = revised.answers
            for row, critique, answer in zip(
                self.shown, revised.critiques[:20], found[:20], strict=True
            ):
                row += [critique, answer]
        return found

    def prefers(self, sent: Sequence[Sent], ones: Sequence[str], twos: Sequence[str]) -> Tensor:
        """The model's own judgement by all principles, in both orders."""
        return constitutional.own_judgement(
            self.model, self.vocabulary, [each.text for each in sent], ones, twos, self.principles
        )


def check_attacks(names: Sequence[str]) -> None:
    """Raises UsageError for a name that safety data cannot have."""
    for name in names:
        if name not in TUNABLE:
            raise UsageError(
                f"attacks=[{name}] cannot be in the safety data{closest(name, TUNABLE)} "
                f"Possible are {', '.join(TUNABLE)}"
            )


def safety_requests(
    count: int, harmless_share: float, attacks: Sequence[str], seed: int
) -> list[Sent]:
    """Requests of the pools `shown` and `new`; half of them in the form of an attack, if there are
    `attacks`."""
    rng = Random(seed)
    found = []
    for _ in range(count):
        request = ask(rng, lessons.TRAINING, harmful=rng.random() >= harmless_share)
        text = request.text
        if attacks and rng.random() < 0.5:
            text = attack(rng.choice(attacks), request, rng).text
        found.append(Sent(request, text))
    return found


def to_imitate(teacher: Teacher, sent: Sequence[Sent]) -> list[Lesson]:
    """The first stage: dialogues with the teacher's answers."""
    pairs = zip(sent, teacher.answers(sent), strict=True)
    return [lessons.dialogue(each.text, answer) for each, answer in pairs]


class Preferred(NamedTuple):
    """The second stage: pairs of answers as tokens, the better one first, (P, 2, T)."""

    rows: Rows
    agreement: float
    """Of the pairs with one worse answer, the share in which the better one is first."""


def to_prefer(
    teacher: Teacher,
    sent: Sequence[Sent],
    model: GPT,
    vocabulary: Vocabulary,
    sure: float,
    seed: int,
) -> Preferred:
    """Pairs of answers that the teacher compared: one by `model`, one of any sort.

    Args:
        sure: pairs whose better answer has a smaller probability are left out.
    Raises:
        RunFailed when no pair is left.
    """
    generator = torch.Generator(model.embedding.weight.device).manual_seed(seed)
    prompts = [lessons.prompt_of(each.text) for each in sent]
    ones = constitutional.write(model, vocabulary, prompts, generator)
    rng = Random(seed)
    twos = [lessons.any_answer(each.request, rng) for each in sent]
    better = teacher.prefers(sent, ones, twos)
    pairs, right = [], []
    people = People(0.0, seed).prefers(sent, ones, twos)
    for number, p in enumerate(better.tolist()):
        if ones[number] == twos[number] or max(p, 1 - p) < sure:
            continue
        both = (ones[number], twos[number]) if p > 0.5 else (twos[number], ones[number])
        if people[number] != 0.5:
            right.append((people[number] > 0.5) == (p > 0.5))
        tokens = [vocabulary.encode(f"{answer} {END}") for answer in both]
        pairs.append((vocabulary.encode(prompts[number]), tokens))
    if not pairs:
        raise RunFailed(
            f"the judge is sure of none of {len(sent)} pairs; type a smaller sure= or train the "
            "start for more steps"
        )
    flat = collate(
        [prompt for prompt, _ in pairs for _ in range(2)],
        [answer for _, both in pairs for answer in both],
    )
    rows = Rows(*(part.unflatten(0, (-1, 2)) for part in flat))
    return Preferred(rows, sum(right) / max(1, len(right)))
