"""Quality and variety apart, by nearest neighbours among the features.

A set of samples is described by balls: each sample is the centre of one, and its radius is the
distance to the sample's k-th nearest neighbour in the same set.

    precision  share of fake samples inside some real ball      (Kynkaanniemi et al. 2019, eq. 2)
    recall     share of real samples inside some fake ball
    density    how many real balls a fake sample is in, over k  (Naeem et al. 2020, eq. 4)
    coverage   share of real balls with a fake sample in them   (Naeem et al. 2020, eq. 5)

All distances here are squared: their order is the same. Letters: N, M samples, D dimensions.
"""

from collections.abc import Iterator

import numpy as np

from labkit import UsageError, exercise

BLOCK = 2**22
"""Distances in memory at a time."""


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of the rows: (N, D), (M, D) -> float64 (N, M).

    By |a|^2 + |b|^2 - 2 a.b, one matrix product. Its rounding errors are a few units in the last
    place of |a|^2 + |b|^2; what is smaller than those is 0, so that a copy has the distance 0.
    """
    centre = b.mean(axis=0, dtype=np.float64)
    a, b = a - centre, b - centre  # shorter vectors, smaller rounding errors
    a_norms, b_norms = np.square(a).sum(axis=1)[:, None], np.square(b).sum(axis=1)
    distances = a @ (-2 * b.T)
    distances += a_norms
    distances += b_norms
    distances[distances < 64 * np.finfo(np.float64).eps * (a_norms + b_norms.max())] = 0
    return distances


def blocks(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """`squared_distances(a, b)`, some rows at a time: few enough to fit into memory."""
    rows = max(1, BLOCK // len(b))
    for start in range(0, len(a), rows):
        yield squared_distances(a[start : start + rows], b)


def nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distance of each row of a (N, D) to the nearest row of b, and which row that is."""
    distances, rows = [], []
    for block in blocks(a, b):
        rows.append(block.argmin(axis=1))
        distances.append(np.take_along_axis(block, rows[-1][:, None], axis=1)[:, 0])
    return np.concatenate(distances), np.concatenate(rows)


@exercise(minutes=15)
def radii(points: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each point to its k-th nearest *other* point: (N, D) -> float64 (N,).

    A point is at distance 0 from itself and does not count as its own neighbour; a copy of it, in
    another row, does. `blocks(points, points)` gives the rows of the (N, N) distances in order.
    Raises UsageError, which says `neighbours`, unless there are more than k points.
    """
    if len(points) <= k:
        raise UsageError(f"k={k} neighbours need more than {k} images, and there are {len(points)}")
    return np.concatenate([np.partition(block, k)[:, k] for block in blocks(points, points)])


@exercise(minutes=25)
def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, eq. 1 and 2), in this order, 0..1.

    Precision is the share of fake samples whose distance to at least one real sample is at most
    that real sample's radius. Recall is the same with the two sets swapped: the share of real
    samples inside at least one ball of the fake ones. The radii are `radii(real, k)` and
    `radii(fake, k)`; `blocks(a, b)` gives the squared distances, some rows of a at a time.

    Args: (N, D) and (M, D); N and M may differ.
    """

    def share_inside(points: np.ndarray, centres: np.ndarray) -> float:
        limit = radii(centres, k)
        inside = [(block <= limit).any(axis=1) for block in blocks(points, centres)]
        return float(np.concatenate(inside).mean())

    return share_inside(fake, real), share_inside(real, fake)


@exercise(minutes=20)
def density_coverage(real: np.ndarray, fake: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, eq. 4 and 5), in this order.

    Both use the real balls alone, `radii(real, k)`: an outlier among the fake samples, with its
    large ball, cannot spoil them. Density is the number of pairs (fake sample, real ball it is in,
    border included), divided by k and by the number of fake samples: about 1 for equal
    distributions, and it may exceed 1. Coverage is the share of real balls with at least one fake
    sample in them, 0..1.

    Args: (N, D) and (M, D); N and M may differ.
    """
    limit = radii(real, k)
    pairs, covered = 0.0, np.zeros(len(real), dtype=bool)
    for block in blocks(fake, real):
        inside = block <= limit
        pairs += np.count_nonzero(inside)
        covered |= inside.any(axis=0)
    return pairs / (k * len(fake)), float(covered.mean())


def expected_coverage(real: int, fake: int, k: int) -> float:
    """The coverage that a perfect model reaches on average (Naeem et al. 2020, section 3.2).

    Of the `fake` + `real` - 1 other samples, the k nearest to a real one must not all be real.
    """
    missed = 1.0
    for i in range(1, k + 1):
        missed *= (real - i) / (real + fake - i)
    return 1 - missed
