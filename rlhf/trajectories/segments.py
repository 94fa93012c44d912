"""Environments that are paid by another reward, and segments of what happened in them.

Letters: T steps, N environments, M pairs, k steps of a segment, D numbers of an observation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from reinforcement_learning import Environments, Transition
from rlhf.trajectories.behaviour import Behaviour
from rlhf.trajectories.reward import RewardEnsemble

Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Observations (N, D) and actions (N,) to rewards (N,)."""


class History(NamedTuple):
    """T steps of N environments."""

    obs: np.ndarray  # (T, N, D)
    action: np.ndarray  # (T, N)
    valid: np.ndarray  # bool (T, N)
    done: np.ndarray  # bool (T, N): the episode ended with this step


class PaidEnvironments(Environments):
    """Week 13's environments, whose reward is replaced; it keeps what happened."""

    def __init__(self, env_id: str, num_envs: int, reward: Reward | None) -> None:
        """`reward` None leaves the environment's own."""
        self.paid: Reward | None = reward
        self.steps: list[Transition] = []
        super().__init__(env_id, num_envs)

    def step(self, action: np.ndarray, wanted: np.ndarray | bool = True) -> Transition:
        """A step, paid by `reward`."""
        found = super().step(action, wanted)
        self.steps.append(found)
        if self.paid is None:
            return found
        return found._replace(reward=self.paid(found.obs, found.action))

    def take_history(self) -> History:
        """What happened since the last call."""
        rows = Transition(*(np.stack(column) for column in zip(*self.steps, strict=True)))
        self.steps = []
        return History(rows.obs, rows.action, rows.valid, rows.terminated | rows.truncated)


def segment_starts(history: History, length: int) -> np.ndarray:
    """Where segments of `length` steps may begin, (S, 2) as (step, environment): all their steps
    are valid, and none but the last ends an episode.
    """
    good = history.valid.copy()
    inside = good & ~history.done
    steps = len(good) - length + 1
    if steps < 1:
        return np.empty((0, 2), np.int64)
    whole = good[length - 1 :].copy()
    for offset in range(length - 1):
        whole &= inside[offset : offset + steps]
    return np.argwhere(whole)


def draw_pairs(
    history: History, length: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`count` pairs of segments drawn at random: observations (M, 2, k, D), actions (M, 2, k).

    Fewer than two possible segments give no pairs.
    """
    starts = segment_starts(history, length)
    if len(starts) < 2:
        count = 0
    chosen = starts[rng.integers(max(1, len(starts)), size=(count, 2))] if count else starts[:0]
    chosen = chosen.reshape(count, 2, 2)
    steps = chosen[..., :1] + np.arange(length)  # (M, 2, k)
    envs = chosen[..., 1:]
    return history.obs[steps, envs], history.action[steps, envs]


@torch.no_grad()
def most_disputed(
    model: RewardEnsemble, obs: np.ndarray, action: np.ndarray, count: int
) -> np.ndarray:
    """Indices of the `count` pairs about which the members disagree most (section 2.2.4).

    Disagreement is the variance over the members of the predicted probability.
    """
    if not len(obs):
        return np.empty(0, np.int64)
    device = model.low.device
    total = model(torch.from_numpy(obs).to(device), torch.from_numpy(action).to(device)).sum(dim=3)
    variance = (total[..., 0] - total[..., 1]).sigmoid().var(dim=0, correction=0)  # (M,)
    return variance.argsort(descending=True)[:count].cpu().numpy()


def play(
    act: Callable[[np.ndarray], np.ndarray], envs: Environments, seed: int, steps: int
) -> History:
    """`steps` steps of a policy in all environments, restarted first."""
    envs.reset(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
    rows = [envs.step(act(envs.obs)) for _ in range(steps)]
    found = Transition(*(np.stack(column) for column in zip(*rows, strict=True)))
    return History(found.obs, found.action, found.valid, found.terminated | found.truncated)


def first_episodes(history: History, behaviour: Behaviour) -> tuple[np.ndarray, np.ndarray]:
    """Hidden return and length of the first episode of each environment, (N,) each."""
    before = np.cumsum(history.done, axis=0) - history.done == 0  # no end before this step
    counted = before & history.valid
    return (behaviour(history.obs) * counted).sum(axis=0), counted.sum(axis=0)
