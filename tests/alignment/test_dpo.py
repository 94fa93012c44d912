"""DPO against trl's DPOTrainer: the loss, and the gradient of every weight."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment import dpo
from alignment.chat import Example
from alignment.dpo import pair_batches
from alignment.loss import sequence_logps

BETA = 0.3
PAIRS = [
    (Example([5, 6, 7, 8, 0], 2), Example([5, 6, 9, 0], 2)),
    (Example([3, 4, 11, 0], 2), Example([3, 4, 12, 13, 14, 15, 0], 2)),
    (Example([1, 2, 3, 20, 21, 0], 3), Example([1, 2, 3, 22, 0], 3)),
]


def logps(seed: int = 0) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [-3 * torch.rand(5, generator=g) for _ in range(4)]


@pytest.mark.exercise("dpo.dpo_loss")
def test_loss_and_margins_by_the_formula() -> None:
    chosen, rejected, ref_chosen, ref_rejected = logps()
    loss, margins = dpo.dpo_loss(chosen, rejected, ref_chosen, ref_rejected, BETA)
    rewards = [BETA * (chosen - ref_chosen), BETA * (rejected - ref_rejected)]
    torch.testing.assert_close(margins, rewards[0] - rewards[1])
    # P(chosen preferred) of Bradley and Terry, from the two exponentials
    odds = rewards[0].exp() / (rewards[0].exp() + rewards[1].exp())
    torch.testing.assert_close(loss, -odds.log().mean())


@pytest.mark.exercise("dpo.dpo_loss")
def test_a_policy_that_is_its_reference_pays_log_two() -> None:
    chosen, rejected, *_ = logps()
    loss, margins = dpo.dpo_loss(chosen, rejected, chosen, rejected, BETA)
    assert loss.item() == pytest.approx(0.6931472)
    assert not margins.any()


@pytest.mark.exercise("dpo.dpo_loss")
def test_large_margins_do_not_overflow() -> None:
    far = torch.tensor([1e4])
    zero = torch.zeros(1)
    assert dpo.dpo_loss(far, zero, zero, zero, 1.0)[0].item() == 0
    assert dpo.dpo_loss(zero, far, zero, zero, 1.0)[0].item() == pytest.approx(1e4)


@pytest.mark.exercise("dpo.dpo_loss")
@pytest.mark.parametrize("pairs", [1, 4])
@pytest.mark.parametrize("beta", [0.05, 2.0])
def test_gradients_reach_both_answers(pairs: int, beta: float) -> None:
    """d loss / d chosen = -beta sigmoid(-margin) / N, and the opposite for the rejected answer."""
    values = [v[:pairs].double() for v in logps(1)]
    kept = [v.clone() for v in values]
    for value in values[:2]:
        value.requires_grad_()
    loss, margins = dpo.dpo_loss(*values, beta)
    loss.backward()
    chosen, rejected, ref_chosen, ref_rejected = kept
    expected = beta * (chosen - ref_chosen - rejected + ref_rejected)
    slope = -beta / (1 + expected.exp()) / pairs
    assert (loss.dtype, loss.shape, margins.shape) == (torch.float64, (), (pairs,))
    torch.testing.assert_close(margins.detach(), expected)
    torch.testing.assert_close(loss.detach(), (1 + (-expected).exp()).log().mean())
    torch.testing.assert_close(values[0].grad, slope)
    torch.testing.assert_close(values[1].grad, -slope)
    now = [v.detach() for v in values]
    assert all(torch.equal(a, b) for a, b in zip(now, kept, strict=True)), "no argument is changed"


@pytest.mark.exercise("dpo.dpo_loss")
@pytest.mark.parametrize(("sign", "slope"), [(1.0, 0.0), (-1.0, -0.5)])
def test_gradients_of_large_margins_are_finite(sign: float, slope: float) -> None:
    chosen = torch.tensor([sign * 1e4], requires_grad=True)
    zero = torch.zeros(1)
    dpo.dpo_loss(chosen, zero, zero, zero, 0.5)[0].backward()
    assert chosen.grad is not None
    assert chosen.grad.tolist() == [slope]


@pytest.mark.exercise("dpo.dpo_slope")
@pytest.mark.parametrize("pairs", [1, 4])
@pytest.mark.parametrize("beta", [0.05, 2.0])
def test_slope_by_a_loop_over_its_pairs(pairs: int, beta: float) -> None:
    margins = torch.linspace(-3, 2, pairs, dtype=torch.float64)
    kept = margins.clone()
    found = dpo.dpo_slope(margins, beta)
    assert (found.dtype, found.shape) == (torch.float64, (pairs,))
    expected = [-beta / (1 + math.exp(m)) / pairs for m in kept.tolist()]
    assert found.tolist() == pytest.approx(expected)
    assert torch.equal(margins, kept)


@pytest.mark.exercise("dpo.dpo_slope")
def test_slope_of_large_margins_is_finite() -> None:
    assert dpo.dpo_slope(torch.tensor([1e4, -1e4]), 0.5).tolist() == [0.0, -0.25]


@pytest.mark.exercise("dpo.dpo_slope")
def test_slope_is_the_derivative() -> None:
    """Autograd of the loss written out here."""
    chosen, rejected, ref_chosen, ref_rejected = logps()
    chosen.requires_grad_()
    rejected.requires_grad_()
    margins = BETA * (chosen - ref_chosen - rejected + ref_rejected)
    loss = (1 + (-margins).exp()).log().mean()
    up, down = torch.autograd.grad(loss, [chosen, rejected])
    slope = dpo.dpo_slope(margins.detach(), BETA)
    torch.testing.assert_close(slope, up)
    torch.testing.assert_close(-slope, down)


def trl_step(policy: Any, reference: Any, tokenizer: Any, folder: Path) -> float:
    """The loss by trl's DPOTrainer on PAIRS; the gradients are left in `policy`."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [
        {
            "prompt_ids": chosen.tokens[: chosen.prompt],
            "chosen_ids": chosen.answer,
            "rejected_ids": rejected.answer,
        }
        for chosen, rejected in PAIRS
    ]
    settings = DPOConfig(
        output_dir=str(folder), beta=BETA, use_cpu=True, bf16=False, gradient_checkpointing=False,
        report_to="none", per_device_train_batch_size=len(rows), max_length=None,
    )  # fmt: skip
    words = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])  # it wants some
    trainer = DPOTrainer(
        model=policy, ref_model=reference, args=settings, train_dataset=words,
        processing_class=tokenizer,
    )  # fmt: skip
    inputs = trainer.data_collator(rows)
    loss = trainer.compute_loss(trainer.model.train(), inputs)
    loss.backward()
    return loss.item()


def test_loss_and_gradients_are_trls(
    make_gpt2: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    policy, reference, twin = make_gpt2(0), make_gpt2(1), make_gpt2(0)
    expected = trl_step(twin, reference, tokenizer, tmp_path)
    batches = pair_batches(PAIRS, "cpu")
    with torch.no_grad():
        ref = [sequence_logps(reference, batch) for batch in batches]
    loss, _ = dpo.dpo_loss(*(sequence_logps(policy, b) for b in batches), *ref, BETA)
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    theirs = dict(twin.named_parameters())
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-3)


def test_the_first_step_begins_at_log_two_and_prefers_what_it_should(
    make_gpt2: Callable[..., Any],
) -> None:
    found = dpo.first_step(make_gpt2(), PAIRS, PAIRS, BETA, 1e-3, "cpu")
    assert found["dpo_first_loss"] == pytest.approx(0.6931472)
    assert found["dpo_margin"] > 0
    swapped = [(rejected, chosen) for chosen, rejected in PAIRS]
    assert dpo.first_step(make_gpt2(), PAIRS, swapped, BETA, 1e-3, "cpu")["dpo_margin"] < 0
