"""Mixture density output: a mixture of K Gaussians for each number that is predicted.

Bishop 1994, Mixture Density Networks; Ha & Schmidhuber 2018, appendix A.2; Graves 2013,
arXiv:1308.0850, section 4.

    p(x) = sum_k pi_k N(x; mu_k, sigma_k^2),   pi = softmax(logits)
    at temperature tau:   pi = softmax(logits / tau),   sigma_k^2 -> tau sigma_k^2

Letters: ... any leading axes, D numbers to predict, K components.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from labkit import exercise


class Mixture(NamedTuple):
    """Parameters of D mixtures of K Gaussians each."""

    logits: Tensor  # (..., D, K)
    mean: Tensor  # (..., D, K)
    log_deviation: Tensor  # (..., D, K)


@exercise(minutes=20)
def log_prob(mixture: Mixture, x: Tensor) -> Tensor:
    """log p(x) of each of D numbers under its own mixture, in nats.

    Finite, with finite gradients, for numbers a thousand deviations away from every component,
    where each component's density is 0 in floating point: the sum over the components is taken by
    log-sum-exp. The logits need not be normalised.

    Args:
        mixture: `logits`, `mean` and `log_deviation` (log of sigma), each (..., D, K).
        x: (..., D), in the same floating type. No argument is changed.
    Returns:
        (..., D), in that type; nothing is summed over D.
    """
    scaled = (x.unsqueeze(-1) - mixture.mean) * (-mixture.log_deviation).exp()
    density = -0.5 * scaled.square() - mixture.log_deviation - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(mixture.logits.log_softmax(dim=-1) + density, dim=-1)


@exercise(minutes=20)
def sample(mixture: Mixture, temperature: float, uniform: Tensor, normal: Tensor) -> Tensor:
    """Draw each of D numbers from its mixture at a temperature, with the given random numbers.

    The component is k where the cumulative sum of pi_0 ... pi_k is the first one above `uniform`
    (the last component where rounding leaves none), pi = softmax(logits / temperature). Its
    deviation is multiplied by sqrt(temperature), and the draw is mean_k + deviation_k normal. So
    equal random numbers give equal draws: CMA-ES compares controllers in the same dreams.

    Args:
        mixture: (..., D, K) each.
        temperature: above 0; 1 draws from p.
        uniform: (..., D), in [0, 1).
        normal: (..., D), from N(0, 1). No argument is changed.
    Returns:
        (..., D), in the type of the mixture.
    """
    share = (mixture.logits / temperature).softmax(dim=-1).cumsum(dim=-1)
    passed = (share <= uniform.unsqueeze(-1)).sum(dim=-1, keepdim=True)
    chosen = passed.clamp(max=share.shape[-1] - 1)  # (..., D, 1)
    mean = mixture.mean.gather(-1, chosen).squeeze(-1)
    deviation = mixture.log_deviation.gather(-1, chosen).squeeze(-1).exp()
    return mean + math.sqrt(temperature) * deviation * normal
