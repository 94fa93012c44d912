"""Preferences against equation 1 by hand; the judge, the segments and the paid environments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labkit import RunFailed, UsageError
from reinforcement_learning import Environments
from rlhf.trajectories.behaviour import (
    ScriptedJudge,
    ask,
    find_behaviour,
    left,
    rock,
)
from rlhf.trajectories.evaluate import Agreement, hidden_return
from rlhf.trajectories.reward import (
    Comparisons,
    RewardEnsemble,
    fit,
    log_preference,
    preference_loss,
)
from rlhf.trajectories.segments import (
    History,
    PaidEnvironments,
    draw_pairs,
    first_episodes,
    most_disputed,
    segment_starts,
)


@pytest.mark.exercise("trajectories.reward.log_preference")
@pytest.mark.parametrize(("b", "k"), [(5, 7), (1, 3), (4, 1), (2, 2)])
@pytest.mark.parametrize("error", [0.0, 0.1, 0.5])
def test_the_probability_is_that_of_the_summed_rewards(b: int, k: int, error: float) -> None:
    rewards = torch.randn(b, 2, k, generator=torch.Generator().manual_seed(b), dtype=torch.float64)
    before = rewards.clone()
    found = log_preference(rewards, error)
    assert torch.equal(rewards, before)
    assert found.shape == (b, 2)
    for row, logs in zip(rewards.tolist(), found.tolist(), strict=True):
        one, two = (math.exp(sum(segment)) for segment in row)
        for strength, log in zip((one, two), logs, strict=True):
            p = (1 - error) * strength / (one + two) + error / 2
            assert log == pytest.approx(math.log(p))
    assert torch.allclose(found.exp().sum(dim=1), torch.ones(b, dtype=torch.float64))


@pytest.mark.exercise("trajectories.reward.log_preference")
def test_longer_segments_decide_more_clearly() -> None:
    """A sum, not a mean: 20 steps that are better by 0.1 count like one that is better by 2."""
    long, short = torch.zeros(1, 2, 20), torch.zeros(1, 2, 1)
    long[:, 0], short[:, 0] = 0.1, 2.0
    expected = torch.tensor([[2.0, 0.0]]).log_softmax(dim=1)
    assert torch.allclose(log_preference(long, 0.0), expected)
    assert torch.allclose(log_preference(short, 0.0), expected)


@pytest.mark.exercise("trajectories.reward.log_preference")
@pytest.mark.parametrize("error", [0.0, 0.1])
@pytest.mark.parametrize("sign", [1, -1])
def test_enormous_rewards_stay_finite(error: float, sign: int) -> None:
    rewards = torch.zeros(1, 2, 4)
    rewards[:, 0] = sign * 500.0
    rewards.requires_grad_()
    logs = log_preference(rewards, error)
    better, worse = (0, 1) if sign > 0 else (1, 0)
    expected = [math.log(1 - error / 2), math.log(error / 2) if error else -2000.0]
    assert [logs[0, better].item(), logs[0, worse].item()] == pytest.approx(expected, abs=1e-5)
    logs.sum().backward()
    assert rewards.grad is not None
    assert rewards.grad.isfinite().all()
    slope = 0.0 if error else -float(sign)  # a mistaken judge teaches nothing out there
    assert rewards.grad[0, 0].tolist() == pytest.approx([slope] * 4, abs=1e-6)


@pytest.mark.exercise("trajectories.reward.log_preference")
def test_the_gradient_raises_the_preferred_segment() -> None:
    rewards = torch.zeros(3, 2, 4, requires_grad=True)
    log_preference(rewards, 0.2)[:, 0].sum().backward()
    assert rewards.grad is not None
    assert torch.allclose(rewards.grad[:, 0], torch.full((3, 4), 0.8 * 0.5 * 0.5 / 0.5))
    assert torch.allclose(rewards.grad[:, 1], -rewards.grad[:, 0])


@pytest.mark.exercise("trajectories.reward.preference_loss")
def test_the_loss_is_the_cross_entropy_of_the_choices() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 2, generator=generator)
    logs = scores.log_softmax(dim=1).requires_grad_()
    choice = torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0])
    kept = choice.clone()
    loss = preference_loss(logs, choice)
    target = torch.stack([choice, 1 - choice], dim=1)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(F.cross_entropy(scores, target).item())
    loss.backward()
    assert logs.grad is not None
    assert torch.allclose(logs.grad, -target / 5)
    assert torch.equal(choice, kept)


@pytest.mark.exercise("trajectories.reward.preference_loss")
def test_the_loss_of_one_comparison() -> None:
    logs = torch.tensor([[math.log(0.9), math.log(0.1)]])
    for choice, expected in ((1.0, 0.9), (0.0, 0.1)):
        loss = preference_loss(logs, torch.tensor([choice]))
        assert loss.item() == pytest.approx(-math.log(expected))
    even = preference_loss(logs, torch.tensor([0.5]))
    assert even.item() == pytest.approx(-(math.log(0.9) + math.log(0.1)) / 2)


@pytest.mark.exercise("trajectories.reward.log_preference")
@pytest.mark.parametrize("error", [0.0, 0.1])
def test_preferences_are_computed_where_the_rewards_are(error: float) -> None:
    found = log_preference(torch.empty(3, 2, 5, device="meta"), error)
    assert (found.device.type, found.dtype, found.shape) == ("meta", torch.float32, (3, 2))


@pytest.mark.exercise("trajectories.reward.preference_loss")
def test_the_loss_is_computed_where_the_choices_are() -> None:
    found = preference_loss(torch.empty(3, 2, device="meta"), torch.empty(3, device="meta"))
    assert (found.device.type, found.shape) == ("meta", ())


def test_behaviours_and_their_names() -> None:
    obs = np.zeros((3, 4))
    obs[:, 0], obs[:, 1] = [-1.0, -0.6, 1.0], [0.5, -3.0, 0.0]
    assert left(obs) == pytest.approx([1.0, math.exp(-1), math.exp(-25)])
    assert rock(obs).tolist() == [0.5, 1.0, 0.0]
    assert find_behaviour("left") is left
    assert find_behaviour("math:hypot") is math.hypot  # type: ignore[comparison-overlap]
    for name in ("right", "no_such:f", "math:no_such"):
        with pytest.raises(UsageError, match=f"behaviour={name} is neither left nor rock"):
            find_behaviour(name)


def test_the_judge_prefers_the_larger_sum_and_errs_at_the_rate_stated() -> None:
    good, bad = np.zeros((6, 4)), np.zeros((6, 4))
    good[:, 0], bad[:, 0] = -1, 1
    strict = ScriptedJudge(left, 0.0, np.random.default_rng(0))
    assert [strict(good, bad), strict(bad, good), strict(good, good)] == [1.0, 0.0, 0.5]
    erring = ScriptedJudge(left, 0.2, np.random.default_rng(0))
    pairs = np.stack([np.stack([good, bad])] * 4000)
    assert ask(erring, pairs).mean() == pytest.approx(0.9, abs=0.02)
    assert ask(erring, pairs[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (lambda a, b: 1 / 0, "the judge raised ZeroDivisionError at comparison 1 of 2"),
        (lambda a, b: None, "the judge raised TypeError"),
        (lambda a, b: float("nan"), "the judge answered nan at comparison 1 of 2; expected is 1"),
        (lambda a, b: 2, "the judge answered 2"),
        (lambda a, b: -1, "the judge answered -1"),
    ],
)
def test_a_judge_that_fails_is_named(judge: Any, said: str) -> None:
    with pytest.raises(RunFailed, match=said):
        ask(judge, np.zeros((2, 2, 3, 4)))


def history(seed: int = 0, steps: int = 30, envs: int = 3) -> History:
    """Steps numbered by themselves, with ends, and a restart after each end."""
    rng = np.random.default_rng(seed)
    done = rng.random((steps, envs)) < 0.15
    valid = np.ones((steps, envs), bool)
    valid[1:] = ~done[:-1]
    done &= valid
    valid[1:] = ~done[:-1]
    obs = np.stack(np.meshgrid(np.arange(steps), np.arange(envs), indexing="ij"), axis=-1)
    return History(obs.astype(np.float32), obs[..., 0] % 2, valid, done)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_segments_lie_inside_one_episode(length: int) -> None:
    rows = history()
    expected = {
        (t, n)
        for t in range(30 - length + 1)
        for n in range(3)
        if rows.valid[t : t + length, n].all() and not rows.done[t : t + length - 1, n].any()
    }
    assert {tuple(x) for x in segment_starts(rows, length).tolist()} == expected
    assert expected


def test_pairs_of_segments_are_consecutive_steps_of_one_environment() -> None:
    rows = history()
    obs, action = draw_pairs(rows, 4, 50, np.random.default_rng(0))
    assert obs.shape == (50, 2, 4, 2)
    assert action.shape == (50, 2, 4)
    assert (np.diff(obs[..., 0], axis=2) == 1).all()
    assert (np.diff(obs[..., 1], axis=2) == 0).all()
    assert (obs[..., 0] % 2 == action).all()
    starts = {tuple(x) for x in segment_starts(rows, 4).tolist()}
    assert {(int(t), int(n)) for t, n in obs[:, :, 0].reshape(-1, 2)} <= starts
    assert draw_pairs(rows, 31, 5, np.random.default_rng(0))[0].shape == (0, 2, 31, 2)


def test_environments_are_paid_by_the_reward_given() -> None:
    def seen(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        return obs[:, 0] + 10 * action

    envs, plain = PaidEnvironments("CartPole-v1", 3, seen), Environments("CartPole-v1", 3)
    unpaid = PaidEnvironments("CartPole-v1", 3, None)
    for each in (envs, plain, unpaid):
        each.reset(seed=1)
    rng = np.random.default_rng(0)
    taken = []
    for _ in range(40):
        action = rng.integers(2, size=3)
        ours, theirs, own = (each.step(action) for each in (envs, plain, unpaid))
        assert np.array_equal(ours.next_obs, theirs.next_obs)
        assert np.array_equal(ours.reward, theirs.obs[:, 0] + 10 * action)
        assert np.array_equal(own.reward, theirs.reward)
        taken.append(theirs)
    rows = envs.take_history()
    assert rows.obs.shape == (40, 3, 4)
    assert np.array_equal(rows.done[7], taken[7].terminated | taken[7].truncated)
    assert np.array_equal(rows.valid[9], taken[9].valid)
    envs.step(action)
    assert envs.take_history().obs.shape == (1, 3, 4)


def test_only_first_episodes_count() -> None:
    obs = np.ones((4, 2, 1), np.float32)
    done = np.array([[0, 0], [1, 0], [0, 0], [1, 0]], bool)
    valid = np.array([[1, 1], [1, 1], [0, 1], [1, 1]], bool)
    returns, lengths = first_episodes(
        History(obs, np.zeros((4, 2)), valid, done), lambda x: 2 * x[..., 0]
    )
    assert returns.tolist() == [4.0, 8.0]
    assert lengths.tolist() == [2, 4]


def test_a_hidden_return_is_that_of_week_13_when_the_reward_is_its_own() -> None:
    from reinforcement_learning import episode_returns

    envs = Environments("CartPole-v1", 20)
    act = lambda obs: (obs[:, 2] > 0).astype(np.int64)  # noqa: E731
    score, length, _ = hidden_return(act, envs, lambda obs: np.ones(obs.shape[:-1]), 5)
    assert score == length == episode_returns(act, envs, 5).mean()


def test_the_reward_is_the_mean_of_the_members_with_its_lowest_at_zero() -> None:
    torch.manual_seed(0)
    model = RewardEnsemble(4, 2, 8, 3)
    obs, action = np.random.default_rng(0).normal(size=(500, 4)), np.arange(500) % 2
    obs = obs.astype(np.float32)
    raw = model(torch.from_numpy(obs), torch.from_numpy(action)).mean(dim=0).detach().numpy()
    assert model.reward(obs, action) == pytest.approx(raw)
    model.normalise(torch.from_numpy(obs), torch.from_numpy(action))
    found = model.reward(obs, action)
    assert (found < 0).mean() == pytest.approx(0.05, abs=0.005)
    assert found.std(ddof=1) == pytest.approx(1, rel=1e-4)
    assert np.corrcoef(found, raw)[0, 1] == pytest.approx(1)
    assert model.reward(obs[:, None], action[:, None]).shape == (500, 1)
    assert not np.allclose(model.reward(obs, action), model.reward(obs, 1 - action))
    with torch.no_grad():
        model.members[1][0].weight.fill_(float("nan"))  # type: ignore[index]
    with pytest.raises(RunFailed, match="the reward model has diverged; try a smaller reward_lr="):
        model.reward(obs, action)


def test_a_reward_is_recovered_from_comparisons() -> None:
    """Steps are worth their first number; the judge sees sums of three of them."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(400, 2, 3, 2)).astype(np.float32)
    action = rng.integers(2, size=(400, 2, 3))
    known = Comparisons(500, 3, 2)
    judge = ScriptedJudge(lambda x: x[..., 0], 0.1, rng)
    known.add(obs[:150], action[:150], ask(judge, obs[:150]))
    known.add(obs[150:], action[150:], ask(judge, obs[150:]))
    assert len(known) == 400
    assert np.array_equal(known.tensors(torch.device("cpu"))[0].numpy(), obs)
    model = RewardEnsemble(2, 2, 16, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    logged = fit(model, optimizer, known, 80, 64, 0.1, rng)
    assert 0.8 < logged["reward/agreement"] <= 1
    assert logged["reward/loss"] < 0.45
    test = rng.normal(size=(1000, 2)).astype(np.float32)
    found = model.reward(test, rng.integers(2, size=1000))
    assert np.corrcoef(found, test[:, 0])[0, 1] > 0.9
    other = Comparisons(500, 3, 2)
    other.load_state_dict(known.state_dict())
    assert len(other) == 400
    assert np.array_equal(other.choice, known.choice)


def test_the_most_disputed_pairs_come_first() -> None:
    torch.manual_seed(0)
    model = RewardEnsemble(2, 2, 8, 4)
    rng = np.random.default_rng(0)
    obs, action = (
        rng.normal(size=(60, 2, 5, 2)).astype(np.float32),
        rng.integers(2, size=(60, 2, 5)),
    )
    found = most_disputed(model, obs, action, 10)
    with torch.no_grad():
        rewards = model(torch.from_numpy(obs), torch.from_numpy(action))  # (E, M, 2, k)
    p = [log_preference(rewards[e], 0.0)[:, 0].exp().numpy() for e in range(4)]
    variance = np.var(p, axis=0)
    assert found.tolist() == np.argsort(-variance)[:10].tolist()
    assert most_disputed(model, obs[:0], action[:0], 3).shape == (0,)


def test_agreement_of_two_rewards() -> None:
    true = np.array([1.0, 2, 3, 4, 5, 6])
    assert Agreement(true, 10 * true).rank_correlation == pytest.approx(1)
    assert Agreement(true, -true).rank_correlation == pytest.approx(-1)
    assert Agreement(true, true * 0).rank_correlation == 0.0
    mixed = Agreement(true, np.array([1.0, 2, 9, 4, 5, 6]))
    assert mixed.accuracy == pytest.approx(2 / 3)  # pairs are 1 with 4, 2 with 5, 3 with 6
    assert Agreement(np.array([1.0, 2, 1, 3]), np.array([5.0, 1, 4, 2])).accuracy == 1.0
