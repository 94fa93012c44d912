"""Texts as tensors: stems of words for the dual encoder, words with places for the reader.

All of a corpus is turned into tensors once. A batch takes rows of them, cut to its longest.

Letters: N texts, T tokens.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from labkit.data import Question
from retrieval.bm25 import terms

WORDS = 256
"""Longest passage, in words; the rest is not read."""
QUESTION = 64
"""Longest question, in words."""
WORD = re.compile(r"\w+|[^\w\s]")
STEM = 5
"""Letters that two forms of a word must have in common."""


def rectangle(rows: Sequence[Sequence[int] | np.ndarray], longest: int) -> Tensor:
    """int64 (N, T), zeros behind each row; T is at most `longest`."""
    width = min(longest, max((len(row) for row in rows), default=0)) or 1
    out = np.zeros((len(rows), width), np.int64)
    for i, row in enumerate(rows):
        out[i, : min(len(row), width)] = row[:width]
    return torch.from_numpy(out)


def code(word: str) -> int:
    """A number for a word, the same in every process; never 0."""
    return zlib.crc32(word.encode()) + 1


def stems(texts: Iterable[str], buckets: int, longest: int = WORDS) -> Tensor:
    """int64 (N, T) for the encoder, padded with 0: each word's first letters, hashed into 1 to
    buckets - 1.

    A word that was never in training has a row of its own, as it has for BM25; pieces of a learned
    vocabulary would be shared with unrelated words. Different stems that share a row are rare.
    """
    rows = [[code(word[:STEM]) % (buckets - 1) + 1 for word in terms(text)] for text in texts]
    return rectangle(rows, longest)


def bucket_idf(tokens: Tensor, buckets: int) -> Tensor:
    """The idf of each row among texts (N, T), above 0: float32 (buckets,)."""
    containing = np.zeros(buckets)
    for row in tokens.numpy():
        containing[np.unique(row)] += 1
    return torch.from_numpy(np.log1p(len(tokens) / (containing + 0.5))).float()


class Vocabulary:
    """The reader's words: 0 is padding, 1 any word that is not known."""

    def __init__(self, words: Sequence[str], idf: Sequence[float]) -> None:
        """`words` from id 2 on; `idf` of every id."""
        self.words, self.idf = list(words), list(idf)
        self.ids = {word: i + 2 for i, word in enumerate(words)}

    @classmethod
    def learn(cls, texts: Sequence[str], size: int) -> "Vocabulary":
        """The words that are in most of the texts."""
        containing = Counter(w for text in texts for w in dict.fromkeys(WORD.findall(text.lower())))
        known = [word for word, count in containing.most_common(size) if count > 1]
        idf = np.log1p(len(texts) / (np.array([containing[w] for w in known]) + 0.5))
        rare = float(np.log1p(len(texts) / 1.5))
        return cls(known, [0.0, rare, *idf.tolist()])


@dataclass(frozen=True)
class Sheets:
    """Texts as the reader sees them, each tensor (N, T)."""

    ids: Tensor
    """int64 ids of the vocabulary, 0 is padding."""
    forms: Tensor
    """int64: equal numbers are equal words in lower case; 0 is padding."""
    stems: Tensor
    """int64: equal numbers are words with the same first letters."""
    flags: Tensor
    """float32 (N, T, 2): begins with a capital; has a digit."""
    places: list[np.ndarray]
    """Of each text: begin and end of each word in characters, int64 (T, 2)."""

    def rows(self, index: Tensor) -> "Sheets":
        """The texts `index`, int64 (B,), cut to the longest of them."""
        longest = int((self.ids[index] != 0).sum(dim=1).max())
        return Sheets(
            self.ids[index][:, :longest],
            self.forms[index][:, :longest],
            self.stems[index][:, :longest],
            self.flags[index][:, :longest],
            [self.places[i] for i in index.tolist()],
        )

    @property
    def mask(self) -> Tensor:
        """bool (N, T), True at words."""
        return self.ids != 0

    def to(self, device: torch.device | str) -> "Sheets":
        """The same on a device."""
        return Sheets(
            self.ids.to(device),
            self.forms.to(device),
            self.stems.to(device),
            self.flags.to(device),
            self.places,
        )


def sheets(vocabulary: Vocabulary, texts: Sequence[str], longest: int = WORDS) -> Sheets:
    """Texts for the reader, of at most `longest` words each."""
    ids, forms, stems, flags, places = [], [], [], [], []
    for text in texts:
        matches = list(WORD.finditer(text))[:longest]
        words = [m[0].lower() for m in matches]
        ids.append([vocabulary.ids.get(word, 1) for word in words])
        forms.append([code(word) for word in words])
        stems.append([code(word[:STEM]) for word in words])
        flags.append([(m[0][0].isupper(), any(c.isdigit() for c in m[0])) for m in matches])
        places.append(np.array([m.span() for m in matches], np.int64).reshape(-1, 2))
    width = rectangle(ids, longest).shape[1]
    marks = np.zeros((len(ids), width, 2), np.float32)
    for i, row in enumerate(flags):
        marks[i, : len(row)] = np.array(row, np.float32).reshape(-1, 2)
    parts = [rectangle(rows, longest) for rows in (ids, forms, stems)]
    return Sheets(parts[0], parts[1], parts[2], torch.from_numpy(marks), places)


def span_of(question: Question, places: np.ndarray) -> tuple[int, int]:
    """First and last word of the question's first answer, given the words' places (T, 2).

    (-1, -1) when the answer lies behind the words that are read.
    """
    begin, end = question.start, question.start + len(question.answers[0])
    inside = np.flatnonzero((places[:, 1] > begin) & (places[:, 0] < end))
    if not len(inside) or places[-1, 1] < end:
        return -1, -1
    return int(inside[0]), int(inside[-1])


def spans_with(answer: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Where an answer, codes (L,), stands among a passage's words (T,): first words, int64 (M,)."""
    if not 0 < len(answer) <= len(words):
        return np.zeros(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(words, len(answer))
    return np.flatnonzero((windows == answer).all(axis=1))
