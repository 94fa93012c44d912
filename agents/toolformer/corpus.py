"""Text with numbers in it: some follow from others by a calculation, some do not.

Two things in the base text stand for what GPT-J had read before Schick et al. began: numbers that
follow from others, which a small model cannot compute; and notes in brackets, `[see page 7 -> 312]
312 pens`, after which the same number comes again. The notes hold no calculation. They only teach
that what stands behind an arrow is worth copying.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from agents.atlas import draw_name

ARROW, CLOSE = " -> ", "] "
"""Inside a call, before its result; and behind the result."""
SENTENCES = {
    "A box holds {a} pens. In {b} boxes are {r} pens. See page {x}.": "*",
    "{name} has {a} rows of {b} seats. That makes {r} seats. See page {x}.": "*",
    "{name} had {a} coins and found {b}. Now it is {r} coins. See page {x}.": "+",
    "There are {a} seats here and {b} there. Together {r} seats. See page {x}.": "+",
    "{name} had {a} coins and lost {b}. Now it is {r} coins. See page {x}.": "-",
    "Of {a} pens {name} gave away {b}. There are {r} pens left. See page {x}.": "-",
}
NOTES = ("see page {n}", "list {n}", "told by {name}", "{name} and {other}", "chapter {n}")
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Document:
    """A text, and where its calculated number stands."""

    text: str
    place: int
    """Character at which the result begins."""
    result: int
    expression: str
    """What the result follows from: never shown to the model."""

    @property
    def prompt(self) -> str:
        return self.text[: self.place]

    def with_note(self, note: str) -> str:
        """The text with something put before the result."""
        return f"{self.prompt}{note}{self.text[self.place :]}"


def draw(rng: np.random.Generator, split: str) -> Document:
    """A document; names of `test` never occur in `train`, and neither do its pairs of numbers."""
    wordings = list(SENTENCES)
    wording = wordings[int(rng.integers(len(wordings)))]
    operator = SENTENCES[wording]
    while True:
        a, b = (int(n) for n in rng.integers(11, 100, size=2))
        if a > b and ((a * 7919 + b * 104_729) % 10 == 0) == (split == "test"):
            break
    result = {"*": a * b, "+": a + b, "-": a - b}[operator]
    before, after = wording.split("{r}")
    words = {"a": a, "b": b, "name": draw_name(rng, split), "x": int(rng.integers(2, 1000))}
    head = before.format(**words)
    return Document(
        f"{head}{result}{after.format(**words)}", len(head), result, f"{a}{operator}{b}"
    )


def note(rng: np.random.Generator, number: int, split: str) -> str:
    """`[list 7 -> 312] `: a number with no calculation."""
    name, other = draw_name(rng, split), draw_name(rng, split)
    words = NOTES[int(rng.integers(len(NOTES)))].format(
        n=int(rng.integers(2, 1000)), name=name, other=other
    )
    return f"[{words}{ARROW}{number}{CLOSE}"


def base_texts(rng: np.random.Generator, count: int, noted: float) -> list[str]:
    """Training text of the base model; a share `noted` has a note before its result."""
    documents = [draw(rng, "train") for _ in range(count)]
    return [
        d.with_note(note(rng, d.result, "train")) if rng.random() < noted else d.text
        for d in documents
    ]
