"""Checking the citations of a report by programme.

Every sentence of a report must cite a passage, as [2]. A citation holds when that passage was
really read, and supports the sentence: what stands in quotation marks occurs in it, and so do
most of the sentence's content words. It is a necessary condition, not a sufficient one: a sentence
that negates its passage passes. Rashkin et al. 2021 (AIS) asks people instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from labkit import exercise

ENOUGH = 0.6
"""Share of content words that must occur in the passage."""
STOP = frozenset(
    "a an and are as at be been but by did do does for from had has have he her his how i in into "
    "is it its not of on or our she so than that the their them then there these they this those "
    "to was we were what when where which who whom why will with you your".split()
)
CITATION = re.compile(r"\[(\d+)\]")
QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”')


def content_words(text: str) -> set[str]:
    """The words and numbers of a text in lower case, without those that carry no content."""
    return set(re.findall(r"[^\W_]+", text.lower())) - STOP


@exercise(minutes=20)
def supported(sentence: str, read: Mapping[int, str]) -> bool:
    """Whether a sentence is supported by the passages that it cites.

    Args:
        sentence: with its citations, such as [2] or [1][3] (see CITATION).
        read: the passages that were really read, by their numbers.
    Returns:
        True when all of this holds:

        - it cites at least one passage, and every cited passage was read;
        - everything in quotation marks (QUOTED) occurs in one of the cited passages, letter by
          letter except that runs of white space count as one space;
        - it has content words besides its citations, and at least the share ENOUGH of them occur
          in the cited passages taken together (see `content_words`).
    """
    cited = {int(number) for number in CITATION.findall(sentence)}
    if not cited <= read.keys():
        return False
    passages = [" ".join(read[number].split()) for number in cited]
    plain = CITATION.sub("", sentence)
    for pair in QUOTED.findall(plain):
        quote = " ".join("".join(pair).split())
        if not any(quote in passage for passage in passages):
            return False
    words = content_words(plain)
    known = content_words(" ".join(passages))
    return bool(words) and len(words & known) >= ENOUGH * len(words)


@dataclass(frozen=True)
class Checked:
    """What is left of a report, and what was taken out."""

    kept: list[str]
    removed: list[str]

    @property
    def support(self) -> float:
        """Share of the sentences that were supported; 0 for an empty report."""
        total = len(self.kept) + len(self.removed)
        return len(self.kept) / total if total else 0.0


def sentences(text: str) -> list[str]:
    """Sentences of a text. Citations behind a full stop, as in `so. [1]`, belong before it."""
    flat = " ".join(text.split())
    moved = re.sub(r"([.!?])((?:\s*\[\d+\])+)", lambda m: f" {m[2].strip()}{m[1]}", flat)
    parts = re.split(r"(?<=[.!?])(?<!\b[A-Z]\.)\s+(?=[\"“(A-Z0-9])", moved)
    return [part for part in parts if part]


def check_report(report: str, read: Mapping[int, str]) -> Checked:
    """Every sentence of a report, kept or removed by `supported`."""
    kept: list[str] = []
    removed: list[str] = []
    for sentence in sentences(report):
        (kept if supported(sentence, read) else removed).append(sentence)
    return Checked(kept, removed)
