"""PPO on answers: rewards of tokens, advantages, and what an update changes."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from labkit import RunFailed
from pretraining import GPT
from rlhf import ppo
from rlhf.ppo import PPO, Actor
from rlhf.preferences import Rows, collate, token_logps
from rlhf.reward_model import RewardModel
from rlhf.settings import PPOSettings

MASK = torch.tensor([
    [0, 1, 1, 1, 0],
    [0, 0, 0, 1, 1],
    [0, 0, 1, 0, 0],
]).bool()  # fmt: skip


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.exercise("ppo.penalised_rewards")
@pytest.mark.parametrize("rows", [[0, 1, 2], [1]])
@pytest.mark.parametrize("beta", [0.0, 0.3, 2.0])
def test_rewards_token_by_token(rows: list[int], beta: float) -> None:
    mask, score = MASK[rows], numbers(3)[rows]
    logps, ref = numbers(3, 5, seed=1)[rows], numbers(3, 5, seed=2)[rows]
    kept = [x.clone() for x in (score, logps, ref, mask)]
    found = ppo.penalised_rewards(score, logps, ref, mask, beta)
    assert (found.shape, found.dtype) == (mask.shape, torch.float64)
    for n in range(len(rows)):
        places = [t for t in range(5) if mask[n, t]]
        for t in range(5):
            expected = 0.0
            if t in places:
                expected = -beta * (logps[n, t] - ref[n, t]).item()
                expected += score[n].item() if t == places[-1] else 0.0
            assert found[n, t].item() == pytest.approx(expected)
    assert all(torch.equal(a, b) for a, b in zip((score, logps, ref, mask), kept, strict=True))


@pytest.mark.exercise("ppo.penalised_rewards")
def test_rewards_sum_to_score_less_kl() -> None:
    score, logps, ref = numbers(3), numbers(3, 5, seed=1), numbers(3, 5, seed=2)
    total = ppo.penalised_rewards(score, logps, ref, MASK, 0.5).sum(1)
    torch.testing.assert_close(total, score - 0.5 * ((logps - ref) * MASK).sum(1))


@pytest.mark.exercise("ppo.penalised_rewards")
def test_rewards_on_other_devices() -> None:
    score, logps, mask = numbers(3).to("meta"), numbers(3, 5).to("meta"), MASK.to("meta")
    assert ppo.penalised_rewards(score, logps, logps, mask, 0.1).device.type == "meta"


@pytest.mark.exercise("ppo.whiten")
def test_whitening_ignores_what_is_outside() -> None:
    x = numbers(3, 5)
    x[~MASK] = 1e9
    kept = x.clone()
    found = ppo.whiten(x, MASK)
    inside = x[MASK].tolist()
    mean = sum(inside) / len(inside)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in inside) / len(inside))
    assert found[MASK].tolist() == pytest.approx([(v - mean) / deviation for v in inside])
    assert not found[~MASK].any()
    assert (found.dtype, found.shape) == (torch.float64, (3, 5))
    assert torch.equal(x, kept)


@pytest.mark.exercise("ppo.whiten")
def test_whitening_of_equal_numbers_is_finite() -> None:
    found = ppo.whiten(torch.full((2, 3), 4.0), torch.tensor([[1, 1, 0], [0, 1, 0]]).bool())
    assert found.tolist() == [[0, 0, 0], [0, 0, 0]]
    small = ppo.whiten(torch.tensor([[1e-8, -1e-8]]), torch.ones(1, 2).bool())
    assert small.tolist() == [pytest.approx([0.5, -0.5], rel=1e-3)]


@pytest.mark.exercise("ppo.value_loss")
@pytest.mark.parametrize("clip", [0.2, 0.7])
def test_value_loss_by_a_loop(clip: float) -> None:
    value, old, target = (numbers(3, 5, seed=k) for k in (3, 4, 5))
    kept = [x.clone() for x in (value, old, target)]
    ours = value.clone().requires_grad_()
    loss = ppo.value_loss(ours, old, target, MASK, clip)
    loss.backward()
    terms, slopes = [], torch.zeros(3, 5, dtype=torch.float64)
    for n, t in MASK.nonzero().tolist():
        v, o, y = (x[n, t].item() for x in (value, old, target))
        near = min(max(v, o - clip), o + clip)
        free, held = (v - y) ** 2, (near - y) ** 2
        terms.append(max(free, held))
        if free >= held:
            slopes[n, t] = v - y
    assert loss.item() == pytest.approx(sum(terms) / len(terms) / 2)
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, slopes / len(terms))
    assert all(torch.equal(a, b) for a, b in zip((value, old, target), kept, strict=True))


@pytest.mark.exercise("ppo.value_loss")
def test_moving_too_far_gains_nothing() -> None:
    """The target is 3 away: a step of 2 costs as much as one of `clip`, and has no slope."""
    mask = torch.ones(1, 1).bool()
    value = torch.tensor([[2.0]], requires_grad=True)
    loss = ppo.value_loss(value, torch.zeros(1, 1), torch.full((1, 1), 3.0), mask, 0.5)
    loss.backward()
    assert loss.item() == pytest.approx(2.5**2 / 2)
    assert value.grad is not None
    assert value.grad.item() == 0


def test_advantages_of_whole_answers() -> None:
    """With lambda 1, target = sum of the rewards to come; nothing flows in from padding."""
    rewards, values = numbers(3, 5) * MASK, numbers(3, 5, seed=1)
    advantages, targets = ppo.advantages_of(rewards, values, MASK, 1.0)
    for n, t in MASK.nonzero().tolist():
        to_come = rewards[n, t:].sum().item()
        assert targets[n, t].item() == pytest.approx(to_come)
        assert advantages[n, t].item() == pytest.approx(to_come - values[n, t].item())
    assert not advantages[~MASK].any()
    one_step, _ = ppo.advantages_of(rewards, values, MASK, 0.0)
    assert one_step[0, 1].item() == pytest.approx(
        (rewards[0, 1] + values[0, 2] - values[0, 1]).item()
    )


def test_actor_is_its_policy(make_gpt: Callable[..., GPT]) -> None:
    actor = Actor(make_gpt())
    rows = collate([[5, 6], [3, 4, 10]], [[7, 8, 0], [9, 0]])
    torch.nn.init.normal_(actor.value.weight)
    logps, values = actor(rows)
    torch.testing.assert_close(logps, token_logps(actor.policy, rows))
    states = actor.policy.hidden(rows.tokens)
    for n, t in rows.mask.nonzero().tolist():
        torch.testing.assert_close(values[n, t], actor.value(states[n, t - 1])[0])
    assert not values[~rows.mask].any()


class Likes(RewardModel):
    """A reward that can be computed by hand: the share of odd tokens in the answer."""

    def forward(self, rows: Rows) -> Tensor:
        return ((rows.tokens % 2 == 1) & rows.mask).sum(1) / rows.mask.sum(1)


def make(actor: Actor, reference: GPT, beta: float, reward: RewardModel) -> PPO:
    optimizer = torch.optim.AdamW(actor.parameters(), 1e-2, weight_decay=0.0)
    settings = PPOSettings(beta=beta, epochs=2, minibatches=2)
    return PPO(actor, reference, reward, optimizer, settings, 6, 0, 1.0)


def test_it_learns_what_is_rewarded(make_gpt: Callable[..., GPT]) -> None:
    """And less of it where KL is dear."""
    prompts = [[5, 6], [3, 4, 10]] * 32
    ends = {}
    for beta in (0.0, 1.0):
        actor, reference = Actor(make_gpt()), make_gpt()
        learner = make(actor, reference, beta, Likes(reference))
        logs = []
        for step in range(12):
            generator = torch.Generator().manual_seed(step)
            rollout = learner.collect(prompts, generator)
            if step == 0:
                torch.testing.assert_close(rollout.logps, rollout.ref_logps)
                assert rollout.advantages[rollout.rows.mask].mean().abs() < 1e-5
            logs.append(learner.update(rollout, generator))
        ends[beta] = {name: value.item() for name, value in logs[-1].items()}
        assert ends[beta]["train/reward"] > logs[0]["train/reward"] + 0.02
    assert ends[0.0]["train/reward"] > ends[1.0]["train/reward"] + 0.05
    assert ends[0.0]["train/kl"] > 2 * ends[1.0]["train/kl"]


def test_a_reward_that_is_no_number_ends_the_run(make_gpt: Callable[..., GPT]) -> None:
    reference = make_gpt()
    reward = RewardModel(reference)
    torch.nn.init.constant_(reward.score.weight, math.nan)
    learner = make(Actor(make_gpt()), reference, 0.1, reward)
    with pytest.raises(RunFailed, match=r"not finite.*experiment=reward"):
        learner.collect([[5, 6]], torch.Generator().manual_seed(0))
