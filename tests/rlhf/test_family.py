"""Each method as the loop calls it: the right loss, of the right pairs, with gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alignment import dpo_loss
from pretraining import GPT
from rlhf import losses, preferences
from rlhf.evaluate import implicit_accuracy
from rlhf.family import Family
from rlhf.preferences import Pair, Rows
from rlhf.reward_model import RewardModel
from rlhf.settings import (
    DPOSettings,
    IPOSettings,
    KTOSettings,
    ORPOSettings,
    RewardSettings,
    SFTSettings,
    SimPOSettings,
)

SETTINGS = {
    "sft": SFTSettings(),
    "dpo": DPOSettings(beta=0.3, smoothing=0.1),
    "ipo": IPOSettings(tau=0.7),
    "kto": KTOSettings(beta=0.4, desirable=1.5, undesirable=0.5),
    "simpo": SimPOSettings(beta=1.3, gamma=0.2),
    "orpo": ORPOSettings(weight=0.6),
}


def expected(method: str, policy: GPT, reference: GPT, pairs: list[Pair]) -> Tensor:
    """The loss of pairs 2 and 0, put together by hand from log-probabilities of single rows."""

    def logp(model: GPT, prompt: list[int], answer: list[int]) -> Tensor:
        tokens = torch.tensor([[*prompt, *answer]])
        every = model(tokens).log_softmax(-1)[0]
        start = len(prompt)
        parts = [every[t - 1, tokens[0, t]] for t in range(start, tokens.shape[1])]
        return torch.stack(parts).sum()

    chosen, rejected, old, other = (
        torch.stack([logp(m, pairs[i].prompt, pairs[i][side]) for i in (2, 0)])
        for m in (policy, reference)
        for side in (1, 2)
    )
    n, m = (torch.tensor([len(pairs[i][side]) for i in (2, 0)]) for side in (1, 2))
    if method == "sft":
        return -(chosen.sum() + rejected.sum()) / (n.sum() + m.sum())
    if method == "dpo":
        right, _ = dpo_loss(chosen, rejected, old, other, 0.3)
        wrong, _ = dpo_loss(rejected, chosen, other, old, 0.3)
        return 0.9 * right + 0.1 * wrong
    if method == "ipo":
        return losses.ipo_loss(chosen, rejected, old, other, n, m, 0.7)
    if method == "simpo":
        return losses.simpo_loss(chosen, rejected, n, m, 1.3, 0.2)
    if method == "orpo":
        return losses.orpo_loss(chosen, rejected, n, m, 0.6)
    beside = [(pairs[2].prompt, pairs[0].chosen), (pairs[0].prompt, pairs[1].chosen)]
    moved = torch.stack([logp(policy, *row) - logp(reference, *row) for row in beside])
    ratio = torch.cat([chosen - old, rejected - other])
    good = torch.tensor([True, True, False, False])
    return losses.kto_loss(ratio, good, moved, 0.4, 1.5, 0.5)


@pytest.mark.parametrize("method", SETTINGS)
def test_loss_of_some_pairs(method: str, make_gpt: Callable[..., GPT], pairs: list[Pair]) -> None:
    policy, reference = make_gpt(0), make_gpt(1)
    index = torch.tensor([2, 0])
    family = Family(method, SETTINGS[method], pairs, reference, "cpu", index)
    assert len(family) == 3
    loss = family.loss(policy, index)
    torch.testing.assert_close(loss, expected(method, policy, reference, pairs))
    loss.backward()
    grad = policy.embedding.weight.grad
    assert grad is not None
    assert grad.isfinite().all()
    assert grad.any()
    assert all(p.grad is None for p in reference.parameters())


def test_the_reference_is_asked_for_what_is_needed_alone(
    make_gpt: Callable[..., GPT], pairs: list[Pair]
) -> None:
    family = Family("dpo", DPOSettings(), pairs, make_gpt(), "cpu", torch.tensor([1]))
    assert family.reference.isnan().all(dim=1).tolist() == [True, False, True]
    assert family.loss(make_gpt(), torch.tensor([1])).item() == pytest.approx(0.693147, rel=1e-5)


def test_the_reward_models_loss(make_gpt: Callable[..., GPT], pairs: list[Pair]) -> None:
    model = RewardModel(make_gpt())
    torch.nn.init.normal_(model.score.weight)
    family = Family("reward", RewardSettings(), pairs, make_gpt(), "cpu")
    rewards = model(preferences.table(pairs))[:2]
    right = -torch.sigmoid(rewards[:, 0] - rewards[:, 1]).log().mean()
    torch.testing.assert_close(family.loss(model, torch.tensor([0, 1])), right)


def test_implicit_accuracy(make_gpt: Callable[..., GPT], pairs: list[Pair]) -> None:
    """A policy that is its reference prefers nothing; another one is counted by hand."""
    policy, reference = make_gpt(0), make_gpt(1)
    assert implicit_accuracy(policy, policy, pairs, "cpu") == 50
    rows = preferences.table(pairs)
    with torch.no_grad():
        ratio = preferences.answer_logps(policy, rows) - preferences.answer_logps(reference, rows)
    ahead = [(a > b) for a, b in ratio.tolist()]
    assert implicit_accuracy(policy, reference, pairs, "cpu") == pytest.approx(100 * sum(ahead) / 3)
    swapped = [Pair(p.prompt, p.rejected, p.chosen) for p in pairs]
    assert implicit_accuracy(policy, reference, swapped, "cpu") == pytest.approx(
        100 - 100 * sum(ahead) / 3
    )
    assert isinstance(rows, Rows)
