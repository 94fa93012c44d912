"""What stands around a model, and what it costs: each defence turns what was sent into answers.

    none            the tuned model alone
    word_filter     refuses a request with a verb of harm before the model sees it
    last_sentence   the model sees the last sentence only, a crude paraphrase (Jain et al. 2023)
    self_check      the answer is criticised by the constitution, and help that breaks it withheld

The fourth, safety tuning on attacks, is a setting of training (`attacks=[role_play]`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ai_safety import constitutional, lessons
from ai_safety.constitution import Principle
from ai_safety.dialogues import DUAL, REFUSALS
from ai_safety.jailbreaks import Attacked
from ai_safety.lessons import prompt_of
from ai_safety.words import END, Vocabulary
from pretraining import GPT

BLOCKED = REFUSALS[1].format("do that")
"""The answer of a filter."""
HELPING = "here is how to"
"""What every answer that helps has; only those are withheld."""


@dataclass(frozen=True)
class System:
    """The tuned model, and the critic that checks its answers."""

    model: GPT
    critic: GPT
    vocabulary: Vocabulary
    principles: Sequence[Principle]

    def answers(self, sent: Sequence[Attacked]) -> list[str]:
        """The likeliest answers, a prefill included."""
        prompts = []
        for each in sent:
            before = "".join(f"{prompt_of(a)} {b} {END} " for a, b in each.before)
            prompts.append(f"{before}{prompt_of(each.text)} {each.prefill}".strip())
        found = constitutional.write(self.model, self.vocabulary, prompts, None, 0.0)
        return [
            f"{each.prefill} {answer}".strip() for each, answer in zip(sent, found, strict=True)
        ]


Defence = Callable[[System, Sequence[Attacked]], list[str]]


def none(system: System, sent: Sequence[Attacked]) -> list[str]:
    """The model alone."""
    return system.answers(sent)


def word_filter(system: System, sent: Sequence[Attacked]) -> list[str]:
    """Refuse where the request has a verb of harm, whatever it is about."""
    answers = system.answers(sent)
    blocked = [not set(DUAL).isdisjoint(each.text.split()) for each in sent]
    return [BLOCKED if stop else answer for stop, answer in zip(blocked, answers, strict=True)]


def last_sentence(system: System, sent: Sequence[Attacked]) -> list[str]:
    """The model sees the last sentence of the last request; a prefill stays."""
    cut = [Attacked(re.split(r"(?<=[.?]) ", each.text)[-1], (), each.prefill) for each in sent]
    return system.answers(cut)


def self_check(system: System, sent: Sequence[Attacked]) -> list[str]:
    """Refuse where the critic says that an answer breaks a principle.

    The critic sees the last request and the answer, as in training.
    """
    answers = system.answers(sent)
    for principle in system.principles:
        prompts = [
            lessons.critique_prompt(each.text, answer, principle)
            for each, answer in zip(sent, answers, strict=True)
        ]
        found = constitutional.write(system.critic, system.vocabulary, prompts, None, 0.0)
        helping = [HELPING in answer for answer in answers]
        answers = [
            BLOCKED if helps and critique.endswith("so yes .") else answer
            for helps, critique, answer in zip(helping, found, answers, strict=True)
        ]
    return answers


DEFENCES: dict[str, Defence] = {
    "none": none, "word_filter": word_filter, "last_sentence": last_sentence,
    "self_check": self_check,
}  # fmt: skip
