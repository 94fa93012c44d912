"""How many of the likeliest contacts are there."""

from __future__ import annotations

import numpy as np

from labkit import exercise

SEPARATION = 4
"""Residues closer in the chain than this are not counted: they touch in any fold."""


@exercise(minutes=15)
def precision_at_l(scores: np.ndarray, contacts: np.ndarray, separation: int = SEPARATION) -> float:
    """Share of true contacts among the L pairs with the highest scores.

    `scores` and `contacts` (bool) have shape (L, L), and the half above the diagonal is read. Only
    pairs i < j with j - i >= separation are ranked. If there are fewer than L such pairs, all are
    taken. Raises ValueError if there is none.
    """
    length = len(scores)
    first, second = np.triu_indices(length, separation)
    if not len(first):
        raise ValueError(f"no two of {length} residues are {separation} apart")
    best = np.argsort(-scores[first, second], kind="stable")[:length]
    return float(contacts[first[best], second[best]].mean())


def mean_precision(scores: np.ndarray, contacts: np.ndarray) -> float:
    """Mean of `precision_at_l` in % over families, both (F, L, L)."""
    each = [precision_at_l(s, c) for s, c in zip(scores, contacts, strict=True)]
    return 100 * float(np.mean(each))


def separation_scores(contacts: np.ndarray) -> np.ndarray:
    """The share of families (F, L, L) in which residues so far apart in the chain touch, as scores
    (L, L): what can be guessed without looking at any alignment.
    """
    length = contacts.shape[1]
    mean = contacts.mean(axis=0)
    share = np.array([mean.diagonal(offset).mean() for offset in range(length)])
    place = np.arange(length)
    return share[np.abs(np.subtract.outer(place, place))]


def shared_folds(train: np.ndarray, test: np.ndarray) -> float:
    """Share, in %, of the test families (F, L, L) whose contact map a training family has too."""
    known = {contacts.tobytes() for contacts in train}
    return 100 * float(np.mean([contacts.tobytes() in known for contacts in test]))


def top_pairs(scores: np.ndarray, separation: int = SEPARATION) -> set[tuple[int, int]]:
    """The L pairs with the highest scores, as `precision_at_l` ranks them."""
    first, second = np.triu_indices(len(scores), separation)
    best = np.argsort(-scores[first, second], kind="stable")[: len(scores)]
    return set(zip(first[best].tolist(), second[best].tolist(), strict=True))
