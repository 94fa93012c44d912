"""Two rankings become one (Cormack, Clarke & Büttcher 2009, Reciprocal Rank Fusion).

Scores of different searches have different scales: a BM25 score has no upper bound, a cosine
has one. Ranks can be compared without any scaling.
"""

from collections.abc import Sequence

import numpy as np

from labkit import exercise


@exercise(minutes=15)
def reciprocal_rank_fusion(
    rankings: Sequence[np.ndarray],
    documents: int,
    constant: float = 60.0,
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Σ over the rankings of   weight / (constant + rank),   the first rank being 1.

    Args:
        rankings: each (Q, n) of document ids, best first; n may differ from one to the next. An id
            of -1 is no document, and there may be some at the end of a row.
        documents: N; ids go from 0 to N - 1.
        constant: with a large one, the first ranks differ little and agreement counts more.
        weights: of each ranking; 1 for each if left out.
    Returns:
        Scores, float64 (Q, N): 0 for a document that is in none of the rankings.
    Raises:
        ValueError when there are not as many weights as rankings.
    """
    scores = np.zeros((len(rankings[0]), documents))
    for ids, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        rows, ranks = np.nonzero(ids >= 0)
        scores[rows, ids[rows, ranks]] += weight / (constant + ranks + 1)
    return scores
