"""Value iteration: the exact answer, when the model of the environment is known.

Sutton and Barto 2018, equation 3.19 (Bellman optimality) and section 4.4.

    Q(s, a) = r(s, a) + gamma sum_s' p(s'|s, a) V(s')                    `action_values`
    V(s)   <- max_a Q(s, a)                                              `value_iteration`

gymnasium's grid worlds publish their transition table `P`, so the result of Q-learning can be
compared with the exact one. `expected_return` is exact as well: no sampling, no noise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from labkit import exercise


class MDP(NamedTuple):
    """A finite Markov decision process with S states and A actions."""

    transition: np.ndarray  # (S, A, S): probability of going on in s'; ending has the missing mass
    reward: np.ndarray  # (S, A): expected reward
    start: np.ndarray  # (S,): distribution of the first state
    horizon: int  # steps after which an episode is truncated


def tabular_mdp(env_id: str) -> MDP | None:
    """The model of one of gymnasium's tabular environments; None for any other, and when states or
    actions are not counted from 0.
    """
    env: Any = gym.make(env_id)
    table = getattr(env.unwrapped, "P", None)
    if any(getattr(space, "start", 0) for space in (env.action_space, env.observation_space)):
        return None
    if table is None or env.spec is None or env.spec.max_episode_steps is None:
        return None
    states, actions = len(table), len(table[0])
    transition, reward = np.zeros((states, actions, states)), np.zeros((states, actions))
    for s in range(states):
        for a in range(actions):
            for probability, after, gain, terminated in table[s][a]:
                transition[s, a, after] += probability * (not terminated)
                reward[s, a] += probability * gain
    start = np.asarray(env.unwrapped.initial_state_distrib, float)
    return MDP(transition, reward, start, env.spec.max_episode_steps)


def action_values(mdp: MDP, value: np.ndarray, gamma: float) -> np.ndarray:
    """Q (S, A): take one action; the next state then has the value `value` (S,)."""
    return mdp.reward + gamma * mdp.transition @ value


@exercise(minutes=15)
def value_iteration(mdp: MDP, gamma: float, tolerance: float = 1e-12) -> np.ndarray:
    """Optimal state values (S,), to within `tolerance` of the fixed point.

    V <- max_a (r + gamma P V), from V = 0, until no value changes by more than
    tolerance (1 - gamma) / gamma: the remaining error is then below the tolerance, since the update
    is a contraction by gamma. Sutton and Barto 2018, section 4.4. Needs 0 < gamma < 1.
    """
    value = np.zeros(len(mdp.start))
    while True:
        new = action_values(mdp, value, gamma).max(axis=1)
        change = np.abs(new - value).max()
        value = new
        if change <= tolerance * (1 - gamma) / gamma:
            return value


def expected_return(mdp: MDP, policy: np.ndarray) -> float:
    """Exact undiscounted return of an episode, truncation included, under actions `policy` (S,).

    On FrozenLake this is the probability of reaching the goal in time.
    """
    states = np.arange(len(policy))
    transition, reward = mdp.transition[states, policy], mdp.reward[states, policy]
    value = np.zeros(len(policy))
    for _ in range(mdp.horizon):
        value = reward + transition @ value
    return float(mdp.start @ value)
