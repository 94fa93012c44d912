"""Retrieval-augmented answers (Lewis et al. 2020): search, read, cite, or say "I do not know".

    search     the passages, numbered 1, 2, ... for this question alone
    read       the cross-encoder reranks them and marks the likeliest span, or a language model
               writes (generate.py)
    cite       [n] says which passage an answer stands in, and is checked by programme
    abstain    below a threshold, chosen on validation questions, the answer is kept back

An answer is supported when it stands in a passage that it cites. That is not the same as right: a
passage can be wrong, or about something else.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from labkit import exercise
from labkit.learning.modes import evaluating
from retrieval.metrics import normalise_answer
from retrieval.reader import CrossEncoder, best_span
from retrieval.tensors import QUESTION, Sheets, Vocabulary, sheets

UNKNOWN = "I do not know: no passage that was found supports an answer."
BATCH = 128


@exercise(minutes=10)
def supporting(answer: str, passages: Sequence[str]) -> list[int]:
    """Numbers of the passages in which the answer stands, for its citations.

    Both are compared in SQuAD's normal form (`normalise_answer`), and the answer's words must
    follow each other as whole words: `art` does not stand in `party`.

    Args:
        answer: may be empty.
        passages: as they are shown, numbered from 1.
    Returns:
        Numbers in rising order; none for an answer whose normal form is empty.
    """
    form = normalise_answer(answer)
    texts = [f" {normalise_answer(text)} " for text in passages]
    return [n for n, text in enumerate(texts, start=1) if form and f" {form} " in text]


@exercise(minutes=15)
def check_citations(answer: str, count: int) -> tuple[str, list[int]]:
    """Takes citations of passages that were never retrieved out of an answer.

    A citation is one number in brackets, such as [2]. It is kept when a passage has that number,
    from 1 to `count`. Otherwise it is removed, with the spaces before it.

    Args:
        answer: as a language model wrote it.
        count: passages that were retrieved, 0 or more.
    Returns:
        The answer without the others, and the numbers kept, each once, in the order in which they
        come first.
    """
    kept: list[int] = []

    def look(match: re.Match[str]) -> str:
        number = int(match[1])
        if not 1 <= number <= count:
            return ""
        if number not in kept:
            kept.append(number)
        return match[0]

    return re.sub(r" *\[(\d+)\]", look, answer), kept


@dataclass(frozen=True)
class Reading:
    """What the cross-encoder says of Q questions with n passages each; arrays (Q, n)."""

    relevance: np.ndarray
    first: np.ndarray
    last: np.ndarray
    span: np.ndarray
    """log p of the best span in its passage; -inf beside no passage."""

    @property
    def support(self) -> np.ndarray:
        """How much speaks for each passage's answer: high where relevance and span are."""
        return self.relevance + self.span


class Reader:
    """The cross-encoder with its vocabulary: reranks, and marks answers."""

    def __init__(self, model: CrossEncoder, vocabulary: Vocabulary, longest: int) -> None:
        """`longest` is the longest answer in words."""
        self.model, self.vocabulary, self.longest = model, vocabulary, longest

    def sheets(self, texts: Sequence[str]) -> Sheets:
        """Passages as tensors, on the model's device."""
        return sheets(self.vocabulary, texts).to(self.model.idf.device)

    def read(self, questions: Sequence[str], ids: np.ndarray, passages: Sheets) -> Reading:
        """Read for each question the passages `ids`, (Q, n); -1 is no passage."""
        asked = sheets(self.vocabulary, questions, QUESTION).to(self.model.idf.device)
        rows, columns = np.nonzero(ids >= 0)
        out = Reading(*(np.full(ids.shape, fill) for fill in (-np.inf, -1, -1, -np.inf)))
        device = self.model.idf.device
        with evaluating(self.model):
            for start in range(0, len(rows), BATCH):
                r, c = rows[start : start + BATCH], columns[start : start + BATCH]
                q = asked.rows(torch.from_numpy(r).to(device))
                p = passages.rows(torch.from_numpy(ids[r, c]).to(device))
                relevance, begin, end = self.model(q, p)
                found = best_span(begin.log_softmax(1), end.log_softmax(1), self.longest)
                parts = (relevance, *found)
                targets = (out.relevance, out.first, out.last, out.span)
                for target, part in zip(targets, parts, strict=True):
                    target[r, c] = part.cpu().numpy()
        return out

    def text(self, passage: str, places: np.ndarray, first: int, last: int) -> str:
        """The words first to last of a passage, as they stand in it; empty for a passage without
        words.
        """
        if not len(places):
            return ""
        return passage[places[first][0] : places[min(last, len(places) - 1)][1]]


@dataclass(frozen=True)
class Extracted:
    """The likeliest answer of one question, whether or not it is given."""

    text: str
    passage: int
    """Place among the question's passages, from 0; -1 when there was none."""
    support: float


def citations(text: str, number: int, passages: Sequence[str]) -> list[int]:
    """Numbers of the passages to cite for a span: the one that it was read in, from 1, and the
    others in which it stands.
    """
    return [number, *(n for n in supporting(text, passages) if n != number)]


def extract(reader: Reader, reading: Reading, ids: np.ndarray, texts: Sequence[str],
            passages: Sheets, read: int) -> list[Extracted]:  # fmt: skip
    """For each question the best-supported answer of its `read` most relevant passages.

    Args:
        ids: passages of each question, (Q, n), as they were read.
        texts, passages: of all passages, by id.
    """
    out = []
    for row in range(len(ids)):
        order = np.argsort(-reading.relevance[row], kind="stable")[:read]
        best = int(order[reading.support[row, order].argmax()])
        if ids[row, best] < 0:
            out.append(Extracted("", -1, -np.inf))
            continue
        i = int(ids[row, best])
        text = reader.text(
            texts[i],
            passages.places[i],
            int(reading.first[row, best]),
            int(reading.last[row, best]),
        )
        out.append(Extracted(text, best, float(reading.support[row, best])))
    return out


def choose_threshold(support: np.ndarray, value: np.ndarray) -> float:
    """The threshold at which answering is worth most, as SQuAD 2.0 counts it (Rajpurkar et al.
    2018): an answer is given when its support is at least the threshold.

    Args:
        support: of each validation question's answer, (Q,).
        value: what giving it is worth more than keeping it back, (Q,): its F1 where the question
            has an answer, -1 where it has none.
    Returns:
        One of the supports, or infinity where it is best never to answer.
    """
    order = np.argsort(-support, kind="stable")
    gain = np.cumsum(value[order])
    last = np.append(np.diff(support[order]) != 0, True)  # equal ones are given together
    gain = np.where(last, gain, -np.inf)
    best = int(gain.argmax())
    return float(support[order][best]) if gain[best] > 0 else float("inf")
