"""DQN: targets by hand, the memory, and when the target network is renewed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reinforcement_learning.dqn import DQN, Replay, td_target
from reinforcement_learning.envs import Environments, Transition
from reinforcement_learning.settings import DQNSettings


@pytest.mark.exercise("dqn.td_target")
def test_only_termination_ends_the_future() -> None:
    target = td_target(
        reward=torch.tensor([1.0, 1.0, -2.0]),
        terminated=torch.tensor([False, True, False]),
        next_value=torch.tensor([10.0, 10.0, 5.0]),
        gamma=0.9,
    )
    torch.testing.assert_close(target, torch.tensor([10.0, 1.0, 2.5]))


@pytest.mark.exercise("dqn.td_target")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_targets_by_a_loop_over_their_rows(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, 9, generator=generator, dtype=dtype)
    over = torch.tensor([True, False, False] * 3)
    kept = reward.clone(), over.clone(), value.clone()
    for gamma in (0.0, 0.99, 1.0):
        found = td_target(reward, over, value, gamma)
        rows = zip(reward.tolist(), over.tolist(), value.tolist(), strict=True)
        expected = [r if end else r + gamma * v for r, end, v in rows]
        assert found.tolist() == pytest.approx(expected, abs=1e-6)
        assert found.dtype == dtype
        assert found.shape == (9,)
    assert all(torch.equal(a, b) for a, b in zip((reward, over, value), kept, strict=True))


@pytest.mark.exercise("dqn.td_target")
@pytest.mark.parametrize(("over", "expected"), [(False, 5.5), (True, 1.0)])
def test_the_target_of_a_single_transition(over: bool, expected: float) -> None:
    found = td_target(torch.tensor([1.0]), torch.tensor([over]), torch.tensor([5.0]), 0.9)
    assert found.tolist() == pytest.approx([expected])


def filled(steps: int, capacity: int = 1000) -> tuple[Replay, list[Transition]]:
    envs = Environments("CartPole-v1", 4, max_episode_steps=6)
    envs.reset(seed=0)
    replay, seen = Replay(capacity, 4), []
    rng = np.random.default_rng(0)
    for _ in range(steps):
        step = envs.step(rng.integers(2, size=4))
        replay.add(step)
        seen.append(step)
    return replay, seen


def test_memory_holds_what_happened_and_no_restarts() -> None:
    replay, seen = filled(30)
    valid = np.concatenate([step.valid for step in seen])
    assert len(replay) == valid.sum() < 120
    for name, column in replay.data.items():
        expected = np.concatenate([getattr(step, name) for step in seen])[valid]
        np.testing.assert_array_equal(column[: len(replay)], expected)
    # Time limits are not in the memory: an episode cut by the clock goes on as far as DQN knows.
    assert not replay.data["terminated"].any()


def test_memory_forgets_the_oldest_first() -> None:
    whole, _ = filled(30)
    small, _ = filled(30, capacity=16)
    assert len(small) == 16
    newest = {row.tobytes() for row in whole.data["obs"][len(whole) - 16 : len(whole)]}
    assert {row.tobytes() for row in small.data["obs"]} == newest


def agent(gamma: float = 0.999, **settings: float) -> tuple[DQN, Replay]:
    torch.manual_seed(0)
    chosen = DQNSettings(warmup=0, **settings)  # type: ignore[arg-type]
    learner = DQN(chosen, Environments("CartPole-v1", 4), gamma, 64, torch.device("cpu"), seed=0)
    learner.replay = filled(30)[0]
    return learner, learner.replay


@pytest.mark.parametrize("double", [False, True])
def test_loss_is_huber_of_the_td_error(double: bool) -> None:
    learner, replay = agent(double=double, updates=1, batch=8, gamma=0.9)
    for p in learner.target.parameters():
        p.data.add_(0.1)
    index = np.random.default_rng(0).integers(len(replay), size=8)
    expected = []
    for i in index:
        row = {k: torch.from_numpy(v[i : i + 1]) for k, v in replay.data.items()}
        online, slow = learner.policy(row["next_obs"])[0], learner.target(row["next_obs"])[0]
        future = slow[online.argmax()] if double else slow.max()
        y = row["reward"][0] + 0.9 * future * (0.0 if row["terminated"][0] else 1.0)
        error = (learner.policy(row["obs"])[0, row["action"][0]] - y).abs().item()
        expected.append(0.5 * error**2 if error < 1 else error - 0.5)
    loss = learner.update(replay)["train/loss"]
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_target_network_is_renewed_on_time() -> None:
    learner, replay = agent(updates=1, target_every=3)
    first = {k: v.clone() for k, v in learner.target.state_dict().items()}
    for update in range(1, 7):
        learner.update(replay)
        target, policy = learner.target.state_dict(), learner.policy.state_dict()
        unchanged = all(torch.equal(target[k], first[k]) for k in first)
        assert unchanged == (update < 3)
        assert all(torch.equal(target[k], policy[k]) for k in first) == (update % 3 == 0)


def test_epsilon_falls_linearly_and_stays() -> None:
    learner, _ = agent(steps=1000, exploration=0.5, epsilon=0.1)
    assert [learner.epsilon(t) for t in (0, 250, 500, 900)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
