"""Candidate calls: where one might stand, what it might ask, and what the tool says.

Schick et al. let GPT-J propose calls by a prompt with examples. A model of this size cannot follow
a prompt, so candidates are drawn at random: before any number that has two numbers before it, and
with any two of these and any operator. Most are useless. That the filter finds the useful ones from
the loss alone is the point of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents.calculator import calculate
from agents.toolformer.corpus import ARROW, CLOSE, NUMBER, Document

OPERATORS = "+-*"


@dataclass(frozen=True)
class Candidate:
    """A call in a document: its text, the place before which it would stand, and its result."""

    document: int
    place: int
    expression: str
    result: str

    @property
    def with_result(self) -> str:
        """e(c, r): `[24*13 -> 312] `."""
        return f"[{self.expression}{ARROW}{self.result}{CLOSE}"

    @property
    def without_result(self) -> str:
        """e(c, ε): `[24*13 -> ] `."""
        return f"[{self.expression}{ARROW}{CLOSE}"


def candidates(documents: list[Document], each: int, rng: np.random.Generator) -> list[Candidate]:
    """Up to `each` different calls of every document, drawn from all that are possible."""
    found = []
    for i, document in enumerate(documents):
        numbers = [(m.start(), m[0]) for m in NUMBER.finditer(document.text)]
        possible = [
            (place, f"{left}{operator}{right}")
            for n, (place, _) in enumerate(numbers)
            for j, (_, left) in enumerate(numbers[:n])
            for _, right in numbers[j + 1 : n]
            for operator in OPERATORS
        ]
        for k in rng.permutation(len(possible))[:each]:
            place, expression = possible[k]
            found.append(Candidate(i, place, expression, calculate(expression)))
    return found


def is_useful(candidate: Candidate, document: Document) -> bool:
    """Whether the call gives the number that the text goes on with. The filter never sees this."""
    return candidate.place == document.place and candidate.result == str(document.result)
