"""How good is a policy? Its mean return over whole episodes, played greedily.

Only the first episode of each of the N environments counts. Averaging the episodes that finish
first would favour short ones: on CartPole, the bad ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from reinforcement_learning.envs import Environments

Policy = Callable[[np.ndarray], np.ndarray]
"""Observations (N, *obs) to actions (N,), counted from 0."""


def evaluate(policy: Policy, envs: Environments, seed: int | Sequence[int]) -> np.ndarray:
    """Returns of one episode in each environment, (N,): a function of policy and seed alone."""
    vector = envs.vector
    obs, _ = vector.reset(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
    returns = np.zeros(envs.num_envs)
    running = np.ones(envs.num_envs, bool)
    while running.any():
        obs, reward, terminated, truncated, _ = vector.step(policy(obs) + envs.first_action)
        returns += reward * running
        running &= ~(terminated | truncated)
    return returns


def film(policy: Policy, env_id: str, seed: int) -> tuple[list[np.ndarray], int]:
    """Play one episode; returns its pictures, halved, uint8 (H, W, 3), and how many a second."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # draw without a display
    import gymnasium as gym

    env = gym.make(env_id, render_mode="rgb_array")
    first = int(env.action_space.start)  # type: ignore[attr-defined]  # Discrete
    obs, _ = env.reset(seed=seed)
    fps = int(env.metadata["render_fps"])
    every = max(1, fps // 25)  # no film needs more than 25 a second
    frames, over, t = [], False, 0
    while not over:
        if t % every == 0:
            frames.append(np.asarray(env.render())[::2, ::2])
        obs, _, terminated, truncated, _ = env.step(first + int(policy(np.asarray(obs)[None])[0]))
        over, t = terminated or truncated, t + 1
    frames.append(np.asarray(env.render())[::2, ::2])
    env.close()
    return frames, fps // every
