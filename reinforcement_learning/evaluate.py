"""How good is a policy? Its mean return over whole episodes, played greedily.

Only the first episode of each of the N environments counts. Averaging the episodes that finish
first would favour short ones: on CartPole, the bad ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reinforcement_learning.envs import Environments

Policy = Callable[[np.ndarray], np.ndarray]
"""Observations (N, *obs) to actions (N,), counted from 0."""


def episode_returns(policy: Policy, envs: Environments, seed: int | Sequence[int]) -> np.ndarray:
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
