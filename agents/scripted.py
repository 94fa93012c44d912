"""An agent of fixed rules that sees only what it is shown: it measures the memory, not a model.

For a question about several towns it looks for the first town whose population is not in the text
before it, and searches for it; when all are there it adds them. So it repeats a search whose result
was cut from its context, and never ends when the context holds too little.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agents.questions import ADD, DONE, FIND, Step
from agents.tokens import QUESTION


class ScriptedPolicy:
    """A policy for `questions.chain` without a model."""

    def write(self, transcripts: Sequence[str]) -> list[str]:
        return [str(next_step(shown)).lstrip("\n") for shown in transcripts]


def next_step(shown: str) -> Step:
    """What the rules do next, from the text alone."""
    question = shown.split("\n")[0].removeprefix(QUESTION)
    towns = re.findall(r"\b[A-Z][a-z]{5}\b", question)
    known = {}
    for town in towns:
        found = re.search(
            rf"\b{town}(?: is a town in \w+\. Its population is|:) (\d+)", shown.split("\n", 1)[-1]
        )
        if found is None:
            return Step(FIND.format(name=town), "search", town)
        known[town] = found[1]
    expression = "+".join(known[town] for town in towns)
    if len(towns) == 1:
        return Step(DONE, "finish", expression)
    results = re.findall(r"Action: calculate\[[^]]*\]\nObservation: (\S+)", shown)
    return Step(DONE, "finish", results[-1]) if results else Step(ADD, "calculate", expression)
