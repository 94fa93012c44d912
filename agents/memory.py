"""What of a long trace a model is shown: its context is short, a task may be long.

    whole         everything
    window        the question and the last steps: forgets what it found at first
    scratchpad    the question, a list of all observations, and the last step: thoughts are dropped
    summary       the question, one line of the key facts found so far, and the last step
    retrieval     the question, the steps that share most words with it, and the last step

Each is a function from a Trace to text of at most `budget` characters (`whole` excepted), for
`react.solve(memory=...)`. What is cut is the oldest or the least relevant part.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from agents.react import Trace, Turn
from agents.tokens import QUESTION

Memory = Callable[[Trace], str]
NOTES = "\nNotes: "


def whole(trace: Trace) -> str:
    """All of it."""
    return trace.transcript


def window(trace: Trace, budget: int) -> str:
    """The question, and as many of the last steps as fit."""
    head, kept = f"{QUESTION}{trace.question}", ""
    for turn in reversed(trace.turns):
        if len(head) + len(str(turn)) + len(kept) > budget:
            break
        kept = f"{turn}{kept}"
    return head + kept


def scratchpad(trace: Trace, budget: int) -> str:
    """The question, the observations so far, and the last step; the oldest notes are cut."""
    return with_notes(trace, budget, [turn.observation or "" for turn in trace.turns[:-1]])


def summary(trace: Trace, budget: int) -> str:
    """As a scratchpad, of the sentences that hold a number or a name, each once."""
    facts: list[str] = []
    for turn in trace.turns[:-1]:
        for sentence in re.split(r"(?<=\.)\s+", turn.observation or ""):
            told = re.search(r"\d", sentence) and re.search(r"[A-Z]", sentence)
            fact = f"{turn.argument}: {re.sub(r'[^0-9]+', ' ', sentence).strip()}" if told else ""
            if fact and fact not in facts:
                facts.append(fact)
    return with_notes(trace, budget, facts)


def retrieval(trace: Trace, budget: int) -> str:
    """The question, the steps most like it, in their order, and the last step."""
    head = f"{QUESTION}{trace.question}"
    asked = set(re.findall(r"\w+", trace.question.lower()))

    def shared(turn: Turn) -> int:
        return len(asked & set(re.findall(r"\w+", str(turn).lower())))

    last = trace.turns[-1:]
    room = budget - len(head) - sum(len(str(turn)) for turn in last)
    chosen: list[int] = []
    for i in sorted(range(len(trace.turns) - 1), key=lambda i: (-shared(trace.turns[i]), -i)):
        if len(str(trace.turns[i])) <= room:
            room -= len(str(trace.turns[i]))
            chosen.append(i)
    kept = [str(trace.turns[i]) for i in sorted(chosen)] + [str(turn) for turn in last]
    return head + "".join(kept)


def with_notes(trace: Trace, budget: int, notes: list[str]) -> str:
    """The question, a line of notes from which the oldest are cut, and the last step."""
    head = f"{QUESTION}{trace.question}"
    last = "".join(str(turn) for turn in trace.turns[-1:])
    room = budget - len(head) - len(last) - len(NOTES)
    kept: list[str] = []
    for note in reversed(notes):
        if len(note) + 1 > room:
            break
        room -= len(note) + 1
        kept.insert(0, note)
    return head + (f"{NOTES}{' '.join(kept)}" if kept else "") + last


def memories(budget: int) -> dict[str, Memory]:
    """All of them, by name."""
    limited = {"window": window, "scratchpad": scratchpad, "summary": summary}
    found: dict[str, Memory] = {"whole": whole}
    found |= {name: partial(each, budget=budget) for name, each in limited.items()}
    return found | {"retrieval": partial(retrieval, budget=budget)}
