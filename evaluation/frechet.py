"""The Frechet distance of two sets of features (Heusel et al. 2017, eq. 6), fast and exact.

    d^2 = |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2))

A set enters by three numbers only: its count, mean and scatter, the sum of outer products of the
deviations from the mean. They can be collected batch by batch and merged (Chan, Golub, LeVeque
1979), so that no set of features needs to be in memory.

No matrix square root is needed. The trace of (C1 C2)^(1/2) is the sum of the square roots of the
eigenvalues of C1 C2. With any factor F, C1 = F F^T, these are the eigenvalues of F^T C2 F, and that
matrix is symmetric: its eigenvalues are real, whatever rounding does, and fast to find.

Letters: N, M samples, D dimensions of the features, R columns of a factor.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from labkit import UsageError, exercise


@dataclass(frozen=True)
class Gaussian:
    """What the distance needs to know of a set of features; all float64."""

    count: int
    mean: np.ndarray
    """(D,)"""
    scatter: np.ndarray
    """(D, D), the sum of (x - mean)(x - mean)^T over the samples."""

    @property
    def covariance(self) -> np.ndarray:
        """(D, D), unbiased: divided by one less than the count, which must be 2 or more (else
        ValueError).
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs 2 samples or more, and there is {self.count}")
        return self.scatter / (self.count - 1)


def check_features(features: np.ndarray, name: str = "the features") -> None:
    """Raises UsageError unless `features` is a finite (N, D) with N >= 1."""
    if features.ndim != 2 or not features.size:
        raise UsageError(f"{name} have shape {features.shape}, and (N, D) is needed")
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise UsageError(
            f"{name} of {len(bad):,} of {len(features):,} images are not finite numbers (first: "
            f"image {bad[0]}). Look at that image, or compute in fp32: precision=fp32"
        )


def check_count(count: int, dimensions: int, allow_few: bool) -> None:
    """Refuse fewer samples than feature dimensions, unless `allow_few`. Raises UsageError."""
    if count < 2:
        raise UsageError(f"{count} image is no distribution; 2 or more are needed")
    if count <= dimensions and not allow_few:
        raise UsageError(
            f"{count:,} images and {dimensions:,} features: with so few the covariance is "
            "singular, and a Frechet distance mostly measures how few there are, not how good they "
            f"are. Take {dimensions + 1:,} images or more (ten times as many is usual), read KID "
            "instead, or go on all the same with allow_few=true"
        )


def gaussian(features: np.ndarray) -> Gaussian:
    """Count, mean and scatter of features (N, D) of any float type, computed in float64.

    Raises UsageError for features that are not finite.
    """
    check_features(features)
    deviations = features.astype(np.float64)
    mean = deviations.mean(axis=0)
    deviations -= mean
    return Gaussian(len(features), mean, deviations.T @ deviations)


@exercise(minutes=15)
def merge(a: Gaussian, b: Gaussian) -> Gaussian:
    """The Gaussian of two sets together, from those of the sets (Chan et al. 1979, eq. 2.1).

    With d = mean_b - mean_a and n = n_a + n_b, the mean is mean_a + d n_b / n, and the scatter is
    the sum of both scatters plus d d^T n_a n_b / n: what each set deviates from the common mean.
    The arguments are left as they are. Sets of different counts are usual.
    """
    count = a.count + b.count
    difference = b.mean - a.mean
    mean = a.mean + difference * (b.count / count)
    between = np.outer(difference, difference) * (a.count * b.count / count)
    return Gaussian(count, mean, a.scatter + b.scatter + between)


def stream(batches: Iterable[np.ndarray]) -> Gaussian:
    """The Gaussian of features that come in batches (N_i, D); one batch at a time is in memory.

    Raises UsageError when there are none, and for features that are not finite.
    """
    total: Gaussian | None = None
    for batch in batches:
        found = gaussian(batch)
        total = found if total is None else merge(total, found)
    if total is None:
        raise UsageError("there are no features")
    return total


def factor(covariance: np.ndarray) -> np.ndarray:
    """F (D, D) with F F^T = covariance (D, D): Cholesky's, or by eigenvalues if it is singular."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:  # fewer samples than dimensions, or a feature that is constant
        values, vectors = np.linalg.eigh(covariance)
        root: np.ndarray = vectors * np.sqrt(values.clip(min=0))
        return root


@exercise(minutes=20)
def cross_trace(root: np.ndarray, covariance: np.ndarray) -> float:
    """Tr((C1 C2)^(1/2)) from a factor of C1 and from C2.

    C1 C2 and root^T C2 root have the same eigenvalues, apart from zeros, and the second matrix is
    symmetric. The trace is the sum of the square roots of its eigenvalues. Rounding makes some of
    those that should be 0 slightly negative: they count as 0.

    Args:
        root: float64 (D, R), any matrix with root root^T = C1; R may be smaller than D.
        covariance: C2, float64 (D, D), symmetric positive semi-definite, maybe singular.
    Both are left as they are.
    """
    values = np.linalg.eigvalsh(root.T @ covariance @ root)
    return float(np.sqrt(values.clip(min=0)).sum())


@exercise(minutes=10)
def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """d^2 of two Gaussians (Heusel et al. 2017, eq. 6); FID when the features are Inception's.

    |mean_a - mean_b|^2 + Tr(C_a) + Tr(C_b) - 2 Tr((C_a C_b)^(1/2)), where C is `.covariance`. The
    last trace is `cross_trace(factor(C_a), C_b)`. It is the *squared* distance that the field
    reports. Rounding may leave a tiny negative number for equal sets, and it is returned as it is.
    """
    first, second = a.covariance, b.covariance
    means = np.square(a.mean - b.mean).sum()
    traces = np.trace(first) + np.trace(second)
    return float(means + traces - 2 * cross_trace(factor(first), second))


def distance_from(features: np.ndarray, reference: Gaussian) -> float:
    """`frechet_distance(gaussian(features), reference)`, with less work where N < D.

    The centred features, divided by sqrt(N - 1), are themselves a factor of their covariance. So
    with few samples neither that covariance nor its Cholesky factor is needed, and the eigenvalues
    are those of an (N, N) matrix.
    """
    if len(features) > features.shape[1]:
        return frechet_distance(gaussian(features), reference)
    check_features(features)
    if len(features) < 2:
        raise UsageError("1 image is no distribution; 2 or more are needed")
    mean = features.mean(axis=0, dtype=np.float64)
    root = (features - mean).T / np.sqrt(len(features) - 1)  # (D, N)
    covariance = reference.covariance
    traces = np.square(root).sum() + np.trace(covariance)
    return float(
        np.square(mean - reference.mean).sum() + traces - 2 * cross_trace(root, covariance)
    )
