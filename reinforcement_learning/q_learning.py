"""Tabular Q-learning: one number for each state and action, moved towards each new target.

Watkins 1989 (thesis), Watkins and Dayan 1992; Sutton and Barto 2018, section 6.5, with ideas from
its chapters 2 (step sizes, exploration) and 3 (returns, the Bellman optimality equation).

    Q(s, a) <- Q(s, a) + alpha [ r + gamma max_a' Q(s', a') - Q(s, a) ]          `q_update`

    python -m reinforcement_learning.train +size=tiny algo=q_learning          CartPole in bins
    python -m reinforcement_learning.train +size=tiny algo=q_learning env=FrozenLake-v1
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from labkit import UsageError, exercise
from reinforcement_learning.envs import Environments, Transition
from reinforcement_learning.model import QTable
from reinforcement_learning.settings import QSettings

RANGES = {"CartPole-v1": [(-2.4, 2.4), (-3.0, 3.0), (-0.21, 0.21), (-3.0, 3.0)]}
"""Ranges that are cut into bins: position, velocity, angle, angular velocity. Values outside go to
the outermost bins."""


@exercise(minutes=10)
def epsilon_greedy(q: np.ndarray, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """Actions (N,) for action values q (N, A): random with probability epsilon, else greedy.

    Each row decides for itself; a random action is uniform over all A. Sutton and Barto 2018,
    section 2.2.
    """
    rows, actions = q.shape
    explore = rng.random(rows) < epsilon
    return np.where(explore, rng.integers(actions, size=rows), q.argmax(axis=-1))


@exercise(minutes=15)
def q_update(q: np.ndarray, step: Transition, lr: float | np.ndarray, gamma: float) -> np.ndarray:
    """Move the table q (S, A), in place, by one step's transitions; returns the TD errors (N,).

    step.obs, step.action, step.reward, step.next_obs are (N,); obs are state numbers. Rows that are
    not `step.valid` change nothing: their error is 0. A terminated step has no future; a truncated
    step has one. Transitions of the same (s, a) all count, from the same old value. Sutton and
    Barto 2018, equation 6.8.
    """
    future = q[step.next_obs].max(axis=-1) * ~step.terminated
    error = (step.reward + gamma * future - q[step.obs, step.action]) * step.valid
    np.add.at(q, (step.obs, step.action), lr * error)
    return error


def discretise(obs: np.ndarray, ranges: list[tuple[float, float]], bins: int) -> np.ndarray:
    """Observation vectors (N, D) -> state numbers (N,) in [0, bins^D), each axis in equal parts."""
    low, high = np.array(ranges).T
    cell = ((obs - low) / (high - low) * bins).astype(np.int64).clip(0, bins - 1)  # (N, D)
    return np.ravel_multi_index(tuple(cell.T), (bins,) * len(ranges))


class QLearning:
    """A table of action values, updated after every step."""

    def __init__(self, settings: QSettings, envs: Environments, gamma: float, seed: int) -> None:
        self.settings, self.gamma = settings, gamma
        self.ranges = RANGES.get(envs.env_id)
        self.first_state = 0
        if isinstance(envs.space, Discrete):
            states, self.first_state = int(envs.space.n), int(envs.space.start)
        elif self.ranges:
            states = settings.bins ** len(self.ranges)
        else:
            known = ", ".join(["FrozenLake-v1", *RANGES])
            raise UsageError(f"env={envs.env_id} has no table for algo=q_learning; known: {known}")
        self.policy = QTable(np.full((states, envs.num_actions), settings.initial))
        self.visits = np.zeros((states, envs.num_actions), np.int64)
        self.rng = np.random.default_rng(seed)

    @property
    def tracked(self) -> dict[str, Any]:
        """What resume must restore."""
        return {"policy": self.policy, "visits": self.visits, "rng": self.rng}

    def state(self, obs: np.ndarray) -> np.ndarray:
        """State numbers (N,), counted from 0, of observations."""
        if self.ranges:
            return discretise(obs, self.ranges, self.settings.bins)
        return obs - self.first_state

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The actions of highest value (N,)."""
        return self.policy.q[self.state(obs)].argmax(axis=-1)

    def epsilon(self, env_steps: int) -> float:
        """Probability of a random action: 1, falling linearly to `epsilon` at half the budget."""
        return max(self.settings.epsilon, 1.0 - 2.0 * env_steps / self.settings.steps)

    def collect(self, envs: Environments) -> Transition:
        """One step in each environment."""
        q = self.policy.q[self.state(envs.obs)]
        step = envs.step(epsilon_greedy(q, self.epsilon(envs.env_steps), self.rng))
        return step._replace(obs=self.state(step.obs), next_obs=self.state(step.next_obs))

    def update(self, step: Transition) -> dict[str, Any]:
        """Update the table; the step size shrinks with the visits to each state and action."""
        np.add.at(self.visits, (step.obs, step.action), step.valid)
        visits = self.visits[step.obs, step.action]
        lr = self.settings.lr / (1 + visits / self.settings.lr_visits)
        error = q_update(self.policy.q, step, lr, self.gamma)
        return {"train/loss": np.square(error).mean()}
