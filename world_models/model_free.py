"""PPO of week 13 on the mini track, for comparison: no model, as many real steps.

PPO is given V's latents (of this frame and of the one before, since one frame tells no speed),
and CarRacing's five discrete actions: week 13's networks take vectors and choose one of n.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector.utils import batch_space

from reinforcement_learning import PPO, Environments, PPOSettings, episode_returns
from world_models.envs import TEST_TRACKS, TRAIN_TRACKS
from world_models.track import ENV_ID, TIME_LIMIT, MiniTrackVectorEnv
from world_models.vae import VAE, Autocast, encode_all

CHOICES = np.array(
    [[0.0, 0.5, 0.0], [-0.6, 0.5, 0.0], [0.6, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.8]],
    np.float32,
)
"""Straight on, left, right, full gas, brake, each as (steer, gas, brake)."""
HIDDEN = 64
"""Units in each of the two hidden layers of PPO's networks."""


class LatentTrack(MiniTrackVectorEnv):
    """The mini track, seen through V and driven by five actions."""

    def __init__(self, vision: VAE, autocast: Autocast, num_envs: int, tracks: Any) -> None:
        super().__init__(num_envs, TIME_LIMIT, tracks)
        self.vision, self.autocast = vision, autocast
        self.single_observation_space = Box(-np.inf, np.inf, (2 * vision.latent,), np.float32)
        self.single_action_space = Discrete(len(CHOICES))  # type: ignore[assignment]
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.last = np.zeros((num_envs, vision.latent), np.float32)  # latents of the frame before

    def reset(self, **words: Any) -> tuple[np.ndarray, dict[str, Any]]:
        frame, info = super().reset(**words)
        self.last = self._see(frame)
        return np.concatenate([self.last, self.last], axis=1), info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:  # type: ignore[override]
        restarted = self.over.copy()
        frame, *rest = super().step(CHOICES[actions])
        z = self._see(frame)
        before = np.where(restarted[:, None], z, self.last)
        self.last = z
        return np.concatenate([z, before], axis=1), *rest  # type: ignore[arg-type]

    def _see(self, frame: np.ndarray) -> np.ndarray:
        device = next(self.vision.parameters()).device
        return encode_all(self.vision, frame[None], device, self.autocast)[0][0].cpu().numpy()


class LatentEnvironments(Environments):
    """Copies of LatentTrack for week 13's PPO, with its books and its exact state."""

    def __init__(self, vision: VAE, autocast: Autocast, num_envs: int, tracks: Any) -> None:
        self.vector = LatentTrack(vision, autocast, num_envs, tracks)
        self.env_id, self.num_envs = ENV_ID, num_envs
        self.num_actions, self.first_action = len(CHOICES), 0
        self.space = self.vector.single_observation_space
        self.env_steps = self.episodes = 0
        self.finished: list[float] = []
        self.reset()


class ModelFree:
    """Week 13's PPO and its environments."""

    def __init__(
        self,
        vision: VAE,
        autocast: Autocast,
        settings: PPOSettings,
        gamma: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.vision, self.autocast, self.seed = vision, autocast, seed
        self.envs = LatentEnvironments(vision, autocast, settings.envs, TRAIN_TRACKS)
        self.agent = PPO(settings, self.envs, gamma, HIDDEN, device)
        self.tracked = {"envs": self.envs, **self.agent.tracked}

    @property
    def real_steps(self) -> int:
        """Steps of PPO's own, beside the rollouts that V has learned from."""
        return self.envs.env_steps

    def update(self, round_: int) -> dict[str, Any]:
        """One rollout, and what PPO learns from it."""
        if round_ == 0:
            self.envs.reset(seed=self.seed)  # V sees differently than when this was made
        return self.agent.update(self.agent.collect(self.envs))

    def returns(self, copies: int, rounds: int, test: bool, seed: int) -> np.ndarray:
        """Returns of `rounds` greedy episodes in each of `copies` copies: (rounds copies,)."""
        tracks = TEST_TRACKS if test else TRAIN_TRACKS
        envs = LatentEnvironments(self.vision, self.autocast, copies, tracks)
        return np.concatenate(
            [episode_returns(self.agent.act, envs, (seed, i)) for i in range(rounds)]
        )
