"""An inverted file by hand (Sivic & Zisserman 2003; Jégou et al. 2011, section IV.A).

k-means divides the vectors into lists. A query is compared with the K centroids, and then only with
the vectors in the `probes` nearest lists. What it costs is counted in comparisons, the same on
every machine.

In many dimensions lists alone save little: the ten nearest of a question, none of them very near,
stand in many lists. Codes help there (Gong et al. 2013; Gao & Long 2024, RaBitQ): the signs of a
vector's numbers are one bit each, and vectors whose signs agree in many places have a large inner
product. The lists are searched by their codes, and the best of that is compared exactly.

Letters: N vectors, K lists, d dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labkit import exercise
from retrieval.index import unit_rows
from retrieval.kmeans import kmeans, nearest


@dataclass(frozen=True)
class Found:
    """The result of one query."""

    ids: np.ndarray
    """int64 (k,), -1 where the probed lists hold fewer than k vectors."""
    scores: np.ndarray
    """float64 (k,), highest first; -inf beside -1."""
    computed: int
    """Comparisons: one for each centroid, and one for each vector of the lists that were probed."""


@exercise(minutes=25)
def probe(
    query: np.ndarray,
    centroids: np.ndarray,
    lists: Sequence[np.ndarray],
    vectors: np.ndarray,
    k: int,
    probes: int,
) -> Found:
    """The k vectors of highest inner product with the query, among those in the nearest lists.

    Args:
        query: float (d,).
        centroids: float (K, d).
        lists: ids of the vectors of each of the K lists, int64; a list may be empty.
        vectors: float (N, d), by id.
        k: how many are wanted.
        probes: lists to look into: those whose centroids have the smallest Euclidean distance from
            the query, of equally near ones the first. More than K means all.
    Returns:
        See `Found`. Of equal scores the one in the nearer list comes first, and inside a list the
        one that stands first there.
    """
    distance = np.square(centroids - query).sum(axis=1)
    chosen = np.argsort(distance, kind="stable")[:probes]
    candidates = np.concatenate([lists[c] for c in chosen])
    scores = vectors[candidates] @ query
    best = np.argsort(-scores, kind="stable")[:k]
    ids, found = np.full(k, -1), np.full(k, -np.inf)
    ids[: len(best)], found[: len(best)] = candidates[best], scores[best]
    return Found(ids, found, len(centroids) + len(candidates))


def signs(x: np.ndarray) -> np.ndarray:
    """The signs of numbers, packed: float (N, d) -> uint8 (N, ⌈d / 8⌉); a bit is 1 above 0."""
    return np.packbits(x > 0, axis=1)


def shortlist(
    query: np.ndarray,
    centroids: np.ndarray,
    lists: Sequence[np.ndarray],
    codes: np.ndarray,
    again: int,
    probes: int,
) -> tuple[np.ndarray, float]:
    """Of the vectors in the nearest lists, the `again` whose signs differ least from the query's.

    Args:
        codes: the vectors' `signs`, by id; for the others see `probe`.
    Returns:
        ids, fewer than `again` where the lists hold fewer, and the cost: 1 for a centroid, 1/32 for
        a code, which has 1 bit where the vector has 32.
    """
    distance = np.square(centroids - query).sum(axis=1)
    chosen = np.argsort(distance, kind="stable")[:probes]
    candidates = np.concatenate([lists[c] for c in chosen])
    differ = np.bitwise_count(codes[candidates] ^ signs(query[None])).sum(axis=1)
    near = candidates[np.argsort(differ, kind="stable")[:again]]
    return near, len(centroids) + len(candidates) / 32


class IVF:
    """Vectors of length 1 in K lists; ids are those of the order of adding.

    The centroids are scaled to length 1, too. A question is far from all of them, so |c|² would
    decide which is nearest: the loosest list, whose mean is shortest, whatever is asked.
    """

    def __init__(self, vectors: np.ndarray, lists: int, seed: int = 0) -> None:
        """Divide vectors, float (N, d), by k-means. Raises ValueError for lists not from 1 to N."""
        self.vectors, self.codes = vectors, signs(vectors)
        self.centroids = unit_rows(kmeans(vectors, lists, seed=seed))
        home = nearest(vectors, self.centroids)
        order = np.argsort(home, kind="stable")
        self.lists = np.split(order, np.cumsum(np.bincount(home, minlength=lists))[:-1])

    def search(
        self, queries: np.ndarray, k: int, probes: int, again: int | None = None
    ) -> tuple[np.ndarray, float]:
        """ids (Q, k), and the mean number of comparisons of a query.

        Args:
            again: vectors that are compared exactly, chosen by `shortlist`; None: all vectors of
                the lists, without codes (`probe`).
        """
        if again is None:
            found = [probe(q, self.centroids, self.lists, self.vectors, k, probes) for q in queries]
            return np.stack([f.ids for f in found]), float(np.mean([f.computed for f in found]))
        ids, costs = np.full((len(queries), k), -1), []
        for row, q in zip(ids, queries, strict=True):
            near, cost = shortlist(q, self.centroids, self.lists, self.codes, again, probes)
            best = near[np.argsort(-(self.vectors[near] @ q), kind="stable")[:k]]
            row[: len(best)] = best
            costs.append(cost + len(near))
        return ids, float(np.mean(costs))


def agreement(ids: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact neighbours that were found, from 0 to 1: both (Q, k), -1 no document."""
    hits = sum(len(np.intersect1d(a[a >= 0], b)) for a, b in zip(ids, exact, strict=True))
    return float(hits / max(1, (exact >= 0).sum()))
