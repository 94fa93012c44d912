"""Rollouts as M sees them: latents in place of frames, in windows of streams."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from generative_models import reparameterise
from world_models.rnn import Sequence
from world_models.rollouts import Rollouts
from world_models.vae import VAE, Autocast, encode_all


class Latents(NamedTuple):
    """N streams of T steps: q(z | x) of each frame, and what else M learns from."""

    mean: Tensor  # (T + 1, N, D)
    log_variance: Tensor  # (T + 1, N, D)
    action: Tensor  # (T, N, 3)
    reward: Tensor  # (T, N)
    terminated: Tensor  # (T, N) bool
    valid: Tensor  # (T, N) bool
    first: Tensor  # (T, N) bool

    def sequence(self, begin: Tensor, stream: Tensor, length: int) -> Sequence:
        """Windows of `length` steps that begin at steps (B,) of streams (B,).

        z is drawn from q(z | x), anew at each call: M must not learn one draw by heart (the paper's
        appendix A.2).
        """
        steps = torch.arange(length + 1, device=begin.device)[:, None] + begin  # (L + 1, B)
        z = reparameterise(self.mean[steps, stream], self.log_variance[steps, stream])
        steps = steps[:-1]
        return Sequence(z, *(column[steps, stream] for column in self[2:]))

    def windows(self, batch: int, length: int, step: int, seed: int) -> Sequence:
        """Random windows, a function of (seed, step) and of PyTorch's generator."""
        rng = np.random.default_rng((seed, step))
        T, N = self.action.shape[:2]
        begin = torch.from_numpy(rng.integers(T - length + 1, size=batch)).to(self.mean.device)
        stream = torch.from_numpy(rng.integers(N, size=batch)).to(self.mean.device)
        return self.sequence(begin, stream, length)

    def whole(self, seed: int) -> Sequence:
        """All streams from end to end, z drawn once from a generator of that seed."""
        noise = torch.randn(self.mean.shape, generator=torch.Generator().manual_seed(seed))
        z = self.mean + (0.5 * self.log_variance).exp() * noise.to(self.mean.device)
        return Sequence(z, *self[2:])

    def starts(self) -> Tensor:
        """Latents of the first frames of episodes, (S, D): where dreams begin."""
        return self.mean[:-1][self.first]


def latents_of(rollouts: Rollouts, mean: Tensor, log_variance: Tensor) -> Latents:
    """Rollouts whose frames are encoded as mean and log-variance, (T + 1, N, D)."""
    columns = (
        rollouts.action, rollouts.reward, rollouts.terminated, rollouts.valid, rollouts.first,
    )  # fmt: skip
    return Latents(
        mean, log_variance, *(torch.from_numpy(column).to(mean.device) for column in columns)
    )


def encode(
    parts: Iterable[Rollouts], vision: VAE, device: torch.device, autocast: Autocast
) -> list[Latents]:
    """Each part of the rollouts as V sees it."""
    return [latents_of(part, *encode_all(vision, part.frame, device, autocast)) for part in parts]
