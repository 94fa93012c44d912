"""Whether the hidden behaviour was learned, and whether the learned reward agrees with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reinforcement_learning import Environments
from rlhf.trajectories.behaviour import Behaviour
from rlhf.trajectories.reward import RewardEnsemble
from rlhf.trajectories.segments import History, first_episodes, play, segment_starts

EPISODE = 500
"""Steps after which CartPole's episodes are cut."""
SEGMENTS = 2000
"""Held-out segments that are compared."""

Act = Callable[[np.ndarray], np.ndarray]


class Agreement(NamedTuple):
    """Sums of segments of held-out play, by the hidden reward and by the learned one."""

    true: np.ndarray  # (S,)
    learned: np.ndarray  # (S,)

    @property
    def rank_correlation(self) -> float:
        """Spearman's, from -1 to 1; 0 when either does not vary."""
        from scipy.stats import spearmanr

        if np.ptp(self.true) == 0 or np.ptp(self.learned) == 0:
            return 0.0
        return float(spearmanr(self.true, self.learned).statistic)

    @property
    def accuracy(self) -> float:
        """Share of pairs, the first segment with the second and so on, that both order alike."""
        half = len(self.true) // 2
        gaps = [x[:half] - x[half : 2 * half] for x in (self.true, self.learned)]
        decided = np.abs(gaps[0]) > 1e-6
        return float((np.sign(gaps[0]) == np.sign(gaps[1]))[decided].mean())


def random_actions(actions: int, seed: int) -> Act:
    """A policy that does not look."""
    rng = np.random.default_rng(seed)
    return lambda obs: rng.integers(actions, size=len(obs))


def agreement(
    model: RewardEnsemble,
    histories: list[History],
    behaviour: Behaviour,
    length: int,
    rng: np.random.Generator,
) -> Agreement:
    """Compare both rewards on segments drawn equally from each of the histories."""
    true, learned = [], []
    for history in histories:
        starts = segment_starts(history, length)
        chosen = starts[rng.integers(len(starts), size=SEGMENTS // len(histories))]
        steps, envs = chosen[:, :1] + np.arange(length), chosen[:, 1:]
        obs, action = history.obs[steps, envs], history.action[steps, envs]
        true.append(behaviour(obs).sum(axis=1))
        learned.append(model.reward(obs, action).sum(axis=1))
    order = rng.permutation(sum(map(len, true)))
    return Agreement(np.concatenate(true)[order], np.concatenate(learned)[order])


def hidden_return(
    act: Act, envs: Environments, behaviour: Behaviour, seed: int
) -> tuple[float, float, History]:
    """Mean hidden return and mean length of one episode in each environment, and its steps."""
    history = play(act, envs, seed, EPISODE)
    returns, lengths = first_episodes(history, behaviour)
    return float(returns.mean()), float(lengths.mean()), history
