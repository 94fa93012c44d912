"""Randomised smoothing (Cohen, Rosenfeld, Kolter 2019): a radius that no attack can break.

The smoothed classifier answers with the class that the model gives most often under Gaussian noise.

Letters: B batch, C channels, H height, W width, K classes.
"""

import torch
from torch import Tensor, nn

from labkit import UsageError, exercise


def lower_bound(successes: int, trials: int, alpha: float) -> float:
    """One-sided Clopper-Pearson bound: with confidence 1 - alpha the probability is above it."""
    from scipy.special import betaincinv  # scipy.stats has it too, but takes a second to import

    if not 0 <= successes <= trials or trials < 1:
        raise UsageError(
            f"{successes} of {trials} is no share: 0 <= successes <= trials, 1 or more"
        )
    return float(betaincinv(successes, trials - successes + 1, alpha)) if successes else 0.0


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


def counts(
    model: nn.Module, x: Tensor, deviation: float, samples: int, generator: torch.Generator
) -> Tensor:
    """How often each class is the answer under `samples` draws of noise, int64 (B, K)."""
    with torch.no_grad():
        total = torch.zeros_like(model(x), dtype=torch.int64)
        for _ in range(samples):
            noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            answer = model(x + deviation * noise).argmax(dim=1, keepdim=True)
            total.scatter_add_(1, answer, torch.ones_like(answer))
    return total


def certify(
    model: nn.Module, x: Tensor, y: Tensor, deviation: float, samples: int, alpha: float, seed: int
) -> list[float]:
    """Radius within which each picture is certainly answered rightly; -1 where wrong or abstained.

    The class is chosen from 100 draws of its own: choosing it from the draws that are counted would
    break the confidence 1 - alpha (Cohen et al. 2019, section 3.2.2).
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    guess = counts(model, x, deviation, 100, generator).argmax(dim=1)
    times = counts(model, x, deviation, samples, generator).gather(1, guess[:, None])[:, 0]
    radii = []
    for answer, label, count in zip(guess.tolist(), y.tolist(), times.tolist(), strict=True):
        radius = certified_radius(count, samples, deviation, alpha)
        radii.append(radius if answer == label and radius is not None else -1.0)
    return radii
