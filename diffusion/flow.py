"""Rectified flow (Liu et al. 2023; Lipman et al. 2023): straight lines from noise to pictures.

    x_t = (1 - t) x_0 + t eps,               0 <= t <= 1                     interpolate
    v   = dx_t / dt = eps - x_0              what the network predicts
    L   = E || v - network(x_t, t) ||^2      t = sigmoid(n), n ~ N(m, s^2)   RectifiedFlow.loss
    dx  = network(x, t) dt, from t = 1 to 0  sampling: any ODE solver        euler_step, heun_step
    or remove noise and add fresh noise, as in DDPM                          ancestral_step

Time runs as in DDPM and in Esser et al. 2024: t = 0 is the picture, t = 1 the noise (Liu et al.
count the other way). The straight path has no schedule to tune, and because the paths are almost
straight, ten steps of a second-order solver are enough. Logit-normal t (Esser et al. 2024, section
3.1) puts most training on the middle of the path, where the task is hard; at both ends predicting
the mean is nearly optimal.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from diffusion.ddpm import Denoiser, Trace
from labkit import exercise


def interpolate(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The point at time t (B,) on each straight line from x0 to noise, both (B, C, H, W)."""
    t = t.view(-1, 1, 1, 1)
    return (1 - t) * x0 + t * noise


def logit_normal(count: int, mean: float, deviation: float, device: torch.device) -> Tensor:
    """Times (count,) in (0, 1) whose logit is normal (Esser et al. 2024, eq. 19)."""
    return torch.sigmoid(mean + deviation * torch.randn(count, device=device))


def euler_step(velocity: Denoiser, x: Tensor, t: float, t_next: float) -> Tensor:
    """First order: x + (t_next - t) v(x, t)."""
    return x + (t_next - t) * velocity(x, t)


@exercise(minutes=15)
def heun_step(velocity: Denoiser, x: Tensor, t: float, t_next: float) -> Tensor:
    """Second order: an Euler step first, then a step with the mean of the slopes at both ends.

        x'  = x + (t_next - t) v(x, t)
        out = x + (t_next - t) (v(x, t) + v(x', t_next)) / 2
    Calls `velocity` twice, except when t_next is 0: there Euler's step is taken (Karras et al.
    2022, algorithm 1), since the network was never trained at exactly t = 0. `x` stays as it is,
    and gradients flow through both calls.
    """
    slope = velocity(x, t)
    ahead = x + (t_next - t) * slope
    if t_next == 0:
        return ahead
    return x + (t_next - t) * (slope + velocity(ahead, t_next)) / 2


def ancestral_step(
    velocity: Denoiser, x: Tensor, t: float, t_next: float, noise: Tensor, limit: float = 1.0
) -> Tensor:
    """Predict the picture, then draw x at t_next from the posterior as in DDPM (its eq. 6 and 7).

    A straight line is a Gaussian diffusion like any other, with signal 1 - t and noise t:
        x0  = clip(x - t v(x, t)),        eps = (x - (1 - t) x0) / t
        s^2 = t_next^2 (1 - ((1 - t) t_next / ((1 - t_next) t))^2)       variance that is new
        out = (1 - t_next) x0 + sqrt(t_next^2 - s^2) eps + s noise
    Fresh noise lets later steps correct the errors of earlier ones; an ODE solver carries every
    error of the network to the end. For a small network that matters more than the solver's order.

    Args:
        x, noise: (B, C, H, W).
        t, t_next: 0 <= t_next < t <= 1.
        limit: x0 is clipped to [-limit, limit].
    """
    x0 = (x - t * velocity(x, t)).clamp(-limit, limit)
    eps = (x - (1 - t) * x0) / t
    new = t_next**2 * (1 - ((1 - t) * t_next / ((1 - t_next) * t)) ** 2)
    out: Tensor = (1 - t_next) * x0 + (t_next**2 - new) ** 0.5 * eps + new**0.5 * noise
    return out


class RectifiedFlow:
    """The continuous process, with the same interface as DDPM: `loss` and `sample`."""

    samplers = ("ancestral", "heun", "euler")

    def __init__(self, mean: float = 0.0, deviation: float = 1.0, limit: float = 1.0) -> None:
        """`mean` and `deviation` of the logit of the training times. The ancestral sampler clips
        predicted pictures to [-limit, limit].
        """
        self.mean, self.deviation, self.limit = mean, deviation, limit

    def loss(
        self, model: nn.Module, x0: Tensor, labels: Tensor, rows: slice = slice(None)
    ) -> Tensor:
        """Squared error of the velocity for x0 (B, C, H, W) in [-1, 1], each at a random time.

        Only these `rows` are computed, but the noise is drawn for all, as in DDPM.
        """
        t = logit_normal(len(x0), self.mean, self.deviation, x0.device)[rows]
        noise = torch.randn_like(x0)[rows]
        x0, labels = x0[rows], labels[rows]
        velocity: Tensor = model(interpolate(x0, noise, t), t, labels).float()
        return (velocity - (noise - x0)).square().mean()

    def sample(
        self,
        denoise: Denoiser,
        x: Tensor,
        steps: int,
        sampler: str = "ancestral",
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """From noise x (B, C, H, W) to pictures in `steps` equal steps of time.

        `ancestral` and `euler` call the network `steps` times, `heun` 2 steps - 1 times. `euler`
        and `heun` are deterministic and do not use `generator`. Raises ValueError for another
        sampler, or less than one step.
        """
        if sampler not in self.samplers:
            raise ValueError(f"sampler {sampler!r}: this process has {', '.join(self.samplers)}")
        if steps < 1:
            raise ValueError(f"{steps} sampling steps: choose 1 or more")

        def ancestral(denoise: Denoiser, x: Tensor, t: float, t_next: float) -> Tensor:
            noise = torch.randn(x.shape, generator=generator).to(x.device)
            return ancestral_step(denoise, x, t, t_next, noise, self.limit)

        step: Callable[[Denoiser, Tensor, float, float], Tensor]
        step = {"ancestral": ancestral, "euler": euler_step, "heun": heun_step}[sampler]
        times = [1 - i / steps for i in range(steps)] + [0.0]
        for t, t_next in pairwise(times):
            if trace:
                trace(x, x - t * denoise(x, t))  # follow the slope here all the way to t = 0
            x = step(denoise, x, t, t_next)
        return x
