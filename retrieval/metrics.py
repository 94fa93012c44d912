"""How good a ranking is, and how good an answer is.

A ranking is measured by itself, before any answer is made from it: an answer cannot be better than
the passages under it, and a wrong answer does not tell which of the two failed.

Letters: Q queries, n ranks, m judged documents of a query.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from labkit import exercise


@exercise(minutes=20)
def ndcg(relevance: np.ndarray, judged: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain of the first k ranks (Järvelin & Kekäläinen 2002).

        DCG@k = Σ_{i=1..k} relevance_i / log2(i + 1)        nDCG@k = DCG@k / ideal DCG@k

    The ideal ranking has the k most relevant of *all* judged documents in front, also those that
    were not retrieved. A query without any relevant document has 0.

    Args:
        relevance: of the documents retrieved, in the order of their ranks, (Q, n), 0 or more.
            n may be smaller than k.
        judged: relevance of all documents of the query, in any order, (Q, m).
        k: ranks that count.
    Returns:
        float64 (Q,), from 0 to 1.
    """

    def gain(ranked: np.ndarray) -> np.ndarray:
        first = ranked[:, :k]
        return (first / np.log2(np.arange(first.shape[1]) + 2)).sum(axis=1)

    ideal = gain(-np.sort(-judged, axis=1))
    return np.divide(gain(relevance), ideal, out=np.zeros(len(ideal)), where=ideal > 0)


def recall(relevance: np.ndarray, judged: np.ndarray, k: int) -> np.ndarray:
    """Share of the relevant documents that are among the first k: float64 (Q,); arguments as for
    `ndcg`. A query without any relevant document has 0.
    """
    total = (judged > 0).sum(axis=1)
    found = (relevance[:, :k] > 0).sum(axis=1)
    return np.divide(found, total, out=np.zeros(len(total)), where=total > 0)


def reciprocal_rank(relevance: np.ndarray, k: int) -> np.ndarray:
    """1 / rank of the first relevant document among the first k, 0 if there is none: (Q,)."""
    hit = relevance[:, :k] > 0
    first = hit.argmax(axis=1)
    return np.where(hit.any(axis=1), 1 / (first + 1), 0.0)


def single(ids: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`relevance` and `judged` where each query has one relevant document: ids (Q, n), gold (Q,).
    An id of -1 stands for no document.
    """
    return (ids == gold[:, None]).astype(np.float64), np.ones((len(gold), 1))


@exercise(minutes=10)
def normalise_answer(text: str) -> str:
    """SQuAD's normal form of an answer (Rajpurkar et al. 2016, section 6.1).

    Lower case; then every character of string.punctuation removed, nothing put in its place; then
    a space in the place of the words `a`, `an` and `the`; then single spaces between words, none at
    the ends.
    """
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def exact_match(answer: str, right: Sequence[str]) -> bool:
    """Whether the answer's normal form is that of one of the right answers."""
    return normalise_answer(answer) in {normalise_answer(text) for text in right}


@exercise(minutes=15)
def f1(answer: str, right: Sequence[str]) -> float:
    """Overlap in words with the right answer that it overlaps most with, from 0 to 1.

    For one right answer: the harmonic mean of precision, the share of the answer's words that are
    in the right answer, and recall, the other way round. Both are in their normal form
    (`normalise_answer`). A word that both have several times counts as often as both have it.
    Without a word in common it is 0, with one exception: two empty forms are equal, which is 1.
    """
    return max(_f1(normalise_answer(answer), normalise_answer(text)) for text in right)


def _f1(answer: str, right: str) -> float:
    ours, theirs = answer.split(), right.split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs))
