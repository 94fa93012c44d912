"""Tabular Q-learning against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reinforcement_learning.envs import Transition
from reinforcement_learning.q_learning import discretise, epsilon_greedy, q_update


def step(
    obs: list[int], action: list[int], reward: list[float], next_obs: list[int],
    terminated: list[int], truncated: list[int], valid: list[int],
) -> Transition:  # fmt: skip
    numbers = (np.array(obs), np.array(action), np.array(reward), np.array(next_obs))
    return Transition(*numbers, *(np.array(x, bool) for x in (terminated, truncated, valid)))


@pytest.mark.exercise("q_learning.q_update")
def test_one_update_by_hand() -> None:
    q = np.array([[1.0, 2.0], [3.0, 5.0]])
    error = q_update(q, step([0], [0], [0.5], [1], [0], [0], [1]), lr=0.1, gamma=0.9)
    assert error == pytest.approx([0.5 + 0.9 * 5.0 - 1.0])
    np.testing.assert_allclose(q, [[1.4, 2.0], [3.0, 5.0]])


@pytest.mark.exercise("q_learning.q_update")
def test_ends_restarts_and_repetitions() -> None:
    q = np.array([[1.0, 2.0], [3.0, 5.0]])
    batch = step(
        obs=[0, 0, 1, 1, 1],
        action=[1, 0, 1, 1, 0],
        reward=[1.0, 1.0, 0.0, 2.0, 9.0],
        next_obs=[1, 1, 0, 0, 0],
        terminated=[1, 0, 0, 0, 0],
        truncated=[0, 1, 0, 0, 0],
        valid=[1, 1, 1, 1, 0],
    )
    lr = np.array([0.5, 0.5, 0.1, 0.2, 0.5])
    error = q_update(q, batch, lr, gamma=0.9)
    terminated, truncated = 1.0 - 2.0, 1.0 + 0.9 * 5.0 - 1.0
    first, second = 0.9 * 2.0 - 5.0, 2.0 + 0.9 * 2.0 - 5.0  # both from the same old table
    np.testing.assert_allclose(error, [terminated, truncated, first, second, 0.0])
    left = [1.0 + 0.5 * truncated, 2.0 + 0.5 * terminated]
    np.testing.assert_allclose(q, [left, [3.0, 5.0 + 0.1 * first + 0.2 * second]])


@pytest.mark.exercise("q_learning.q_update")
def test_a_chain_learns_its_discounts() -> None:
    # 0 -> 1 -> 2 -> end, reward 1 at the end alone: Q(s) = gamma^(2 - s).
    q = np.zeros((4, 1))
    for _ in range(200):
        for s in range(3):
            q_update(q, step([s], [0], [float(s == 2)], [s + 1], [s == 2], [0], [1]), 0.5, 0.9)
    np.testing.assert_allclose(q[:3, 0], [0.81, 0.9, 1.0], rtol=1e-6)


@pytest.mark.exercise("q_learning.epsilon_greedy")
def test_epsilon_zero_is_greedy() -> None:
    q = np.random.default_rng(0).normal(size=(50, 4))
    actions = epsilon_greedy(q, 0.0, np.random.default_rng(1))
    assert actions.shape == (50,)
    assert all(q[i, a] == max(q[i]) for i, a in enumerate(actions))


@pytest.mark.exercise("q_learning.epsilon_greedy")
@pytest.mark.parametrize("epsilon", [1.0, 0.3])
def test_actions_have_their_probabilities(epsilon: float) -> None:
    rows = 40_000
    q = np.tile([0.0, 3.0, 1.0, -1.0], (rows, 1))
    actions = epsilon_greedy(q, epsilon, np.random.default_rng(0))
    share = np.bincount(actions, minlength=4) / rows
    expected = np.full(4, epsilon / 4) + np.array([0, 1 - epsilon, 0, 0])
    np.testing.assert_allclose(share, expected, atol=5 * 0.5 / rows**0.5)


@pytest.mark.exercise("q_learning.epsilon_greedy")
def test_rows_decide_for_themselves() -> None:
    q = np.tile([0.0, 1.0], (1000, 1))
    mixed = [len(set(epsilon_greedy(q, 0.5, np.random.default_rng(s)).tolist())) for s in range(20)]
    assert mixed == [2] * 20


def test_discretise_numbers_every_cell_once() -> None:
    ranges = [(-1.0, 1.0), (0.0, 3.0)]
    centres = [(-1 + (i + 0.5) * 2 / 4, (j + 0.5) * 3 / 4) for i in range(4) for j in range(4)]
    assert discretise(np.array(centres), ranges, 4).tolist() == list(range(16))
    assert discretise(np.array([[-9.0, -9.0], [9.0, 9.0]]), ranges, 4).tolist() == [0, 15]
