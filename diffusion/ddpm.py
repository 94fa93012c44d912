"""Denoising diffusion (Ho et al. 2020): noising, what the network predicts, the step back.

    q(x_t | x_0)       = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)    eq. 4    q_sample
    L_simple           = E || target - network(x_t, t) ||^2               eq. 14   DDPM.loss
    q(x_s | x_t, x_0)  = N(mean, variance), s < t                         eq. 6-7  posterior

The network may predict the noise eps, the picture x0, or v = sqrt(alpha_bar) eps - sqrt(1 -
alpha_bar) x0 (Salimans & Ho 2022). Given x_t, each determines the other two; they differ in how the
loss weighs the noise levels, and in where an error is amplified: x0 from eps divides by
sqrt(alpha_bar), which is near 0 in pure noise.

Shapes: pictures (B, C, H, W) in [-1, 1]; alpha_bar a tensor that broadcasts against them: one
number () or one for each picture (B, 1, 1, 1). No function changes its arguments, and results have
the type of the pictures. Gradients flow through pictures; alpha_bar is a constant.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from diffusion.schedule import ScheduleName, alpha_bars, strided
from labkit import exercise

Prediction = Literal["eps", "v", "x0"]
Denoiser = Callable[[Tensor, float], Tensor]
"""(noisy pictures, time in [0, 1]) -> prediction; labels and guidance are already inside."""
Trace = Callable[[Tensor, Tensor], None]
"""Called with (x_t, the picture x0 predicted from it) at every sampling step."""


@exercise(minutes=10)
def q_sample(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t straight from x_0, eq. 4: sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise."""
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


