"""Environments: what a step returns, what an evaluation counts, what a checkpoint brings back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from labkit import UsageError, bugs
from reinforcement_learning.dqn import td_target
from reinforcement_learning.dynamic_programming import tabular_mdp
from reinforcement_learning.envs import Environments, Transition
from reinforcement_learning.evaluate import episode_returns
from reinforcement_learning.figures import film
from reinforcement_learning.ppo import gae
from reinforcement_learning.q_learning import QLearning
from reinforcement_learning.settings import QSettings


def play(envs: Environments, steps: int, seed: int) -> list[Transition]:
    rng = np.random.default_rng(seed)
    actions = rng.integers(envs.num_actions, size=(steps, envs.num_envs))
    return [envs.step(action) for action in actions]


def test_next_obs_is_the_one_before_the_reset() -> None:
    envs = Environments("CartPole-v1", 4, max_episode_steps=5)
    envs.reset(seed=0)
    single: Any = gym.make("CartPole-v1").unwrapped
    ends = 0
    for step in play(envs, 40, seed=1):
        for i in np.flatnonzero(step.valid):
            single.reset()
            single.state = tuple(step.obs[i].astype(np.float64))
            expected, _, terminated, _, _ = single.step(int(step.action[i]))
            np.testing.assert_allclose(step.next_obs[i], expected, rtol=1e-5, atol=1e-6)
            assert terminated == step.terminated[i]
            ends += bool(step.truncated[i])
    assert ends >= 20


def test_the_row_after_an_end_is_no_experience() -> None:
    envs = Environments("CartPole-v1", 4, max_episode_steps=5)
    envs.reset(seed=0)
    steps = play(envs, 30, seed=1)
    for before, after in itertools.pairwise(steps):
        over = before.terminated | before.truncated
        assert (after.valid == ~over).all()
        assert (after.reward == after.valid).all(), "CartPole pays 1 for a step and 0 for a restart"
        assert (np.abs(after.next_obs[over]) <= 0.05).all(), "a restart begins near the upright"
    assert envs.env_steps == sum(step.valid.sum() for step in steps)
    assert set(envs.take_finished()) == {5.0}
    assert envs.take_finished() == []


@pytest.mark.parametrize(("time_limit", "kind"), [(3, "truncated"), (500, "terminated")])
def test_terminated_and_truncated_are_told_apart(time_limit: int, kind: str) -> None:
    envs = Environments("CartPole-v1", 8, max_episode_steps=time_limit)
    envs.reset(seed=0)
    ends = {"terminated": 0, "truncated": 0}
    for _ in range(60):
        step = envs.step(np.zeros(8, np.int64))
        for name in ends:
            ends[name] += int(getattr(step, name).sum())
    other = {"truncated": "terminated", "terminated": "truncated"}[kind]
    assert ends[kind] > 0
    assert ends[other] == 0


def buggy(function: str, name: str) -> Any:
    """The function of the week with a bug of bugs.yaml in it."""
    _, text = bugs.planted("reinforcement_learning", f"{function}: {name}")
    module: dict[str, Any] = {"__name__": "buggy"}
    exec(compile(text, "buggy", "exec", dont_inherit=True), module)
    return module[function.rpartition(".")[2]]


def test_bugs_about_ends_only_rename_the_ends() -> None:
    """The bug of the broken run, for DQN, and its counterpart for PPO."""
    envs = Environments("CartPole-v1", 8, max_episode_steps=12)
    envs.reset(seed=0)
    steps = Transition(*(np.stack(rows) for rows in zip(*play(envs, 60, seed=1), strict=True)))
    assert steps.terminated.any()
    assert steps.truncated.any()
    over, never = steps.terminated | steps.truncated, np.zeros_like(steps.terminated)

    value = torch.rand(60, 8, generator=torch.Generator().manual_seed(0))
    reward, terminated = torch.from_numpy(steps.reward), torch.from_numpy(steps.terminated)
    always = buggy("dqn.td_target", "a terminal state is given a future")
    renamed = td_target(reward, torch.from_numpy(never), value, 0.9)
    assert torch.equal(always(reward, terminated, value, 0.9), renamed)
    assert not torch.equal(td_target(reward, terminated, value, 0.9), renamed)

    values = np.random.default_rng(0).random((61, 8))
    ends = steps.terminated, steps.truncated
    cut = buggy("ppo.gae", "a truncated episode is given no future")
    renamed = gae(steps.reward, values, over, never, 0.9, 0.8)
    np.testing.assert_array_equal(cut(steps.reward, values, *ends, 0.9, 0.8), renamed)
    assert (gae(steps.reward, values, *ends, 0.9, 0.8) != renamed).any()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "LunarLander-v3"])
def test_state_comes_back_to_the_last_bit(env_id: str) -> None:
    if env_id.startswith("Lunar"):
        pytest.importorskip("Box2D")
    envs, other = Environments(env_id, 3), Environments(env_id, 3)
    envs.reset(seed=5)
    for seed in range(8):  # at states within episodes, and with restarts pending
        play(envs, 17, seed)
        while seed % 2 and not envs.done.any():
            play(envs, 1, seed)
        state = envs.state_dict()
        saved = json.dumps(state, default=lambda x: x.tolist())
        expected = play(envs, 60, seed=99)
        assert json.dumps(state, default=lambda x: x.tolist()) == saved, "a snapshot must not move"
        other.load_state_dict(state)
        for a, b in zip(expected, play(other, 60, seed=99), strict=True):
            assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))
        assert (envs.env_steps, envs.finished) == (other.env_steps, other.finished)


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("CartPole-v2", "CartPole"),
        ("NoSuchThing-v0", "env=NoSuchThing"),
        ("Pendulum-v1", "continuous"),
    ],
)
def test_unsuitable_environments_are_refused_in_words(env_id: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Environments(env_id, 2)


class Clockwork:
    """Environment i ends after i + 1 steps, terminated or truncated by turns; reward 1 a step."""

    def __init__(self, num_envs: int) -> None:
        self.length = np.arange(num_envs) + 1

    def reset(self, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        self.t = np.zeros(len(self.length), int)
        return self.t[:, None], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        restart = self.t == self.length
        self.t = np.where(restart, 0, self.t + 1)
        over = self.t == self.length
        odd = self.length % 2 == 1
        return self.t[:, None], 1.0 - restart, over & odd, over & ~odd, {}  # type: ignore[return-value]


def test_evaluation_counts_each_environment_once() -> None:
    vector = Clockwork(20)
    envs: Any = SimpleNamespace(vector=vector, num_envs=20, first_action=0)
    returns = episode_returns(lambda obs: np.zeros(len(obs), np.int64), envs, seed=0)
    np.testing.assert_array_equal(returns, vector.length)


def test_evaluation_agrees_with_single_episodes() -> None:
    def policy(obs: np.ndarray) -> np.ndarray:
        return (obs[:, 2] + 0.3 * obs[:, 3] + 0.05 * obs[:, 1] > 0).astype(np.int64)

    envs = Environments("CartPole-v1", 30)
    returns = episode_returns(policy, envs, seed=(3, 1))
    assert (episode_returns(policy, envs, seed=(3, 1)) == returns).all()
    envs.vector.reset(seed=int(np.random.SeedSequence((3, 1)).generate_state(1)[0]))
    starts = np.asarray(envs.vector.unwrapped.state).T  # type: ignore[attr-defined]
    single = gym.make("CartPole-v1")
    for start, expected in zip(starts, returns, strict=True):
        single.reset()
        single.unwrapped.state = start  # type: ignore[attr-defined]
        obs, total, over = start.astype(np.float32), 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = single.step(int(policy(obs[None])[0]))
            total += float(reward)
            over = terminated or truncated
        assert total == expected


class FromThree(gym.Env):
    """Actions 3 and 4, states 7 to 9. Action 4 pays 1 and moves on; other numbers are errors."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # gymnasium's own
    action_space = Discrete(2, start=3)
    observation_space = Discrete(3, start=7)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.sent: list[int] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = 7
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action} is none of its actions"
        self.state += int(action == 4)
        return self.state, float(action == 4), self.state == 9, False, {}

    def render(self) -> np.ndarray:
        return np.zeros((4, 4, 3), np.uint8)


