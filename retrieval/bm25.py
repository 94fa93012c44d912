"""BM25 as one sparse matrix (Robertson & Zaragoza 2009, The Probabilistic Relevance Framework).

    score(q, d) = Σ over terms t of q   idf(t) · tf (k1 + 1) / (tf + k1 (1 - b + b |d| / average))

A term counts more the rarer it is (idf); a second occurrence counts less than the first (k1); in a
document longer than the average an occurrence counts less (b). Nothing in the sum but the choice
of terms depends on the query. So all weights are computed once, in a sparse matrix (V, N), and a
query is the sum of its terms' rows. rank-bm25 goes through all documents in Python for every term.

Two variants: `okapi` is that of rank-bm25, whose idf can fall below 0 and is then replaced by a
floor; `lucene` is that of Lucene and Elasticsearch, whose idf cannot, and which leaves the constant
factor k1 + 1 out.

Letters: N documents, V terms, Q queries.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from scipy import sparse

from labkit import exercise

Variant = Literal["okapi", "lucene"]
BATCH = 256
"""Queries scored at once: a dense (BATCH, N) array is made."""
COMMON = 0.25
"""A term in more than this share of the texts has a dense row, too. A sum with a dense row is many
times faster than with a sparse one, and these few terms stand in nearly every question."""


def terms(text: str) -> list[str]:
    """Lower-case words and numbers, in order."""
    return re.findall(r"\w+", text.lower())


@exercise(minutes=15)
def inverse_document_frequency(
    containing: np.ndarray, documents: int, variant: Variant, epsilon: float = 0.25
) -> np.ndarray:
    """How much each term counts.

        okapi     ln(N - n + 0.5) - ln(n + 0.5); below 0 for a term in more than half of the
                  documents. Those are replaced by epsilon times the mean over all terms, the
                  negative ones included.
        lucene    ln(1 + (N - n + 0.5) / (n + 0.5)), always above 0; epsilon has no effect

    Args:
        containing: n, documents that contain each term, int64 (V,), from 1 to N.
        documents: N.
        variant: which of the two.
        epsilon: see above.
    Returns:
        float64 (V,).
    """
    odds = (documents - containing + 0.5) / (containing + 0.5)
    if variant == "lucene":
        return np.log1p(odds)
    idf = np.log(odds)
    return np.where(idf < 0, epsilon * idf.mean(), idf)


@exercise(minutes=15)
def saturation(
    tf: np.ndarray, length: np.ndarray, average: float, k1: float, b: float
) -> np.ndarray:
    """What occurrences of a term in a document are worth, from 0 to below 1.

        tf / (tf + k1 (1 - b + b length / average))

    Args:
        tf: how often the term occurs, (M,).
        length: words of the document it occurs in, (M,).
        average: words of a document on average.
        k1: how late further occurrences stop counting; with 0 only the first counts.
        b: from 0, lengths do not matter, to 1, occurrences count by their share of the document.
    Returns:
        float64 (M,).
    """
    tf = tf.astype(np.float64)
    return tf / (tf + k1 * (1 - b + b * length / average))


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest of each row, highest first: (Q, N) -> ids and scores (Q, k).

    Of equal scores the smaller id comes first. Where the score is -inf, and beyond the N-th column,
    the id is -1.
    """
    q, n = scores.shape
    kept = min(k, n)
    part = np.argpartition(-scores, kept - 1, axis=1)[:, :kept] if kept else np.zeros((q, 0), int)
    part.sort(axis=1)
    found = np.take_along_axis(scores, part, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    ids = np.full((q, k), -1)
    best = np.full((q, k), -np.inf)
    ids[:, :kept] = np.take_along_axis(part, order, axis=1)
    best[:, :kept] = np.take_along_axis(found, order, axis=1)
    ids[np.isneginf(best)] = -1
    return ids, best


class BM25:
    """An index of texts that grows and shrinks. A text's id is its place in the order of adding,
    and is not given again when it has been removed.
    """

    def __init__(
        self,
        texts: Iterable[str] = (),
        variant: Variant = "okapi",
        k1: float = 1.5,
        b: float = 0.75,
        epsilon: float = 0.25,
    ) -> None:
        """The defaults are those of rank-bm25's BM25Okapi."""
        self.variant, self.k1, self.b, self.epsilon = variant, k1, b, epsilon
        self.vocabulary: dict[str, int] = {}
        self.counts = sparse.csr_array((0, 0), dtype=np.float32)
        """Occurrences of each term in each text, (N, V)."""
        self.alive = np.zeros(0, bool)
        self.add(texts)

    def __len__(self) -> int:
        """Texts that have been added and not removed."""
        return int(self.alive.sum())

    def add(self, texts: Iterable[str]) -> np.ndarray:
        """Adds texts and returns their ids. Only they are read; the weights are computed anew."""
        columns: list[int] = []
        values: list[int] = []
        ends = [0]
        for text in texts:
            for term, count in Counter(terms(text)).items():
                columns.append(self.vocabulary.setdefault(term, len(self.vocabulary)))
                values.append(count)
            ends.append(len(columns))
        shape, before = (len(ends) - 1, len(self.vocabulary)), len(self.alive)
        new = sparse.csr_array((np.array(values, np.float32), columns, ends), shape=shape)
        self.counts.resize((before, len(self.vocabulary)))
        self.counts = sparse.vstack([self.counts, new], format="csr")
        self.alive = np.append(self.alive, np.ones(len(ends) - 1, bool))
        self._weigh()
        return np.arange(before, len(self.alive))

    def remove(self, ids: Sequence[int] | np.ndarray) -> None:
        """Removes texts. Raises IndexError for an id that was never given."""
        self.alive[np.asarray(ids, int)] = False
        self._weigh()

    def _weigh(self) -> None:
        """The weights, (V, N): everything in the score that does not depend on the query."""
        counts = self.counts.tocoo()
        kept = self.alive[counts.row]
        rows, columns, tf = counts.row[kept], counts.col[kept], counts.data[kept]
        v, n = len(self.vocabulary), len(self.alive)
        lengths = np.bincount(rows, tf, minlength=n)
        containing = np.bincount(columns, minlength=v)
        used = containing > 0  # not the terms of removed texts alone
        idf = np.zeros(v)
        if used.any():
            idf[used] = inverse_document_frequency(
                containing[used], len(self), self.variant, self.epsilon
            )
        average = lengths.sum() / max(1, len(self))
        weights = idf[columns] * saturation(tf, lengths[rows], average, self.k1, self.b)
        if self.variant == "okapi":
            weights *= self.k1 + 1
        self.weights = sparse.csr_array((weights, (columns, rows)), shape=(v, n))
        self.begins: list[int] = self.weights.indptr.tolist()
        common = np.flatnonzero(containing > COMMON * n)
        self.common = dict(zip(common.tolist(), self.weights[common].toarray(), strict=True))
        """Dense rows by the number of their term."""

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """float64 (Q, N): 0 where text and query share no term. A term that occurs twice in the
        query counts twice; an unknown one not at all.
        """
        found = np.zeros((len(queries), len(self.alive)))
        texts, weights = self.weights.indices, self.weights.data
        for row, query in zip(found, queries, strict=True):
            for term in terms(query):
                number = self.vocabulary.get(term)
                if number in self.common:
                    row += self.common[number]
                elif number is not None:
                    here = slice(self.begins[number], self.begins[number + 1])
                    row[texts[here]] += weights[here]  # a text stands once in a row
        return found

    def search(
        self, queries: Sequence[str], k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best texts of each query: ids and scores, both (Q, k), best first.

        Where fewer than k texts share a term with the query, the rest is -1 and -inf.

        Args:
            allowed: bool (Q, N) or (N,), the texts to choose from; all if left out.
        """
        found = []
        for begin in range(0, len(queries), BATCH):
            scores = self.scores(queries[begin : begin + BATCH])
            scores[scores == 0] = -np.inf
            if allowed is not None:
                mask = allowed if allowed.ndim == 1 else allowed[begin : begin + BATCH]
                scores = np.where(mask, scores, -np.inf)
            found.append(top_k(scores, k))
        if not found:
            return np.full((0, k), -1), np.full((0, k), -np.inf)
        return np.concatenate([i for i, _ in found]), np.concatenate([s for _, s in found])
