"""All metrics of one set of samples against real ones, from their features."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import sqrtm

from evaluation.bias import bootstrap_interval, distances_at, extrapolate
from evaluation.extractors import Seen
from evaluation.frechet import check_features, distance_from, gaussian
from evaluation.inception import inception_score
from evaluation.kernel import kid
from evaluation.manifold import density_coverage, nearest, precision_recall
from evaluation.memorisation import copied_share, copying_z
from evaluation.settings import Measures
from evaluation.two_sample import two_sample_test

SUBSETS = (0.25, 0.35, 0.5, 0.7, 1.0)
"""Sizes of the subsets from which a distance is extrapolated, as shares of the samples."""


DRAWS = 5
"""Draws of real training images over which their scores are averaged: one varies by a fifth."""


class Measured(NamedTuple):
    """What was found out about one set of samples."""

    scores: dict[str, float]
    """Metrics by name, those that were asked for."""
    curve: tuple[list[int], list[float]]
    """Counts and distances from which FID-infinity was extrapolated; empty without it."""
    nearest: tuple[np.ndarray, np.ndarray] | None
    """Squared distance of each sample to its nearest training image, and which image that is."""


def measure(
    real: np.ndarray,
    fake: Seen,
    how: Measures,
    seed: int = 0,
    train: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
) -> Measured:
    """All metrics that `how` asks for. `real` (N, D) and `fake.features` (M, D) are float64.

    Args:
        train: features of the training images, for `memorisation`, which is left out without them.
        held_out: squared distance of each held-out real image to its nearest training image.
    Without class probabilities the Inception score is left out. Raises UsageError for features that
    are not finite.
    """
    features, asked = fake.features, how.metrics
    check_features(real, "the features of the real images")
    check_features(features, "the features of the samples")
    scores: dict[str, float] = {}
    curve: tuple[list[int], list[float]] = ([], [])
    closest = None
    if "fid" in asked:
        reference = gaussian(real)
        scores["fid"] = distance_from(features, reference)
        scores["fid_low"], scores["fid_high"] = bootstrap_interval(
            lambda part: distance_from(part, reference), features, how.resamples, seed=seed
        )
    if "fid_infinity" in asked:
        curve = distances_at(
            real, features, counts_of(min(len(real), len(features))), how.draws, seed
        )
        scores["fid_infinity"] = extrapolate(*curve)
    if "kid" in asked:
        found = kid(real, features, how.subset, how.subsets, seed)
        scores["kid"], scores["kid_deviation"] = found
    if "precision_recall" in asked:
        scores["precision"], scores["recall"] = precision_recall(real, features, how.k_precision)
    if "density_coverage" in asked:
        scores["density"], scores["coverage"] = density_coverage(real, features, how.k_coverage)
    if "inception_score" in asked and fake.probabilities is not None:
        scores["inception_score"] = inception_score(fake.probabilities)
    if "two_sample" in asked:
        scores["two_sample"], scores["two_sample_p"] = two_sample_test(real, features, seed)
    if "memorisation" in asked and train is not None and held_out is not None:
        closest = nearest(features, train)
        scores["copied"] = copied_share(closest[0], held_out)
        scores["copying_z"] = copying_z(closest[0], held_out)
    return Measured(scores, curve, closest)


def real_against_real(
    real: np.ndarray, train: np.ndarray, how: Measures, seed: int = 0
) -> dict[str, float]:
    """What a perfect model would get: the distance metrics of as many training images as there are
    in `real` (N, D), the mean of DRAWS draws from `train` (M, D).
    """
    asked = [name for name in how.metrics if name in ("fid", "fid_infinity", "kid")]
    rng = np.random.default_rng(seed)
    reference, found = gaussian(real), []
    for _ in range(DRAWS):
        drawn = train[rng.choice(len(train), len(real), replace=len(train) < len(real))]
        scores = {}
        if "fid" in asked:
            scores["fid"] = distance_from(drawn, reference)
        if "fid_infinity" in asked:
            scores["fid_infinity"] = extrapolate(
                *distances_at(real, drawn, counts_of(len(real)), how.draws, seed)
            )
        if "kid" in asked:
            scores["kid"], _ = kid(real, drawn, how.subset, how.subsets, seed)
        found.append(scores)
    return {name: float(np.mean([scores[name] for scores in found])) for name in found[0]}


def counts_of(count: int) -> list[int]:
    """Sizes of the subsets of `count` samples, smallest first, each once and two or more."""
    return sorted({max(2, round(share * count)) for share in SUBSETS})


def frechet_error(real: np.ndarray, fake: np.ndarray) -> float:
    """Relative difference of our distance from the textbook's, with `scipy.linalg.sqrtm` of the
    product of the covariances.
    """
    root = sqrtm(np.cov(real, rowvar=False) @ np.cov(fake, rowvar=False))
    traces = real.var(axis=0, ddof=1).sum() + fake.var(axis=0, ddof=1).sum()
    means = np.square(real.mean(axis=0) - fake.mean(axis=0)).sum()
    textbook = means + traces - 2 * np.trace(root).real
    ours = distance_from(fake, gaussian(real))
    return float(abs(ours - textbook) / textbook)