class FloatBox(FromThree):
    observation_space = Box(-1, 1, (2,), np.float64)  # type: ignore[assignment]

    def reset(self, **words: Any) -> tuple[Any, dict[str, Any]]:
        return np.zeros(2), super().reset(**words)[1]


class TwoChoices(FromThree):
    action_space = MultiDiscrete([2, 2])  # type: ignore[assignment]


@pytest.fixture
def registered() -> Iterator[None]:
    kinds = {"FromThree-v0": FromThree, "FloatBox-v0": FloatBox, "TwoChoices-v0": TwoChoices}
    for name, kind in kinds.items():
        gym.register(name, kind, max_episode_steps=20, disable_env_checker=True)
    yield
    for name in kinds:
        del gym.registry[name]


def test_actions_and_states_that_do_not_begin_at_zero(registered: None) -> None:
    """Learners count from 0; the environment is sent what it calls them."""
    envs = Environments("FromThree-v0", 2)
    envs.reset(seed=0)
    step = envs.step(np.array([1, 0]))
    assert step.reward.tolist() == [1.0, 0.0]
    assert step.action.tolist() == [1, 0], "a learner sees its own numbers"
    assert step.next_obs.tolist() == [8, 7]
    saved = envs.state_dict()
    after = envs.step(np.array([1, 1]))
    envs.load_state_dict(saved)
    again = envs.step(np.array([1, 1]))
    assert all((a == b).all() for a, b in zip(after, again, strict=True))
    paid = episode_returns(lambda obs: np.ones(len(obs), np.int64), envs, seed=0)
    assert paid.tolist() == [2.0, 2.0]
    frames, _ = film(lambda obs: np.ones(len(obs), np.int64), "FromThree-v0", 0)
    assert len(frames) == 3

    envs = Environments("FromThree-v0", 4)
    agent = QLearning(QSettings(envs=4), envs, gamma=0.5, seed=0)
    for _ in range(400):
        agent.update(agent.collect(envs))
    assert agent.policy.q[:2, 1] == pytest.approx([1.5, 1.0], abs=0.02)
    assert tabular_mdp("FromThree-v0") is None


@pytest.mark.parametrize(
    ("env_id", "words"), [("FloatBox-v0", "float64"), ("TwoChoices-v0", "one choice out of n")]
)
def test_what_the_learners_do_not_handle_is_refused(
    registered: None, env_id: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        assert Environments(env_id, 2).obs_dim
