"""The reward model: where it reads, what it learns, and what its probabilities are worth."""

import math
from collections.abc import Callable

import pytest
import torch

from pretraining import GPT
from rlhf import reward_model
from rlhf.preferences import Pair, Rows, table
from rlhf.reward_model import RewardModel


@pytest.mark.exercise("reward_model.last_state")
def test_the_state_at_the_last_token() -> None:
    states = torch.randn(4, 5, 3)
    kept = states.clone()
    mask = torch.tensor([
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0],
        [0, 0, 1, 1, 0],
    ]).bool()  # fmt: skip
    found = reward_model.last_state(states, mask)
    assert torch.equal(found, torch.stack([kept[0, 2], kept[1, 4], kept[2, 0], kept[3, 3]]))
    assert torch.equal(states, kept)
    one = reward_model.last_state(states[:1], mask[:1])
    assert torch.equal(one, kept[:1, 2])


@pytest.mark.exercise("reward_model.last_state")
def test_the_state_keeps_gradient_and_device() -> None:
    states = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[False, True, False], [False, True, True]])
    reward_model.last_state(states, mask).sum().backward()
    assert states.grad is not None
    assert states.grad.sum(-1).tolist() == [[0, 4, 0], [0, 0, 4]]
    found = reward_model.last_state(states.to("meta"), mask.to("meta"))
    assert (found.device.type, found.dtype, found.shape) == ("meta", torch.float64, (2, 4))


@pytest.mark.exercise("reward_model.bradley_terry_loss")
@pytest.mark.parametrize("pairs", [1, 4])
def test_bradley_terry_by_the_probability(pairs: int) -> None:
    g = torch.Generator().manual_seed(1)
    values = [torch.randn(pairs, generator=g, dtype=torch.float64) for _ in range(2)]
    ours = [v.clone().requires_grad_() for v in values]
    loss = reward_model.bradley_terry_loss(*ours)
    loss.backward()
    chosen, rejected = (v.exp() for v in values)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss.detach(), -(chosen / (chosen + rejected)).log().mean())
    wrong = rejected / (chosen + rejected) / pairs
    torch.testing.assert_close(ours[0].grad, -wrong)
    torch.testing.assert_close(ours[1].grad, wrong)
    assert all(torch.equal(a.detach(), b) for a, b in zip(ours, values, strict=True))


@pytest.mark.exercise("reward_model.bradley_terry_loss")
def test_bradley_terry_of_large_differences() -> None:
    far = torch.tensor([1e4], requires_grad=True)
    assert reward_model.bradley_terry_loss(far, -far).item() == 0
    loss = reward_model.bradley_terry_loss(-far, far * 0)
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert far.grad is not None
    assert far.grad.item() == pytest.approx(1)


@pytest.mark.exercise("reward_model.calibration_error")
def test_calibration_by_a_loop_over_bins() -> None:
    g = torch.Generator().manual_seed(2)
    for bins in (1, 4, 10):
        probability = torch.rand(50, generator=g, dtype=torch.float64)
        correct = torch.rand(50, generator=g) < 0.6
        expected = 0.0
        for k in range(bins):
            inside = [
                (p, c)
                for p, c in zip(probability.tolist(), correct.tolist(), strict=True)
                if k / bins < p <= (k + 1) / bins
            ]
            if inside:
                gap = sum(c for _, c in inside) - sum(p for p, _ in inside)
                expected += abs(gap) / 50
        kept = probability.clone()
        found = reward_model.calibration_error(probability, correct, bins)
        assert found.shape == ()
        assert found.item() == pytest.approx(expected)
        assert torch.equal(probability, kept)


@pytest.mark.exercise("reward_model.calibration_error")
def test_calibration_at_the_edges_of_bins() -> None:
    """0 is in the first bin and 1 in the last; ten bins, unless told otherwise."""
    probability = torch.tensor([0.0, 0.1, 1.0, 0.95])
    correct = torch.tensor([True, False, True, False])
    first, last = abs(1 - 0.1) / 4, abs(1 - 1.95) / 4
    found = reward_model.calibration_error(probability, correct)
    assert found.item() == pytest.approx(first + last)
    apart = torch.tensor([0.05, 0.15])  # neighbours, whose gaps have opposite signs
    found = reward_model.calibration_error(apart, torch.tensor([True, False]))
    assert found.item() == pytest.approx((0.95 + 0.15) / 2)
    quarter = torch.tensor([0.25, 0.5])  # each closes its own bin of four
    found = reward_model.calibration_error(quarter, torch.tensor([True, False]), 4)
    assert found.item() == pytest.approx((0.75 + 0.5) / 2)


@pytest.mark.exercise("reward_model.calibration_error")
def test_calibration_on_other_devices() -> None:
    probability = torch.rand(3, device="meta", dtype=torch.float64)
    found = reward_model.calibration_error(probability, probability > 0.5)
    assert (found.device.type, found.dtype) == ("meta", torch.float64)


def test_padding_changes_no_reward(make_gpt: Callable[..., GPT], pairs: list[Pair]) -> None:
    model = RewardModel(make_gpt())
    torch.nn.init.normal_(model.score.weight)
    rows = table(pairs)
    with torch.no_grad():
        found = model(rows)
        assert found.shape == (3, 2)
        for number, pair in enumerate(pairs):
            for side, answer in enumerate(pair[1:]):
                tokens = torch.tensor([[*pair.prompt, *answer]])
                alone = model(Rows(tokens, torch.ones_like(tokens).bool()))
                torch.testing.assert_close(found[number, side], alone[0])


def test_it_is_a_copy_that_begins_at_zero(make_gpt: Callable[..., GPT], pairs: list[Pair]) -> None:
    base = make_gpt()
    model = RewardModel(base)
    assert not model(table(pairs)).any()
    assert model.trunk.embedding.weight is not base.embedding.weight


def test_standardised_rewards(make_gpt: Callable[..., GPT], pairs: list[Pair]) -> None:
    """Twice: the second time changes nothing."""
    model = RewardModel(make_gpt())
    torch.nn.init.normal_(model.score.weight)
    with torch.no_grad():
        before = model(table(pairs))
        for _ in range(2):
            model.standardise(model(table(pairs)))
            after = model(table(pairs))
            assert after.mean().item() == pytest.approx(0, abs=1e-5)
            assert after.std(correction=0).item() == pytest.approx(1, rel=1e-4)
    assert torch.equal(before.flatten().argsort(), after.flatten().argsort())


def test_pair_quality() -> None:
    rewards = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0], [0.5, 0.4]])
    found = reward_model.pair_quality(rewards)
    sure = [1 / (1 + math.exp(-gap)) for gap in (2, 1, 2, 0.1)]
    assert found["accuracy"] == 75
    expected = (abs(2 - 2 * sure[0]) + abs(0 - sure[1]) + abs(1 - sure[3])) / 4
    assert found["calibration_error"] == pytest.approx(100 * expected)
