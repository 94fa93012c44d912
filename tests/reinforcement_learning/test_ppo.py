"""PPO: advantages against a double loop and Stable-Baselines3, the objective by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from labkit import UsageError
from reinforcement_learning.envs import Environments
from reinforcement_learning.ppo import PPO, clipped_objective, gae
from reinforcement_learning.settings import PPOSettings

T, N = 40, 6


def rollout(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((2, T, N)) < 0.08
    return {
        "reward": rng.normal(size=(T, N)).astype(np.float32),
        "value": rng.normal(size=(T + 1, N)).astype(np.float32),
        "terminated": terminated,
        "truncated": truncated & ~terminated,
    }


@pytest.mark.exercise("ppo.gae")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0])
def test_gae_is_the_sum_of_its_definition(seed: int, lam: float) -> None:
    x, gamma = rollout(seed), 0.97
    expected = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                future = 0.0 if x["terminated"][k, n] else gamma * x["value"][k + 1, n]
                expected[t, n] += weight * (x["reward"][k, n] + future - x["value"][k, n])
                weight *= gamma * lam
                if x["terminated"][k, n] or x["truncated"][k, n]:
                    break
    np.testing.assert_allclose(gae(**x, gamma=gamma, lam=lam), expected, atol=1e-5)


@pytest.mark.exercise("ppo.gae")
def test_gae_agrees_with_stable_baselines3() -> None:
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    from gymnasium.spaces import Box, Discrete

    x, gamma, lam = rollout(0), 0.98, 0.8
    buffer = buffers.RolloutBuffer(
        T, Box(-1, 1, (1,)), Discrete(2), device="cpu", gae_lambda=lam, gamma=gamma, n_envs=N
    )
    start = np.ones(N)
    for t in range(T):
        # Stable-Baselines3 pays a truncated episode's expected rest into its last reward.
        reward = x["reward"][t] + gamma * x["value"][t + 1] * x["truncated"][t]
        value = torch.from_numpy(x["value"][t])
        buffer.add(np.zeros((N, 1)), np.zeros((N, 1)), reward, start, value, torch.zeros(N))
        start = (x["terminated"][t] | x["truncated"][t]).astype(float)
    buffer.compute_returns_and_advantage(torch.from_numpy(x["value"][T]), start)
    np.testing.assert_allclose(gae(**x, gamma=gamma, lam=lam), buffer.advantages, atol=1e-5)


@pytest.mark.exercise("ppo.gae")
def test_gae_leaves_its_arguments_alone() -> None:
    x = rollout(1)
    before = {name: array.copy() for name, array in x.items()}
    gae(**x, gamma=0.9, lam=0.9)
    assert all((x[name] == before[name]).all() for name in x)


@pytest.mark.exercise("ppo.gae")
def test_gae_of_one_step_of_one_environment() -> None:
    """A_0 = delta_0: r + gamma V(s_1) - V(s_0), without V(s_1) after a termination."""
    reward, value = np.array([[2.0]]), np.array([[1.0], [10.0]])
    for terminated, truncated, expected in [(0, 0, 6.0), (0, 1, 6.0), (1, 0, 1.0), (1, 1, 1.0)]:
        ends = (np.array([[x]], bool) for x in (terminated, truncated))
        found = gae(reward, value, *ends, gamma=0.5, lam=0.9)
        assert found.shape == (1, 1)
        assert found[0, 0] == pytest.approx(expected)


@pytest.mark.exercise("ppo.gae")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gae_keeps_the_type_of_rewards_and_values(dtype: type) -> None:
    x = rollout(2)
    x |= {name: x[name].astype(dtype) for name in ("reward", "value")}
    assert gae(**x, gamma=0.9, lam=0.9).dtype == dtype


@pytest.mark.exercise("ppo.gae")
def test_a_step_that_is_terminated_and_truncated_is_terminated() -> None:
    """The clock may run out at the very step that ends the task: then nothing follows."""
    flags = np.zeros((3, 2), bool)
    flags[1, 0] = True
    ones = np.ones((3, 2))
    found = gae(ones, np.full((4, 2), 7.0), flags, flags, gamma=0.9, lam=0.8)
    delta, last = 1 + 0.9 * 7 - 7, 1 - 7
    np.testing.assert_allclose(found[:, 0], [delta + 0.72 * last, last, delta])
    np.testing.assert_allclose(found[0, 1], delta * (1 + 0.72 + 0.72**2))


@pytest.mark.exercise("ppo.gae")
def test_gamma_zero_looks_one_step_ahead_and_no_further() -> None:
    x = rollout(0)
    found = gae(**x, gamma=0.0, lam=1.0)
    np.testing.assert_allclose(found, x["reward"] - x["value"][:-1], rtol=1e-6)


@pytest.mark.exercise("ppo.clipped_objective")
@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 3.0, 3.0),
        (1.1, 2.0, 2.2),  # inside the clip
        (1.5, 2.0, 2.4),  # better and already more probable: no more to gain
        (0.5, 2.0, 1.0),  # better but less probable: the harm counts in full
        (0.5, -2.0, -1.6),  # worse and already less probable: no more to gain
        (1.5, -2.0, -3.0),  # worse but more probable: the harm counts in full
    ],
)
def test_objective_by_hand(ratio: float, advantage: float, expected: float) -> None:
    old = torch.tensor([-0.7])
    log_prob = old + torch.tensor([ratio]).log()
    value = clipped_objective(log_prob, old, torch.tensor([advantage]), 0.2)
    assert value.shape == ()
    assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.exercise("ppo.clipped_objective")
def test_objective_is_the_mean_and_its_gradient_stops_at_the_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(200, generator=generator)
    log_prob = (old + 0.4 * torch.randn(200, generator=generator)).requires_grad_()
    advantage = torch.randn(200, generator=generator)
    clipped_objective(log_prob, old, advantage, 0.2).backward()
    ratio = (log_prob - old).exp().detach()
    free = torch.where(advantage > 0, ratio < 1.2, ratio > 0.8)
    torch.testing.assert_close(log_prob.grad, ratio * advantage * free / 200)


@pytest.mark.exercise("ppo.clipped_objective")
@pytest.mark.parametrize("clip", [0.0, 0.05, 0.5])
def test_objective_by_a_loop_over_its_rows(clip: float) -> None:
    generator = torch.Generator().manual_seed(1)
    log_prob, old, advantage = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    kept = [x.clone() for x in (log_prob, old, advantage)]
    terms = []
    for new, before, gain in zip(log_prob.tolist(), old.tolist(), advantage.tolist(), strict=True):
        ratio = math.exp(new - before)
        terms.append(min(ratio * gain, min(max(ratio, 1 - clip), 1 + clip) * gain))
    found = clipped_objective(log_prob, old, advantage, clip)
    assert found.dtype == torch.float64
    assert found.shape == ()
    assert found.item() == pytest.approx(sum(terms) / 7)
    assert all(torch.equal(a, b) for a, b in zip((log_prob, old, advantage), kept, strict=True))


@pytest.mark.exercise("ppo.clipped_objective")
def test_objective_of_one_row_far_away() -> None:
    far, near = torch.tensor([30.0]), torch.tensor([0.0])
    assert clipped_objective(far, near, torch.tensor([2.0]), 0.2).item() == pytest.approx(2.4)
    harm = clipped_objective(far, near, torch.tensor([-2.0]), 0.2).item()
    assert harm == pytest.approx(-2 * math.exp(30), rel=1e-5)
    assert clipped_objective(near, far, torch.tensor([-1.0]), 0.2).item() == pytest.approx(-0.8)


def test_a_truncated_step_is_valued_by_the_observation_before_the_reset() -> None:
    envs = Environments("CartPole-v1", 4, max_episode_steps=5)
    envs.reset(seed=0)
    settings = PPOSettings(rollout=30, gae_lambda=1e-9)
    agent = PPO(settings, envs, 0.9, 64, torch.device("cpu"))
    agent.critic = lambda obs: 100 * obs[..., 1:2]  # type: ignore[assignment]  # 100 * velocity
    rollout = agent.collect(envs)
    # A push changes the velocity by about 0.195 m/s, and a reset brings it back below 0.05: with
    # lambda = 0 every target must be 1 + gamma * 100 * (velocity after the push).
    push = 0.195 * (2 * rollout.action - 1)
    expected = 1 + 0.9 * 100 * (rollout.obs[:, 1] + push)
    torch.testing.assert_close(rollout.value_target, expected.float(), atol=1.0, rtol=0)
    assert len(rollout.obs) == 4 * 25, "of 30 rows, 5 are restarts"
    assert float(rollout.advantage.mean()) == pytest.approx(0, abs=1e-5)
    assert float(rollout.advantage.std()) == pytest.approx(1, abs=1e-3)


def test_a_rollout_of_one_transition_has_a_finite_advantage() -> None:
    """Its deviation is that of one number: none. And one step alone may be a restart."""
    settings = PPOSettings(rollout=2, envs=1)  # which Config refuses, since this may come of it
    envs = Environments("CartPole-v1", 1, max_episode_steps=1)
    envs.reset(seed=0)
    agent = PPO(settings, envs, 0.999, 64, torch.device("cpu"))
    rollout = agent.collect(envs)
    assert len(rollout.obs) == 1
    assert torch.isfinite(rollout.advantage).all()
    assert np.isfinite([v.item() for v in agent.update(rollout).values()]).all()
    settings.rollout = 1
    with pytest.raises(UsageError, match=r"ppo\.rollout must be > 1"):
        PPO(settings, envs, 0.999, 64, torch.device("cpu"))
