"""Choosing one of several answers to a question, and what choosing could reach.

    majority vote     the answer given most often: self-consistency     Wang et al. 2023, section 2
    reranking         the answer that a verifier scores highest         Cobbe et al. 2021, section 4
    weighted vote     votes count as much as the verifier's score       Li et al. 2023, section 3
    pass@k            is any of k answers right? needs a perfect judge  Chen et al. 2021, equation 1

Letters: P questions, n answers to each.
"""

from __future__ import annotations

from math import comb

import numpy as np

from labkit import exercise


@exercise(minutes=20)
def majority_vote(answers: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The winning answer's place in each row, int64 (P,), from answers (P, n).

    Answers are whole numbers; equal ones are one and the same answer, wherever they stand in the
    row. The one with most votes wins, and its first place is returned. Among answers with equally
    many votes, the one that comes first in the row wins. With `weights` (P, n), each place has that
    many votes instead of one; they are 0 or more, and a row may have only zeros. The arguments stay
    as they are. Wang et al. 2023, section 2.
    """
    same = answers[:, :, None] == answers[:, None, :]  # (P, n, n)
    votes = (same * (1 if weights is None else weights[:, None, :])).sum(axis=2)
    return votes.argmax(axis=1)  # the first of the largest


def rerank(scores: np.ndarray) -> np.ndarray:
    """The place of the highest score in each row, (P, n) -> (P,); the first of equals."""
    return scores.argmax(axis=1)


@exercise(minutes=15)
def pass_at_k(right: np.ndarray, n: int, k: int) -> np.ndarray:
    """Probability that at least one of k answers is right, (P,), from `right` of n drawn ones.

    `right` (P,) counts the right answers to each question among n. The estimate is the share of
    all choices of k of the n answers (without putting one back) that have a right one among them:
    1 - C(n - right, k) / C(n, k), with C(a, k) = 0 when a < k. It has no bias, unlike
    1 - (1 - right/n)^k. Returns float64. Raises ValueError unless 1 <= k <= n. Chen et al. 2021,
    equation 1.
    """
    if not 1 <= k <= n:
        raise ValueError(f"k must be from 1 to the {n} answers drawn, got {k}")
    return np.array([1 - comb(n - count, k) / comb(n, k) for count in right], np.float64)
