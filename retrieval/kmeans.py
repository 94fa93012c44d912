"""k-means (Lloyd 1982): N vectors, K centroids, each vector belongs to the nearest.

Letters: N vectors, K centroids, d dimensions.
"""

import numpy as np

from labkit import exercise


def nearest(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Index of the centroid with the smallest Euclidean distance, int64 (N,); the first of equals.

    |x - c|² = |x|² - 2 x·c + |c|², of which |x|² is the same for every c.
    """
    return np.asarray((np.square(centroids).sum(axis=1) - 2 * x @ centroids.T).argmin(axis=1))


@exercise(minutes=20)
def kmeans_step(x: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One step of Lloyd's algorithm: assign, then move.

    Each vector is assigned to its nearest centroid (`nearest`); then each centroid moves to the
    mean of its vectors. A centroid without vectors stays where it is.

    Args:
        x: float (N, d).
        centroids: float (K, d), not changed.
    Returns:
        The new centroids, float64 (K, d), and the assignment to the old ones, int64 (N,).
    """
    assignment = nearest(x, centroids)
    moved = np.array(centroids, dtype=np.float64)
    count = np.bincount(assignment, minlength=len(centroids))
    total = np.zeros_like(moved)
    np.add.at(total, assignment, x)
    moved[count > 0] = total[count > 0] / count[count > 0, None]
    return moved, assignment


def kmeans(x: np.ndarray, k: int, steps: int = 20, seed: int = 0) -> np.ndarray:
    """Centroids (k, d), begun at k different vectors; ends early when none moves.

    Raises ValueError for a k that is not from 1 to N.
    """
    if not 0 < k <= len(x):
        raise ValueError(f"k-means of {len(x)} vectors takes 1 to {len(x)} centroids, got {k}")
    chosen = np.random.default_rng(seed).choice(len(x), k, replace=False)
    centroids = x[chosen].astype(np.float64)
    for _ in range(steps):
        moved, _ = kmeans_step(x, centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids
