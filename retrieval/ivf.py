"""An inverted file by hand (Sivic & Zisserman 2003; Jégou et al. 2011, section IV.A).

k-means divides the vectors into lists. A query is compared with the K centroids, and then only with
the vectors in the `probes` nearest lists. What it costs is counted in inner products, the same on
every machine.

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


class IVF:
    """Vectors of length 1 in K lists; ids are those of the order of adding.

    The centroids are scaled to length 1, too. A question is far from all of them, so |c|² would
    decide which is nearest: the loosest list, whose mean is shortest, whatever is asked.
    """

    def __init__(self, vectors: np.ndarray, lists: int, seed: int = 0) -> None:
        """Divide vectors, float (N, d), by k-means. Raises ValueError for lists not from 1 to N."""
        self.vectors = vectors
        self.centroids = unit_rows(kmeans(vectors, lists, seed=seed))
        home = nearest(vectors, self.centroids)
        order = np.argsort(home, kind="stable")
        self.lists = np.split(order, np.cumsum(np.bincount(home, minlength=lists))[:-1])

    def search(self, queries: np.ndarray, k: int, probes: int) -> tuple[np.ndarray, float]:
        """ids (Q, k), and the mean number of comparisons of a query."""
        found = [probe(q, self.centroids, self.lists, self.vectors, k, probes) for q in queries]
        return np.stack([f.ids for f in found]), float(np.mean([f.computed for f in found]))


def agreement(ids: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact neighbours that were found, from 0 to 1: both (Q, k), -1 no document."""
    hits = sum(len(np.intersect1d(a[a >= 0], b)) for a, b in zip(ids, exact, strict=True))
    return float(hits / max(1, (exact >= 0).sum()))
