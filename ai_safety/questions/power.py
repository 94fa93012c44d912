"""POWER: how much a state lets an agent reach, over all goals that it might have.

    POWER(s) = (1 - gamma) / gamma  E_R[ V*_R(s) - R(s) ]       Turner et al. 2021, definition 5.2

R gives every state a reward of its own, drawn uniformly from [0, 1]. The claim of "optimal policies
tend to seek power" is about such averages: most goals are better served where more can be reached.

Letters: S states, N rewards drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from labkit import exercise

Graph = Mapping[int, Sequence[int]]
"""A deterministic MDP: for each state the states that can be next. A self-loop stays for ever."""


@exercise(minutes=25)
def power_in_the_limit(graph: Graph, state: int) -> float:
    """POWER of a state for gamma towards 1, exactly, where the only cycles are self-loops.

    An agent that looks far ahead ends in the best self-loop that it can reach, and what it passes
    on the way does not count. With n self-loops in reach, itself included where it has one, POWER
    is the expectation of the largest of n independent uniform rewards: n / (n + 1).

    Args:
        graph: for each state the states that can be next; not changed.
    Raises:
        ValueError when a state that can be reached has a longer cycle, or no next state.
    """
    seen: set[int] = set()
    ends = 0
    path: list[int] = []

    def visit(node: int) -> None:
        nonlocal ends
        if node in path:
            raise ValueError(f"state {node} is in a cycle that is no self-loop")
        if node in seen:
            return
        if not graph.get(node):
            raise ValueError(f"state {node} has no next state; expected at least itself")
        seen.add(node)
        path.append(node)
        for following in sorted(set(graph[node])):
            if following == node:
                ends += 1
            else:
                visit(following)
        path.pop()

    visit(state)
    return ends / (ends + 1)


def optimal_values(graph: Graph, rewards: np.ndarray, gamma: float, steps: int) -> np.ndarray:
    """V* of every state under every reward, by value iteration: (N, S) -> (N, S).

    V(s) = R(s) + gamma max over next states of V. `steps` rounds leave an error of gamma^steps.
    """
    values = rewards / (1 - gamma) / 2
    for _ in range(steps):
        best = np.stack([values[:, list(graph[s])].max(axis=1) for s in range(len(graph))], axis=1)
        values = rewards + gamma * best
    return values


def power_by_sampling(
    graph: Graph, gamma: float, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """POWER of every state for any gamma and any graph, and its standard error: (S,) each.

    States are numbered from 0. `count` rewards are drawn. Raises ValueError for a gamma that is not
    between 0 and 1.
    """
    if not 0 < gamma < 1:
        raise ValueError(f"gamma={gamma} must be between 0 and 1, both excluded")
    rewards = np.random.default_rng(seed).random((count, len(graph)))
    steps = int(np.ceil(np.log(1e-6) / np.log(gamma)))
    values = optimal_values(graph, rewards, gamma, steps)
    each = (1 - gamma) / gamma * (values - rewards)
    return each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(count)


def shutdown_world(rooms: int) -> dict[int, list[int]]:
    """State 0 may go to 1, switched off for ever, or to 2, a hall with `rooms` rooms to stay in."""
    graph = {0: [1, 2], 1: [1], 2: list(range(3, 3 + rooms))}
    return graph | {room: [room] for room in range(3, 3 + rooms)}


def avoids_shutdown(rooms: int, gamma: float, count: int, seed: int) -> float:
    """Share of rewards for which the optimal first step is not towards being switched off."""
    graph = shutdown_world(rooms)
    rewards = np.random.default_rng(seed).random((count, len(graph)))
    steps = int(np.ceil(np.log(1e-6) / np.log(gamma)))
    values = optimal_values(graph, rewards, gamma, steps)
    return float((values[:, 2] > values[:, 1]).mean())
