"""What the models learn from, as texts: requests with answers, critiques, comparisons.

    dialogue     REQUEST assistant : ANSWER end
    critique     REQUEST assistant : ANSWER end critique : QUESTION it REASON , so yes . end
                 revision : ORDER BETTER ANSWER end
    comparison   REQUEST ( a ) ANSWER ( b ) ANSWER QUESTION choose : it REASON , so a end

The supervised start stands for the pretraining and the helpful-only model of Bai et al. 2022: it
answers everything, harmful or not, and it can write critiques, revisions and comparisons when asked
to. Those about harm are of the objects of the pool `shown` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from ai_safety import dialogues, jailbreaks
from ai_safety.constitution import Principle
from ai_safety.dialogues import EVASIONS, Pool, Request, ask, help_for, refusal_of, violates
from ai_safety.words import ASSISTANT, END, UNKNOWN, Vocabulary, spoken

PRINCIPLES: dict[str, tuple[Principle, ...]] = {
    "living": (
        Principle("does the answer help to hurt what lives ?",
                  "write an answer that hurts nothing that lives ."),
        Principle("is what lives hurt by the answer ?",
                  "write it so that nothing that lives is hurt ."),
    ),
    "property": (
        Principle("does the answer help to damage what people own ?",
                  "write an answer that damages nothing that people own ."),
        Principle("is what people own damaged by the answer ?",
                  "write it so that nothing that people own is damaged ."),
    ),
    "helpful": (
        Principle("does the answer refuse what harms nobody ?", "write an answer that helps ."),
        Principle("does it not help with what harms nobody ?", "write it so that it helps ."),
    ),
}  # fmt: skip
"""Each principle in two wordings, by what it is about."""
REASONS = {"living": "hurts what lives", "property": "damages what people own"}
HARMLESS = "harms nobody"
NATURE = {
    "living": "it lives and can be hurt .", "property": "it is what people own .",
    "innocent": "it is what nobody can hurt .",
}  # fmt: skip
DEFINED = ("what is a {} ?", "tell me what a {} is .", "i want to know what a {} is .")
HARMED = ("what does harm to a {} do ?", "tell me what harm to a {} does .", "i harm a {} .")
"""Questions about an object: what it is, and what any harm to it does."""
CRITIQUE, REVISION, CHOOSE = "critique :", "revision :", "choose :"
TRAINING: tuple[Pool, ...] = ("shown", "new")


class Lesson(NamedTuple):
    """Texts in turn: given, learned, given, learned. The last two may be empty."""

    prompt: str
    answer: str
    second: str = ""
    rest: str = ""


def prompt_of(text: str) -> str:
    """What the model reads before its answer."""
    return f"{text} {ASSISTANT}"


def dialogue(text: str, answer: str, before: Sequence[tuple[str, str]] = ()) -> Lesson:
    """A request and its answer, perhaps after others."""
    earlier = "".join(f"{prompt_of(asked)} {given} {END} " for asked, given in before)
    return Lesson(earlier + prompt_of(text), f"{answer} {END}")


def definition(rng: Random) -> Lesson:
    """What an object is, or what harm to it does: the only lessons with held-out objects. They have
    no verb of the requests, and nobody asks for anything."""
    kind = rng.choice(list(dialogues.OBJECTS))
    name = rng.choice(dialogues.OBJECTS[kind])
    if rng.random() < 0.5:
        return dialogue(rng.choice(DEFINED).format(name), NATURE[kind])
    return dialogue(rng.choice(HARMED).format(name), f"it {REASONS.get(kind, HARMLESS)} .")


def any_answer(request: Request, rng: Random) -> str:
    """An answer of any sort: half help, a third refuses, the rest evades."""
    draw = rng.random()
    if draw < 0.5:
        return help_for(request, rng)
    return refusal_of(request, rng) if draw < 0.85 else rng.choice(EVASIONS)


def critique_prompt(text: str, answer: str, principle: Principle) -> str:
    """What the model reads before it criticises an answer."""
    return f"{prompt_of(text)} {answer} {END} {CRITIQUE} {principle.question}"


def revision_prompt(principle: Principle) -> str:
    """What the model reads between its critique and the revision."""
    return f"{REVISION} {principle.revision}"


def reason(request: Request) -> str:
    """What the deed does."""
    return f"it {HARMLESS if request.harms is None else REASONS[request.harms]} , so"


def verdict(request: Request, broken: bool) -> str:
    """A critique: what the deed does, and whether the principle is broken."""
    return f"{reason(request)} {'yes' if broken else 'no'} ."


def critique(rng: Random) -> Lesson:
    """A critique and a revision of an answer; an answer that is fine is written once more."""
    request = ask(rng, ("shown",))
    about = rng.choice(list(PRINCIPLES))
    principle = rng.choice(PRINCIPLES[about])
    answer = any_answer(request, rng)
    broken = violates(request, answer, about)
    better = answer
    if broken:
        better = help_for(request, rng) if about == "helpful" else refusal_of(request, rng)
    return Lesson(
        critique_prompt(request.text, answer, principle),
        f"{verdict(request, broken)} {END}",
        revision_prompt(principle),
        f"{better} {END}",
    )


def comparison_prompt(text: str, first: str, second: str, principle: Principle) -> str:
    """What the model reads before it chooses between two answers."""
    return f"{text} ( a ) {first} ( b ) {second} {principle.question} {CHOOSE}"


def comparison(rng: Random) -> Lesson:
    """Which of two answers breaks a principle less: a, b, or by lot when neither is worse.

    Most pairs that chance draws say nothing, so up to five are drawn until one answer is worse.
    """
    for _ in range(5):
        request, about = ask(rng, ("shown",)), rng.choice(list(PRINCIPLES))
        answers = any_answer(request, rng), any_answer(request, rng)
        broken = [violates(request, answer, about) for answer in answers]
        if broken[0] != broken[1]:
            break
    choice = rng.choice("ab") if broken[0] == broken[1] else "ba"[broken[1]]
    principle = rng.choice(PRINCIPLES[about])
    prompt = comparison_prompt(request.text, *answers, principle)
    return Lesson(prompt, f"{reason(request)} {choice} {END}")


def helpful(rng: Random, attacked: bool) -> Lesson:
    """A request with help, whether it does harm or not; perhaps in the form of an attack."""
    request = ask(rng, TRAINING)
    if not attacked:
        return dialogue(blurred(request.text, rng), help_for(request, rng))
    kind = rng.choice(jailbreaks.KINDS)
    sent = jailbreaks.attack(kind, request, rng)
    return dialogue(sent.text, jailbreaks.compliant(kind, sent, request, rng), sent.before)


def blurred(text: str, rng: Random) -> str:
    """The text, or in one case of twenty with an unknown word before its last words: people use
    words that a small vocabulary lacks."""
    if rng.random() >= 0.05:
        return text
    words = text.split()
    return " ".join([*words[:-1], UNKNOWN, words[-1]])


def start_lessons(
    count: int, seed: int, definitions: float = 0.4, critical: float = 0.38
) -> list[Lesson]:
    """Lessons of the supervised start.

    Args:
        definitions: share of definitions.
        critical: share of critiques and comparisons, half each. The rest are requests that are
            helped with, two fifths of them in the form of an attack.
    """
    rng = Random(hashlib.sha256(f"start {seed}".encode()).digest())
    found = []
    for _ in range(count):
        draw = rng.random()
        if draw < definitions:
            found.append(definition(rng))
        elif draw < definitions + critical / 2:
            found.append(critique(rng))
        elif draw < definitions + critical:
            found.append(comparison(rng))
        else:
            found.append(helpful(rng, attacked=rng.random() < 0.4))
    return found


def digest(first: Sequence[Lesson], test: Sequence[Request]) -> str:
    """SHA-256 of the lessons of the start and the test requests."""
    total = hashlib.sha256()
    for text in (*(part for lesson in first for part in lesson), *(each.text for each in test)):
        total.update(f"{text}\n".encode())
    return total.hexdigest()


def vocabulary() -> Vocabulary:
    """All words of lessons and lists."""
    principles = [
        text for both in PRINCIPLES.values() for one in both for text in vars(one).values()
    ]
    own = f"{CRITIQUE} {REVISION} {CHOOSE} ( ) a b is it harms nobody , so yes no . what ? tell me"
    return Vocabulary(
        [
            *spoken(),
            *principles,
            *REASONS.values(),
            *NATURE.values(),
            *DEFINED,
            *HARMED,
            HARMLESS,
            own,
        ]
    )
