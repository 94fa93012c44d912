"""Noise schedules: how fast a picture turns into noise (Ho et al. 2020, section 2).

Step t = 0..T-1 multiplies the signal by sqrt(1 - beta_t) and adds noise of variance beta_t. All
that is used later is the product

    alpha_bar_t = prod_{s <= t} (1 - beta_s)
    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,

which must begin near 1 and end near 0: if it stops early, the network is never trained on the pure
noise from which sampling starts. Papers count t from 1; here, as usual in code, alpha_bar[0] is the
value after the first step, and before the first step alpha_bar is 1.

Computed in float64, since a product of a thousand factors loses digits in float32.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from labkit import exercise

ScheduleName = Literal["cosine", "linear"]


def linear_betas(timesteps: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """Evenly spaced variances, float64 (T,) (Ho et al. 2020, section 4).

    The end points were chosen for T = 1000. With few steps signal remains at the end: T = 100 stops
    at alpha_bar = 0.36.
    """
    return torch.linspace(first, last, timesteps, dtype=torch.float64)


@exercise(minutes=15)
def cosine_betas(timesteps: int, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """Variances, float64 (T,), that make alpha_bar fall along a squared cosine, for any T.

    With f(u) = cos^2((u + offset) / (1 + offset) * pi / 2), Nichol & Dhariwal 2021, eq. 17, has
        beta_t = min(1 - f((t + 1) / T) / f(t / T), largest),    t = 0..T-1,
    where `largest` keeps the last step, at which f is 0, from being singular.
    """
    u = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    f = torch.cos((u + offset) / (1 + offset) * math.pi / 2).square()
    return (1 - f[1:] / f[:-1]).clamp(max=largest)


def alpha_bars(name: ScheduleName, timesteps: int) -> Tensor:
    """alpha_bar_t for t = 0..T-1 of a named schedule, float32 (T,)."""
    betas = {"linear": linear_betas, "cosine": cosine_betas}[name](timesteps)
    return (1 - betas).cumprod(0).float()


def strided(timesteps: int, steps: int) -> list[int]:
    """The timesteps visited in sampling, first T-1: every (T / steps)-th, counted from the end.

    This is "trailing" spacing (Lin et al. 2024, Table 2): it begins at the highest noise level.
    Raises ValueError unless 1 <= steps <= timesteps.
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"{steps} sampling steps: choose from 1 to the {timesteps} of training")
    return [round(timesteps * (steps - i) / steps) - 1 for i in range(steps)]
