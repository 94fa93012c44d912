"""What a distance from finitely many samples is worth: its bias, and its interval.

The Frechet distance is biased upwards: with N samples its mean is that of infinitely many plus
about c / N, and c depends on the model (Binkowski et al. 2018, section 4; Chong & Forsyth 2020).
So distances at different N cannot be compared, and even at equal N the order of two models can be
wrong. FID-infinity is what remains at 1 / N = 0.
"""

from collections.abc import Callable, Sequence

import numpy as np

from evaluation.frechet import distance_from, gaussian
from labkit import exercise


@exercise(minutes=15)
def extrapolate(counts: Sequence[float], values: Sequence[float]) -> float:
    """The distance at infinitely many samples, from values at several counts (Chong & Forsyth 2020,
    section 3.1).

    Fit value = a + b / count by least squares over all pairs (a count may occur several times) and
    return a. At least two different counts are needed; otherwise raises ValueError that says
    `counts`.
    """
    if len(set(counts)) < 2:
        raise ValueError(f"two different counts are needed to extrapolate, not {list(counts)}")
    _, intercept = np.polyfit(1 / np.array(counts), values, deg=1)
    return float(intercept)


def distances_at(
    real: np.ndarray, fake: np.ndarray, counts: Sequence[int], draws: int, seed: int = 0
) -> tuple[list[int], list[float]]:
    """Frechet distances of random subsets of both sets, equally large: `draws` for each count.

    Real and fake samples shrink together, so extrapolating removes the bias of both, and two sets
    of real images come out at 0.
    """
    rng = np.random.default_rng(seed)
    at, values = [], []
    for count in counts:
        for _ in range(draws):
            some_real = real[rng.choice(len(real), count, replace=False)]
            some_fake = fake[rng.choice(len(fake), count, replace=False)]
            at.append(count)
            values.append(distance_from(some_fake, gaussian(some_real)))
    return at, values


@exercise(minutes=20)
def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    samples: np.ndarray,
    resamples: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """A bootstrap interval for the mean of `statistic` over sets as large as `samples` (after
    Davison & Hinkley 1997, eq. 5.6).

    Draw `resamples` times as many rows as `samples` has, *with* replacement, and compute the
    statistic of each draw. With t the statistic of the samples themselves, m the mean of the draws,
    and q_low, q_high their (1 - level) / 2 and (1 + level) / 2 quantiles (`np.quantile`), the
    interval is (t - (q_high - m), t - (q_low - m)): how far draws fall from their own mean, taken
    the other way round from t. Their mean and not t is subtracted, because a draw repeats samples:
    a Frechet distance is biased more in a draw than in the original.

    Args:
        statistic: takes an array like `samples`, returns a number.
        samples: (N, ...).
        level: between 0 and 1.
        seed: the same seed gives the same interval; the global generator is not touched.
    """
    rng = np.random.default_rng(seed)
    n = len(samples)
    draws = [statistic(samples[rng.integers(n, size=n)]) for _ in range(resamples)]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    value, centre = statistic(samples), np.mean(draws)
    return float(value - (high - centre)), float(value - (low - centre))
