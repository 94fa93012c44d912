"""The metrics of the run, judged by the hidden criterion.

hidden_return      mean sum of the hidden reward over greedy episodes (at most 500)
own_return         CartPole's own return of the same episodes: how long the pole is up
agreement          held-out pairs of segments that the learned reward orders as the hidden one (%)
rank_correlation   Spearman's between both, over held-out segments
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labkit import Run
from reinforcement_learning import Environments
from rlhf.trajectories.behaviour import Behaviour
from rlhf.trajectories.evaluate import agreement, hidden_return, random_actions
from rlhf.trajectories.figures import figure
from rlhf.trajectories.reward import RewardEnsemble

HELD_OUT = 10_007
"""Added to the seed: episodes that no evaluation during training has seen."""


def report(
    run: Run,
    act: Callable[[np.ndarray], np.ndarray],
    model: RewardEnsemble | None,
    envs: Environments,
    behaviour: Behaviour,
    length: int,
    asked: int,
) -> dict[str, float]:
    """Play held-out episodes with the trained policy and at random; draws reward.png."""
    seed = run.seed + HELD_OUT
    score, own, played = hidden_return(act, envs, behaviour, seed)
    chance, _, random = hidden_return(random_actions(envs.num_actions, seed), envs, behaviour, seed)
    metrics = {
        "hidden_return": score, "own_return": own, "random_return": chance,
        "comparisons": float(asked),
    }  # fmt: skip
    found = None
    if model is not None:
        found = agreement(model, [played, random], behaviour, length, np.random.default_rng(seed))
        metrics["agreement"] = 100 * found.accuracy
        metrics["rank_correlation"] = found.rank_correlation
    positions = {
        name: history.obs[..., 0][history.valid]
        for name, history in (("trained", played), ("random", random))
    }
    run.figure("reward", figure(found, positions))
    return metrics
