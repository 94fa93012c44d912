"""Does a model copy its training images?

A copy has a training image right beside it. How near is "right beside"? Held-out real images tell:
an honest model's samples are about as far from the nearest training image as those are (Meehan,
Chaudhuri, Dasgupta 2020). Every other metric here is blind to this: a model that returns its
training images has a nearly perfect Frechet distance.
"""

import math

import numpy as np
from scipy.stats import rankdata

from labkit import exercise

SHARE = 0.01
"""Of the held-out images, this share is nearer to a training image than the limit for a copy."""


@exercise(minutes=15)
def copied_share(samples: np.ndarray, held_out: np.ndarray, share: float = SHARE) -> float:
    """Percentage of samples that are suspiciously near to a training image.

    The limit is the `share` quantile of the held-out images' distances (`np.quantile`); samples
    *at* the limit or below are suspicious. So a model that copies nothing comes out at about
    100 * share, and exact copies, with distance 0, count also when the limit is 0.

    Args:
        samples: distance of each sample to its nearest training image, (N,).
        held_out: the same of held-out real images, (M,).
    Returns:
        0..100.
    """
    limit = np.quantile(held_out, share)
    return float(100 * (samples <= limit).mean())


def copying_z(samples: np.ndarray, held_out: np.ndarray) -> float:
    """Meehan et al.'s statistic C_T over one cell: the Mann-Whitney U of the distances as a
    standard score.

    Below -3 the samples are nearer to the training images than held-out ones are, beyond chance:
    copying. Above 3 they are further away: underfitting.
    """
    n, m = len(samples), len(held_out)
    ranks = rankdata(np.concatenate([samples, held_out]))
    u = ranks[:n].sum() - n * (n + 1) / 2  # pairs in which the sample is further away
    return float((u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))
