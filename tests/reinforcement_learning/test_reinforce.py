"""REINFORCE against a filter from SciPy and the analytic gradient of a bandit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from reinforcement_learning.envs import Environments
from reinforcement_learning.reinforce import Reinforce, discounted_returns, policy_loss
from reinforcement_learning.settings import ReinforceSettings


@pytest.mark.exercise("reinforce.discounted_returns")
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99, 1.0])
def test_returns_are_a_recursive_filter_run_backwards(gamma: float) -> None:
    reward = np.random.default_rng(0).normal(size=(60, 7))
    expected = lfilter([1.0], [1.0, -gamma], reward[::-1], axis=0)[::-1]
    np.testing.assert_allclose(discounted_returns(reward, gamma), expected, atol=1e-10)


@pytest.mark.exercise("reinforce.discounted_returns")
def test_returns_leave_the_rewards_alone() -> None:
    reward = np.ones((4, 1))
    assert discounted_returns(reward, 0.5)[:, 0].tolist() == [1.875, 1.75, 1.5, 1.0]
    assert (reward == 1).all()


@pytest.mark.exercise("reinforce.discounted_returns")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_returns_have_the_type_of_the_rewards(dtype: type) -> None:
    found = discounted_returns(np.ones((3, 2), dtype), 0.3)
    assert found.dtype == dtype
    np.testing.assert_allclose(found[:, 1], [1.39, 1.3, 1.0], rtol=1e-6)


@pytest.mark.exercise("reinforce.discounted_returns")
def test_returns_of_whole_rewards_are_not_cut_to_whole_numbers() -> None:
    assert discounted_returns(np.array([[1], [1]]), 0.5).tolist() == [[1.5], [1.0]]


@pytest.mark.exercise("reinforce.discounted_returns")
def test_the_return_of_an_only_step_is_its_reward() -> None:
    assert discounted_returns(np.array([[3.0, -2.0]]), 0.9).tolist() == [[3.0, -2.0]]


@pytest.mark.exercise("reinforce.policy_loss")
@pytest.mark.parametrize("rows", [1, 5])
def test_loss_and_gradient_by_a_loop_over_their_rows(rows: int) -> None:
    """Returns far from the baseline on one side, so that nothing cancels in the mean."""
    generator = torch.Generator().manual_seed(0)
    log_prob = -torch.rand(rows, generator=generator, dtype=torch.float64)
    ret = 3 + torch.rand(rows, generator=generator, dtype=torch.float64)
    baseline = 1 + torch.rand(rows, generator=generator, dtype=torch.float64)
    kept = [x.clone() for x in (log_prob, ret, baseline)]
    log_prob.requires_grad_()
    loss = policy_loss(log_prob, ret, baseline)
    columns = zip(log_prob.tolist(), ret.tolist(), baseline.tolist(), strict=True)
    expected = -sum((g - v) * log for log, g, v in columns) / rows
    assert loss.shape == ()
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    torch.testing.assert_close(log_prob.grad, -(kept[1] - kept[2]) / rows)
    now = (log_prob.detach(), ret, baseline)
    assert all(torch.equal(a, b) for a, b in zip(now, kept, strict=True))


@pytest.mark.exercise("reinforce.policy_loss")
@pytest.mark.parametrize("baseline", [0.0, 0.6, -3.0])
def test_gradient_on_a_bandit_is_the_analytic_one(baseline: float) -> None:
    # Arms pay 2 and -1; pi = (1/4, 3/4). Four pulls in these proportions make the mean exact:
    # J = sum pi r and dJ/dlogit_i = pi_i (r_i - J), whatever the baseline.
    logits = torch.tensor([0.0, np.log(3.0)], dtype=torch.float64, requires_grad=True)
    arms, pay = torch.tensor([0, 1, 1, 1]), torch.tensor([2.0, -1.0], dtype=torch.float64)
    log_prob = logits.log_softmax(-1)[arms]
    policy_loss(log_prob, pay[arms], torch.full((4,), baseline, dtype=torch.float64)).backward()
    pi = torch.tensor([0.25, 0.75], dtype=torch.float64)
    torch.testing.assert_close(logits.grad, -pi * (pay - (pi * pay).sum()))


@pytest.mark.exercise("reinforce.policy_loss")
def test_no_gradient_reaches_the_baseline() -> None:
    baseline = torch.zeros(3, requires_grad=True)
    log_prob = torch.tensor([-0.5, -1.0, -2.0], requires_grad=True)
    policy_loss(log_prob, torch.tensor([1.0, 2.0, 3.0]), baseline).backward()
    assert baseline.grad is None or (baseline.grad == 0).all()
    assert log_prob.grad is not None


def test_every_environment_plays_one_whole_episode() -> None:
    envs = Environments("CartPole-v1", 6, max_episode_steps=12)
    agent = Reinforce(ReinforceSettings(), envs, 0.9, 64, torch.device("cpu"))
    agent.baseline = lambda obs: torch.full((len(obs), 1), 100.0)  # type: ignore[assignment]
    torch.manual_seed(0)
    episodes = agent.collect(envs)
    ends = [float(r) for r in episodes.ret if r < 1.5 or r > 90.5]
    # The last step of an episode: 1 if the pole fell, 1 + 0.9 * 100 if only the clock ran out.
    assert sorted(set(ends)) in ([1.0, 91.0], [91.0])
    assert len(ends) == 6
    assert len(episodes.obs) <= 6 * 12
