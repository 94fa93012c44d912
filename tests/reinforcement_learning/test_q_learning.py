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


@pytest.mark.exercise("q_learning.q_update")
def test_a_batch_by_a_loop_over_its_rows() -> None:
    """Every kind of row many times over, the same state and action often, one step size for all."""
    rng = np.random.default_rng(0)
    q = rng.normal(size=(5, 3))
    rows = 60
    batch = Transition(
        rng.integers(5, size=rows), rng.integers(3, size=rows), rng.normal(size=rows),
        rng.integers(5, size=rows), *(rng.random((3, rows)) < 0.4),
    )  # fmt: skip
    kept = [np.array(x) for x in batch]
    old, expected, errors = q.copy(), q.copy(), []
    for s, a, r, after, terminated, _, valid in zip(*batch, strict=True):
        future = 0.0 if terminated else max(old[after])
        errors.append((r + 0.7 * future - old[s, a]) if valid else 0.0)
        expected[s, a] += 0.05 * errors[-1]
    found = q_update(q, batch, 0.05, 0.7)
    np.testing.assert_allclose(found, errors, atol=1e-12)
    np.testing.assert_allclose(q, expected, atol=1e-12)
    assert all(np.array_equal(a, b) for a, b in zip(batch, kept, strict=True))


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


@pytest.mark.exercise("q_learning.epsilon_greedy")
def test_each_row_is_greedy_by_its_own_values() -> None:
    rng = np.random.default_rng(0)
    q = rng.normal(size=(30_000, 5))
    kept = q.copy()
    actions = epsilon_greedy(q, 0.4, np.random.default_rng(1))
    share = (actions == q.argmax(axis=1)).mean()
    assert share == pytest.approx(0.6 + 0.4 / 5, abs=0.02)
    others = np.bincount((actions - q.argmax(axis=1)) % 5, minlength=5)[1:] / len(q)
    np.testing.assert_allclose(others, 0.08, atol=0.01)
    assert np.array_equal(q, kept)


@pytest.mark.exercise("q_learning.epsilon_greedy")
def test_all_chance_comes_from_the_given_generator() -> None:
    q = np.random.default_rng(0).normal(size=(40, 6))
    runs = [epsilon_greedy(q, 0.8, np.random.default_rng(5)).tolist() for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]
    rng = np.random.default_rng(5)
    assert epsilon_greedy(q, 0.8, rng).tolist() == runs[0]
    assert epsilon_greedy(q, 0.8, rng).tolist() != runs[0], "the generator moved on"


@pytest.mark.exercise("q_learning.epsilon_greedy")
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_one_row_or_one_action(epsilon: float) -> None:
    rng = np.random.default_rng(0)
    assert epsilon_greedy(np.zeros((3, 1)), epsilon, rng).tolist() == [0, 0, 0]
    drawn = [int(epsilon_greedy(np.array([[0.0, 1.0]]), epsilon, rng)[0]) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(1 - epsilon / 2, abs=0.1)
    action = epsilon_greedy(np.array([[0.0, 1.0]]), epsilon, rng)
    assert action.shape == (1,)
    assert np.issubdtype(action.dtype, np.integer)


def generator_at_zero() -> np.random.Generator:
    """A PCG64 whose next number is exactly 0: the state before the state that is 0."""
    bits = np.random.PCG64()
    increment, word = 1, 2**128
    before = -increment * pow(0x2360ED051FC65DA44385DF649FCCF645, -1, word) % word
    state = {"state": before, "inc": increment}
    bits.state = {"bit_generator": "PCG64", "state": state, "has_uint32": 0, "uinteger": 0}
    return np.random.Generator(bits)


@pytest.mark.exercise("q_learning.epsilon_greedy")
def test_epsilon_zero_never_explores_even_if_the_draw_is_zero() -> None:
    """The probability of a draw in [0, 1) below 0 is 0; that of one at most 0 is not."""
    assert generator_at_zero().random() == 0.0
    for best in range(4):
        q = np.eye(4)[best : best + 1]
        assert epsilon_greedy(q, 0.0, generator_at_zero()).tolist() == [best]


def test_discretise_numbers_every_cell_once() -> None:
    ranges = [(-1.0, 1.0), (0.0, 3.0)]
    centres = [(-1 + (i + 0.5) * 2 / 4, (j + 0.5) * 3 / 4) for i in range(4) for j in range(4)]
    assert discretise(np.array(centres), ranges, 4).tolist() == list(range(16))
    assert discretise(np.array([[-9.0, -9.0], [9.0, 9.0]]), ranges, 4).tolist() == [0, 15]
