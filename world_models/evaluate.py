"""How good are V, M and C? All of it on streams, circuits and seeds that none of them saw."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from labkit.learning.modes import evaluating
from world_models import mdn
from world_models.latents import Latents
from world_models.play import repeated_returns
from world_models.rnn import MDNRNN, Sequence, losses
from world_models.rollouts import SmoothPolicy
from world_models.settings import Exploration
from world_models.vae import CHUNK, VAE

PICTURES = 4096
"""Frames, at most, on which V is measured."""
EARLY = 3
"""Steps of an episode that count as its beginning."""


class Gaussians(NamedTuple):
    """A Gaussian for each latent, whose mean is linear in (z, a, 1)."""

    weight: Tensor  # (D + 4, D)
    deviation: Tensor  # (D,)

    def nll(self, data: Sequence) -> Tensor:
        """Nats of a frame, a mean over the valid steps."""
        error = data.z[1:] - _inputs(data) @ self.weight  # (T, N, D)
        scaled = error / self.deviation
        each = 0.5 * scaled.square() + self.deviation.log() + 0.5 * math.log(2 * math.pi)
        return each.sum(dim=-1)[data.valid].mean()


def _inputs(data: Sequence) -> Tensor:
    """(z, a, 1), (T, N, D + 4)."""
    ones = torch.ones_like(data.action[..., :1])
    return torch.cat([data.z[:-1], data.action, ones], dim=-1)


def persistence(data: Sequence) -> Gaussians:
    """The next latent is the last one; the variance is fitted to the valid steps of `data`."""
    D = data.z.shape[-1]
    weight = torch.eye(D + 4, D, device=data.z.device)
    return Gaussians(weight, _deviation(data, weight))


def linear(data: Sequence) -> Gaussians:
    """Least squares on (z, a, 1), a linear autoregression with the fitted variance."""
    x, y = _inputs(data)[data.valid].double(), data.z[1:][data.valid].double()
    ridge = 1e-6 * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(x.T @ x + ridge, x.T @ y).float()
    return Gaussians(weight, _deviation(data, weight))


def _deviation(data: Sequence, weight: Tensor) -> Tensor:
    error = (data.z[1:] - _inputs(data) @ weight)[data.valid]
    return error.square().mean(dim=0).sqrt().clamp(min=1e-6)


def model_metrics(model: MDNRNN, train: Latents, valid: Latents, test: Latents) -> dict[str, float]:
    """Negative log-likelihood of the next latent in nats a frame, M's and that of both baselines,
    which were fitted to `train`; `valid_nll` is the one to choose settings by.

    `first_nll` is M's over the first steps of episodes other than a stream's first one.
    """
    known, chosen, unseen = train.whole(0), valid.whole(1), test.whole(2)
    with evaluating(model):
        prediction = model.unroll(unseen)
        ours = losses(prediction, unseen)
        valid_nll = losses(model.unroll(chosen), chosen).nll
    nll = -mdn.log_prob(prediction.latent, unseen.z[1:]).sum(dim=-1)
    begins = early(unseen)
    stays, fitted = persistence(known).nll(unseen).item(), linear(known).nll(unseen).item()
    metrics = {
        "model_nll": ours.nll.item(),
        "persistence_nll": stays,
        "linear_nll": fitted,
        "nll_gain": min(stays, fitted) - ours.nll.item(),
        "valid_nll": valid_nll.item(),
        "reward_error": 10 * math.sqrt(ours.reward.item()),
        "end_loss": ours.end.item(),
    }
    if begins.any():
        metrics["first_nll"] = nll[begins].mean().item()
    return metrics


def pixel_error(vision: VAE, frames: np.ndarray, device: torch.device) -> float:
    """Root of the mean squared error of reconstructions of frames uint8 (T, N, H, W, 3), from the
    means of their latents, in grey levels from 0 to 255.
    """
    flat = frames.reshape(-1, *frames.shape[2:])[:PICTURES]
    with evaluating(vision):
        z = torch.cat([vision.encode(x.to(device))[0] for x in torch.from_numpy(flat).split(CHUNK)])
    error = vision.pictures(z).astype(np.float64) - flat
    return float(np.sqrt((error**2).mean()))


def early(data: Sequence) -> Tensor:
    """The first EARLY steps of each episode that follows another in its stream, (T, N) bool."""
    later = data.first.clone()
    later[0] = False
    begins = torch.stack([later.roll(i, dims=0) for i in range(EARLY)])
    for i in range(1, EARLY):
        begins[i, :i] = False  # what rolled round
    return begins.any(dim=0) & data.valid


def random_return(env: VectorEnv, exploration: Exploration, rounds: int) -> float:
    """Mean return of the policy that collected the rollouts; the same one for runs of any seed."""
    policies = (SmoothPolicy(exploration, env.num_envs, seed) for seed in itertools.count(1))
    return float(repeated_returns(lambda: next(policies), env, rounds, seed=0).mean())
