"""Randomised smoothing (Cohen, Rosenfeld, Kolter 2019): a radius that no attack can break.

The smoothed classifier answers with the class that the model gives most often under Gaussian noise.
"""

from labkit import UsageError, exercise


def lower_bound(successes: int, trials: int, alpha: float) -> float:
    """One-sided Clopper-Pearson bound: with confidence 1 - alpha the probability is above it."""
    from scipy.stats import beta

    if not 0 <= successes <= trials or trials < 1:
        raise UsageError(
            f"{successes} of {trials} is no share: 0 <= successes <= trials, 1 or more"
        )
    return float(beta.ppf(alpha, successes, trials - successes + 1)) if successes else 0.0


@exercise(minutes=15)
def certified_radius(successes: int, trials: int, deviation: float, alpha: float) -> float | None:
    """L2 radius in pixel units within which the smoothed answer cannot change, or None: abstain.

        radius = deviation * Phi^-1(p),   p = lower_bound(successes, trials, alpha)

    (Cohen et al. 2019, section 3.2.2: Certify.) Phi^-1 is the quantile of the standard normal
    distribution. The answer is None where p is 1/2 or less.
    """
    from statistics import NormalDist

    p = lower_bound(successes, trials, alpha)
    return deviation * NormalDist().inv_cdf(p) if p > 0.5 else None
