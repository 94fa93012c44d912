"""What the last and the best policy are worth, and a table of values beside the exact one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reinforcement_learning import dynamic_programming as dp
from reinforcement_learning import figures
from reinforcement_learning.agent import Agent
from reinforcement_learning.envs import Environments
from reinforcement_learning.evaluate import episode_returns
from reinforcement_learning.q_learning import QLearning

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def report(
    agent: Agent[Any], best: dict[str, Any], envs: Environments, gamma: float, seed: int
) -> tuple[dict[str, float], dict[str, Figure]]:
    """Metrics, and named figures. The agent is left with the `best` policy."""
    fresh = (seed, 0)  # no step of the loop used this seed
    returns = episode_returns(agent.act, envs, fresh)
    metrics, drawn = {"return": returns.mean(), "return_std": returns.std()}, {}
    if isinstance(agent, QLearning) and (mdp := dp.tabular_mdp(envs.env_id)) is not None:
        q = dp.action_values(mdp, dp.value_iteration(mdp, gamma), gamma)
        metrics |= optimality(mdp, agent.policy.q, q)
        if figure := figures.values(envs.env_id, value_iteration=q, q_learning=agent.policy.q):
            drawn["values"] = figure
    agent.policy.load_state_dict(best)
    metrics["best_return"] = episode_returns(agent.act, envs, fresh).mean()
    return metrics, drawn


def optimality(mdp: dp.MDP, q: np.ndarray, optimal: np.ndarray) -> dict[str, float]:
    """Exact return of the greedy policy of a table (S, A), and of the `optimal` table's."""
    exact, optimum = (dp.expected_return(mdp, table.argmax(axis=1)) for table in (q, optimal))
    return {"exact_return": exact, "optimal_return": optimum, "optimality": exact / optimum}
