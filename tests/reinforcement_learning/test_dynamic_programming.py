"""The exact answers: linear algebra, published numbers, and many sampled episodes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from reinforcement_learning.dynamic_programming import (
    MDP,
    action_values,
    expected_return,
    tabular_mdp,
    value_iteration,
)


def random_mdp(seed: int, states: int = 12, actions: int = 3) -> MDP:
    """Any process: every step goes on with a probability of 0.7 to 1."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.3), (states, actions))
    transition *= rng.uniform(0.7, 1.0, (states, actions, 1))
    return MDP(transition, rng.normal(size=(states, actions)), np.full(states, 1 / states), 50)


@pytest.mark.exercise("dynamic_programming.value_iteration")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
def test_values_solve_the_linear_system_of_their_greedy_policy(seed: int, gamma: float) -> None:
    mdp = random_mdp(seed)
    value = value_iteration(mdp, gamma)
    states = np.arange(len(value))
    policy = (mdp.reward + gamma * np.einsum("sat,t->sa", mdp.transition, value)).argmax(1)
    transition, reward = mdp.transition[states, policy], mdp.reward[states, policy]
    exact = np.linalg.solve(np.eye(len(value)) - gamma * transition, reward)
    np.testing.assert_allclose(value, exact, atol=1e-10)
    for other in range(mdp.reward.shape[1]):  # no single deviation is better: Bellman optimality
        deviation = mdp.reward[:, other] + gamma * mdp.transition[:, other] @ exact
        assert (deviation <= exact + 1e-9).all()


def policy_iteration(mdp: MDP, gamma: float) -> np.ndarray:
    """The optimal values by another algorithm: linear systems, until no action is better."""
    states, policy = np.arange(len(mdp.start)), np.zeros(len(mdp.start), int)
    while True:
        transition, reward = mdp.transition[states, policy], mdp.reward[states, policy]
        value = np.linalg.solve(np.eye(len(states)) - gamma * transition, reward)
        better = (mdp.reward + gamma * np.einsum("sat,t->sa", mdp.transition, value)).argmax(1)
        if (better == policy).all():
            return np.asarray(value)
        policy = better


@pytest.mark.exercise("dynamic_programming.value_iteration")
@pytest.mark.parametrize("gamma", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_the_stopping_rule_keeps_its_promise(gamma: float, scale: float) -> None:
    """For large values too: the tolerance is absolute."""
    mdp = random_mdp(0)
    mdp = mdp._replace(reward=scale * mdp.reward)
    exact = policy_iteration(mdp, gamma)
    for tolerance in (1e-1, 1e-3, 1e-6):
        assert np.abs(value_iteration(mdp, gamma, tolerance) - exact).max() <= tolerance


@pytest.mark.exercise("dynamic_programming.value_iteration")
def test_the_state_that_changes_most_decides_when_to_stop() -> None:
    """49 states are done at once and one converges slowly: their mean change is small too early."""
    transition, reward = np.zeros((50, 1, 50)), np.zeros((50, 1))
    transition[0, 0, 0] = reward[0, 0] = 1.0
    value = value_iteration(MDP(transition, reward, np.full(50, 0.02), 9), 0.9, 1e-2)
    assert value[0] == pytest.approx(10.0, abs=1e-2)
    assert not value[1:].any()


@pytest.mark.exercise("dynamic_programming.value_iteration")
@pytest.mark.parametrize(
    ("tolerance", "expected"), [(1.0, 1.0), (0.5, 1.5), (0.25, 1.75), (0.2, 1.875)]
)
def test_it_stops_at_the_step_that_the_rule_names(tolerance: float, expected: float) -> None:
    """One state, reward 1, gamma 1/2: V = 1, 3/2, 7/4 ... changes by 1, 1/2, 1/4, all exact; and
    tolerance (1 - gamma) / gamma is the tolerance."""
    mdp = MDP(np.ones((1, 1, 1)), np.ones((1, 1)), np.ones(1), 9)
    assert value_iteration(mdp, 0.5, tolerance).tolist() == [expected]
    assert value_iteration(mdp, 0.5).tolist() == [2 - 2.0**-40], "2^-40 is the first below 1e-12"


@pytest.mark.exercise("dynamic_programming.value_iteration")
def test_losses_are_values_too_and_the_process_stays_as_it_is() -> None:
    """All rewards are below 0: the best is the smallest loss, and nobody may stay at 0."""
    mdp = random_mdp(3)
    mdp = mdp._replace(reward=-1 - np.abs(mdp.reward))
    before = [np.array(x) for x in mdp]
    value = value_iteration(mdp, 0.8)
    np.testing.assert_allclose(value, policy_iteration(mdp, 0.8), atol=1e-10)
    assert (value < 0).all()
    assert all(np.array_equal(a, b) for a, b in zip(mdp, before, strict=True))


@pytest.mark.exercise("dynamic_programming.value_iteration")
def test_frozen_lake_has_its_known_value() -> None:
    mdp = tabular_mdp("FrozenLake-v1")
    assert mdp is not None
    value = value_iteration(mdp, 0.99)
    assert value[0] == pytest.approx(0.5420, abs=1e-4)
    assert value[5] == 0.0, "a hole"


def test_the_model_is_that_of_the_environment() -> None:
    mdp = tabular_mdp("FrozenLake-v1")
    assert mdp is not None
    assert mdp.horizon == 100
    assert (mdp.transition.sum(-1) <= 1 + 1e-12).all()
    assert mdp.reward[14, 2] == pytest.approx(1 / 3), "beside the goal"
    assert tabular_mdp("CartPole-v1") is None


def test_expected_return_is_what_episodes_average() -> None:
    mdp = tabular_mdp("FrozenLake-v1")
    assert mdp is not None
    policy = action_values(mdp, value_iteration(mdp, 0.99), 0.99).argmax(1)
    exact = expected_return(mdp, policy)
    assert exact == pytest.approx(0.74, abs=0.005), "gymnasium's registry: optimum = 0.74"
    env: Any = gym.make("FrozenLake-v1")
    obs, _ = env.reset(seed=0)
    wins, episodes = 0, 0
    while episodes < 1500:
        obs, reward, terminated, truncated, _ = env.step(int(policy[obs]))
        wins += reward
        if terminated or truncated:
            episodes += 1
            obs, _ = env.reset()
    assert wins / episodes == pytest.approx(exact, abs=4 * (exact * (1 - exact) / episodes) ** 0.5)


def test_expected_return_knows_the_horizon() -> None:
    # One state, one action, reward 1, going on with probability 0.9: a geometric sum, cut at 10.
    mdp = MDP(np.full((1, 1, 1), 0.9), np.ones((1, 1)), np.ones(1), 10)
    assert expected_return(mdp, np.zeros(1, int)) == pytest.approx((1 - 0.9**10) / 0.1)