def target(prediction: Prediction, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The network's target for x_t = q_sample(x0, noise, alpha_bar)."""
    if prediction == "eps":
        return noise
    if prediction == "x0":
        return x0
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0


@exercise(minutes=20)
def predicted_x0(prediction: Prediction, output: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
    """The clean picture implied by the network's `output` at x_t.

    "eps": solve eq. 4 for x0. "x0": the output itself. "v": sqrt(alpha_bar) x_t - sqrt(1 -
    alpha_bar) v (Salimans & Ho 2022, appendix D): (x_t, v) is (x0, eps) rotated by an angle with
    cosine sqrt(alpha_bar), and this rotates back.
    """
    if prediction == "eps":
        return (x_t - (1 - alpha_bar).sqrt() * output) / alpha_bar.sqrt()
    if prediction == "x0":
        return output
    return alpha_bar.sqrt() * x_t - (1 - alpha_bar).sqrt() * output


@exercise(minutes=20)
def posterior(
    x0: Tensor, x_t: Tensor, alpha_bar: Tensor, alpha_bar_before: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_s | x_t, x_0), one step nearer to the picture (eq. 6 and 7).

    With alpha = alpha_bar / alpha_bar_before, the share of signal that this step kept, and
    beta = 1 - alpha:
        mean     = (sqrt(alpha_bar_before) beta x0 + sqrt(alpha) (1 - alpha_bar_before) x_t)
                   / (1 - alpha_bar)
        variance = beta (1 - alpha_bar_before) / (1 - alpha_bar).
    The paper's step goes from t to t - 1, but the same formula can skip steps. At the last step
    alpha_bar_before is 1, the mean is x0 and the variance 0.

    Args:
        x0, x_t: (B, C, H, W).
        alpha_bar, alpha_bar_before: at t, and at the step before it (nearer to the picture).
    """
    alpha = alpha_bar / alpha_bar_before
    beta = 1 - alpha
    mean = alpha_bar_before.sqrt() * beta * x0 + alpha.sqrt() * (1 - alpha_bar_before) * x_t
    return mean / (1 - alpha_bar), beta * (1 - alpha_bar_before) / (1 - alpha_bar)


@exercise(minutes=25)
def ddim_step(
    x0: Tensor, x_t: Tensor, alpha_bar: Tensor, alpha_bar_before: Tensor, eta: float, noise: Tensor
) -> Tensor:
    """One step of DDIM (Song et al. 2021, eq. 12 and 16): x_s from x_t and the guessed picture x0.

        sigma^2 = eta^2 (1 - alpha_bar_before) / (1 - alpha_bar) (1 - alpha_bar / alpha_bar_before)
        x_s = sqrt(alpha_bar_before) x0 + sqrt(1 - alpha_bar_before - sigma^2) eps + sigma noise,
    where eps is the noise that x0 leaves in x_t by eq. 4 of Ho et al. (found from x0, so that a
    clipped x0 and eps stay consistent). eta = 0 is deterministic; eta = 1 is the ancestral step.
    Where rounding makes the number under the second root negative, it counts as 0.

    Args:
        x0, x_t, noise: (B, C, H, W).
        alpha_bar, alpha_bar_before: at t, and at the step before it (nearer to the picture).
    """
    eps = (x_t - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()
    variance = (1 - alpha_bar_before) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_before)
    sigma = eta * variance.sqrt()
    direction = (1 - alpha_bar_before - sigma.square()).clamp(min=0).sqrt()
    return alpha_bar_before.sqrt() * x0 + direction * eps + sigma * noise


class DDPM:
    """The discrete process: T noise levels, a loss over them, samplers that reverse it."""

    samplers = ("ancestral", "ddim")

    def __init__(
        self,
        prediction: Prediction = "eps",
        schedule: ScheduleName = "cosine",
        timesteps: int = 1000,
        limit: float = 1.0,
    ) -> None:
        """In sampling, predicted pictures are clipped to [-limit, limit]: 1 for pixels, as in the
        paper; infinity clips nothing.
        """
        self.prediction, self.timesteps, self.limit = prediction, timesteps, limit
        self.alpha_bar = alpha_bars(schedule, timesteps)

    def loss(
        self, model: nn.Module, x0: Tensor, labels: Tensor, rows: slice = slice(None)
    ) -> Tensor:
        """L_simple (eq. 14) of x0 (B, C, H, W) in [-1, 1], each at its own random noise level.

        Only these `rows` are computed, but the noise is drawn for all: so several processes train
        together on what one would.
        """
        t = torch.randint(self.timesteps, (len(x0),), device=x0.device)[rows]
        noise = torch.randn_like(x0)[rows]
        x0, labels = x0[rows], labels[rows]
        alpha_bar = self.alpha_bar.to(x0.device)[t].view(-1, 1, 1, 1)
        output: Tensor = model(q_sample(x0, noise, alpha_bar), t / self.timesteps, labels).float()
        return (output - target(self.prediction, x0, noise, alpha_bar)).square().mean()

    def guess(self, denoise: Denoiser, x_t: Tensor, t: int) -> Tensor:
        """The picture x0 that the network predicts from x_t, clipped to the limit."""
        output = denoise(x_t, t / self.timesteps)
        x0 = predicted_x0(self.prediction, output, x_t, self.alpha_bar[t])
        return x0.clamp(-self.limit, self.limit)

    def sample(
        self,
        denoise: Denoiser,
        x: Tensor,
        steps: int,
        sampler: str = "ancestral",
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """From pure noise x (B, C, H, W) to pictures, in `steps` calls of `denoise`.

        `ancestral` draws from the posterior at every step (Ho et al., algorithm 2; on a subset of
        the timesteps when steps < T), `ddim` follows the deterministic path. Raises ValueError for
        another sampler, or more steps than there are timesteps.
        """
        if sampler not in self.samplers:
            raise ValueError(f"sampler {sampler!r}: this process has {', '.join(self.samplers)}")
        visited = strided(self.timesteps, steps)
        before = [*(self.alpha_bar[t] for t in visited[1:]), torch.ones(())]
        for t, alpha_bar_before in zip(visited, before, strict=True):
            x0 = self.guess(denoise, x, t)
            if trace:
                trace(x, x0)
            if sampler == "ddim":
                x = ddim_step(x0, x, self.alpha_bar[t], alpha_bar_before, 0.0, torch.zeros_like(x))
            else:
                mean, variance = posterior(x0, x, self.alpha_bar[t], alpha_bar_before)
                noise = torch.randn(x.shape, generator=generator).to(x.device)
                x = mean + variance.sqrt() * noise
        return x
