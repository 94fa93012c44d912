"""Controllers in the real environment: see a frame, encode it, act, and let the watcher watch.

Letters: P candidates, E episodes of each, N = P E copies of the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from world_models import controller
from world_models.dream import Features
from world_models.vae import CHUNK, VAE, Autocast


class Policy(Protocol):
    """What acts. One object plays one episode in each copy."""

    def __call__(self, frame: np.ndarray, /) -> np.ndarray:
        """Frames (N, H, W, 3) -> actions (N, 3)."""


class Driver:
    """Controllers (P, n), each in E copies."""

    def __init__(
        self, vision: VAE, features: Features, autocast: Autocast, parameters: Tensor, episodes: int
    ) -> None:
        self.vision, self.features, self.autocast = vision, features, autocast
        self.parameters = parameters
        self.state = features.begin(len(parameters) * episodes)

    @torch.no_grad()
    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Frames (P E, H, W, 3) -> actions (P E, 3); candidate after candidate."""
        z = self.see(frame)
        P = len(self.parameters)
        features = self.features.of(z, self.state).view(P, len(z) // P, -1)
        action = controller.act(self.parameters, features).view(len(z), -1)
        self.state = self.features.after(z, action, self.state)
        return action.cpu().numpy()

    def see(self, frame: np.ndarray) -> Tensor:
        """Frames (N, H, W, 3) -> the means of their latents, (N, D)."""
        device = self.parameters.device
        parts = torch.from_numpy(np.ascontiguousarray(frame)).split(CHUNK)
        with self.autocast():
            return torch.cat([self.vision.encode(part.to(device))[0] for part in parts])


def episode_returns(policy: Policy, env: VectorEnv, seed: int) -> tuple[np.ndarray, int]:
    """Returns (N,) of the first episode of each copy, and how many real steps they took.

    Only the first counts: those that finish first are the short ones (see week 13).
    """
    frame, _ = env.reset(seed=seed)
    returns, running = np.zeros(len(frame)), np.ones(len(frame), bool)
    steps = 0
    while running.any():
        frame, reward, terminated, truncated, _ = env.step(policy(frame))
        steps += int(running.sum())
        returns += reward * running
        running &= ~(terminated | truncated)
    return returns, steps


def repeated_returns(
    make: Callable[[], Policy], env: VectorEnv, rounds: int, seed: int
) -> np.ndarray:
    """Returns of `rounds` episodes in each copy, (rounds N,), each round with a new policy."""
    seeds = np.random.SeedSequence(seed).generate_state(rounds)
    return np.concatenate([episode_returns(make(), env, int(s))[0] for s in seeds])
