"""GRPO against loops over its definition, and against trl's own loss on the same batch."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pretraining import GPT
from rlhf.verifiable.arithmetic import END, Addition
from rlhf.verifiable.grpo import (
    Batch,
    aggregate,
    answer_mask,
    clipped_share,
    clipped_terms,
    group_advantages,
    grpo_loss,
    informative,
)
from rlhf.verifiable.rollout import Collector, draw, largest_gap, token_logps
from rlhf.verifiable.settings import GRPOSettings
from rlhf.verifiable.start import make_model

N, T = 6, 5


def rewards(seed: int, p: int, g: int) -> Tensor:
    return torch.randn(p, g, generator=torch.Generator().manual_seed(seed)) * 2 + 1


@pytest.mark.exercise("verifiable.grpo.group_advantages")
@pytest.mark.parametrize(("p", "g"), [(3, 8), (1, 4), (7, 2), (4, 4)])
@pytest.mark.parametrize("scale", [True, False])
def test_advantages_are_compared_inside_each_group(p: int, g: int, scale: bool) -> None:
    reward = rewards(p, p, g)
    before = reward.clone()
    found = group_advantages(reward, scale)
    assert torch.equal(reward, before)
    assert found.shape == (p, g)
    for row, ours in zip(reward.tolist(), found.tolist(), strict=True):
        mean = statistics.fmean(row)
        unit = statistics.stdev(row) + 1e-4 if scale else 1.0
        assert ours == pytest.approx([(r - mean) / unit for r in row], abs=1e-5)


@pytest.mark.exercise("verifiable.grpo.group_advantages")
def test_groups_do_not_see_each_other() -> None:
    """An easy question beside a hard one: each is measured by its own mean and deviation."""
    reward = torch.tensor([[1.0, 1, 1, 0], [0, 0, 0, 1]])
    for scale in (True, False):
        both = group_advantages(reward, scale)
        for i in range(2):
            assert torch.allclose(both[i : i + 1], group_advantages(reward[i : i + 1], scale))
        assert both[0, 3] < 0 < both[1, 3]
        assert torch.allclose(both.sum(dim=1), torch.zeros(2), atol=1e-6)
    assert group_advantages(reward, True)[1, 3].item() == pytest.approx(0.75 / (0.5 + 1e-4))


@pytest.mark.exercise("verifiable.grpo.group_advantages")
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_equal_rewards_have_no_advantage(value: float) -> None:
    reward = torch.full((2, 8), value)
    for scale in (True, False):
        assert torch.equal(group_advantages(reward, scale), torch.zeros(2, 8))


@pytest.mark.exercise("verifiable.grpo.group_advantages")
def test_a_tiny_deviation_is_not_blown_up() -> None:
    """The deviation gets 1e-4 added, outside of the root."""
    reward = torch.tensor([[0.0, 1e-4]], dtype=torch.float64)
    deviation = 1e-4 / math.sqrt(2)
    found = group_advantages(reward, True)
    assert found[0, 1].item() == pytest.approx(0.5e-4 / (deviation + 1e-4), rel=1e-6)
    assert found.dtype == torch.float64


@pytest.mark.exercise("verifiable.grpo.informative")
def test_groups_that_teach_are_those_whose_rewards_differ() -> None:
    reward = torch.tensor(
        [[0.0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5], [1, 1, 1 - 1e-6]]
    )
    assert informative(reward).tolist() == [False, False, True, True, True, False, True]
    assert informative(reward).dtype == torch.bool
    assert informative(reward[:1]).shape == (1,)
    assert informative(reward[2:3]).tolist() == [True]


@pytest.mark.exercise("verifiable.grpo.informative")
def test_a_common_reward_is_not_taken_for_a_difference() -> None:
    """Rows of 0.1, whose computed deviation may be a rounding error above 0."""
    reward = torch.full((3, 7), 0.1)
    reward[1, 6] = 0.2
    assert informative(reward).tolist() == [False, True, False]
    assert informative(-reward).tolist() == [False, True, False]
    assert informative(torch.tensor([[-1.0, 1.0], [2.0, -2.0]])).tolist() == [True, True]


@pytest.mark.exercise("verifiable.grpo.answer_mask")
@pytest.mark.parametrize("end", [12, 0])
def test_the_mask_ends_with_the_first_end(end: int) -> None:
    generator = torch.Generator().manual_seed(end)
    answer = torch.randint(1, 12, (9, 5), generator=generator)
    for row, places in enumerate([[0], [4], [2], [], [1, 2, 3, 4], [1, 3], [0, 4], [3], [2, 4]]):
        for place in places:
            answer[row, place] = end
    before = answer.clone()
    found = answer_mask(answer, end)
    assert torch.equal(answer, before)
    assert found.dtype == torch.bool
    for row, kept in zip(answer.tolist(), found.tolist(), strict=True):
        length = row.index(end) + 1 if end in row else len(row)
        assert kept == [t < length for t in range(len(row))]


@pytest.mark.exercise("verifiable.grpo.answer_mask")
def test_the_mask_of_one_answer_and_of_one_token() -> None:
    assert answer_mask(torch.tensor([[3, 4, 5]]), 9).tolist() == [[True, True, True]]
    assert answer_mask(torch.tensor([[9], [1]]), 9).tolist() == [[True], [True]]


def numbers(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, older ones with ratios from 0.5 to 2, and advantages of both signs."""
    generator = torch.Generator().manual_seed(seed)
    logps = -torch.rand(N, T, generator=generator, dtype=torch.float64) - 0.1
    old = logps + torch.randn(N, T, generator=generator, dtype=torch.float64) * 0.3
    advantage = torch.tensor([1.5, -0.7, 0.3, -2.0, 0.0, 1.0], dtype=torch.float64)
    return logps, old, advantage


@pytest.mark.exercise("verifiable.grpo.clipped_terms")
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.1, 0.28), (0.3, 0.05)])
def test_every_token_is_clipped_by_itself(low: float, high: float) -> None:
    logps, old, advantage = numbers(0)
    kept = [x.clone() for x in (logps, old, advantage)]
    found = clipped_terms(logps, old, advantage, low, high)
    for x, y in zip((logps, old, advantage), kept, strict=True):
        assert torch.equal(x, y)
    for n in range(N):
        a = advantage[n].item()
        for t in range(T):
            ratio = math.exp(logps[n, t].item() - old[n, t].item())
            clipped = min(max(ratio, 1 - low), 1 + high)
            assert found[n, t].item() == pytest.approx(-min(ratio * a, clipped * a), abs=1e-12)


@pytest.mark.exercise("verifiable.grpo.clipped_terms")
def test_the_gradient_stops_where_the_clip_acts_and_nowhere_else() -> None:
    old = torch.full((4, 3), -1.0)
    shift = torch.tensor([-0.5, 0.0, 0.5]).expand(4, 3)  # ratios .61, 1, 1.65
    logps = (old + shift).requires_grad_()
    advantage = torch.tensor([1.0, -1.0, 2.0, -0.5])
    clipped_terms(logps, old, advantage, 0.2, 0.3).sum().backward()
    assert logps.grad is not None
    ratio = shift.exp()
    expected = -ratio * advantage[:, None]
    expected[[0, 2], 2] = 0.0  # good and already far up: no further
    expected[[1, 3], 0] = 0.0  # bad and already far down: no further
    assert torch.allclose(logps.grad, expected)


@pytest.mark.exercise("verifiable.grpo.clipped_terms")
def test_one_answer_longer_than_the_batch() -> None:
    logps = torch.tensor([[-0.5, -1.0, -2.0, -0.1]])
    found = clipped_terms(logps, logps.clone(), torch.tensor([2.0]), 0.2, 0.2)
    assert torch.equal(found, torch.full((1, 4), -2.0))
    square = clipped_terms(
        torch.zeros(3, 3), torch.zeros(3, 3), torch.tensor([1.0, 2.0, 3.0]), 0.2, 0.2
    )
    assert torch.equal(square, -torch.tensor([[1.0] * 3, [2.0] * 3, [3.0] * 3]))


MASKS = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0],
                      [1, 1, 1, 1, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)  # fmt: skip


@pytest.mark.exercise("verifiable.grpo.aggregate")
def test_the_three_ways_to_average() -> None:
    terms, _, _ = numbers(1)
    rows = [
        [x for x, kept in zip(row, mask, strict=True) if kept]
        for row, mask in zip(terms.tolist(), MASKS.tolist(), strict=True)
    ]
    every = [x for row in rows for x in row]
    expected = {
        "grpo": statistics.fmean(statistics.fmean(row) for row in rows),
        "dapo": statistics.fmean(every),
        "dr_grpo": sum(every) / (N * T),
    }
    assert len({round(value, 6) for value in expected.values()}) == 3
    for loss, value in expected.items():
        mask, before = MASKS.clone(), terms.clone()
        assert aggregate(terms, mask, loss).item() == pytest.approx(value)  # type: ignore[arg-type]
        assert torch.equal(mask, MASKS)
        assert torch.equal(terms, before)
        one = aggregate(terms[2:3], MASKS[2:3], loss)  # type: ignore[arg-type]
        assert one.shape == ()
        assert one.item() == pytest.approx(statistics.fmean(rows[2]))


@pytest.mark.exercise("verifiable.grpo.aggregate")
@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo"])
def test_what_stands_after_the_end_has_no_gradient(loss: Any) -> None:
    terms = numbers(2)[0].requires_grad_()
    aggregate(terms, MASKS, loss).backward()
    assert terms.grad is not None
    assert (terms.grad[~MASKS] == 0).all()
    assert (terms.grad[MASKS] > 0).all()
    other = terms.detach().clone()
    other[~MASKS] = 1e6
    assert aggregate(other, MASKS, loss).item() == aggregate(terms, MASKS, loss).item()


@pytest.mark.exercise("verifiable.grpo.group_advantages")
def test_advantages_are_computed_where_the_rewards_are() -> None:
    reward = torch.empty(3, 4, dtype=torch.bfloat16, device="meta")
    for scale in (True, False):
        found = group_advantages(reward, scale)
        assert (found.device.type, found.dtype, found.shape) == ("meta", torch.bfloat16, (3, 4))


@pytest.mark.exercise("verifiable.grpo.informative")
def test_groups_are_compared_where_they_are() -> None:
    assert informative(torch.empty(3, 4, device="meta")).device.type == "meta"


@pytest.mark.exercise("verifiable.grpo.answer_mask")
def test_the_mask_is_made_where_the_answers_are() -> None:
    found = answer_mask(torch.empty(3, 4, dtype=torch.int64, device="meta"), 2)
    assert (found.device.type, found.dtype, found.shape) == ("meta", torch.bool, (3, 4))


@pytest.mark.exercise("verifiable.grpo.clipped_terms")
def test_terms_are_computed_where_the_answers_are() -> None:
    logps = torch.empty(3, 4, device="meta")
    found = clipped_terms(logps, logps, torch.empty(3, device="meta"), 0.2, 0.2)
    assert (found.device.type, found.dtype, found.shape) == ("meta", torch.float32, (3, 4))


@pytest.mark.exercise("verifiable.grpo.aggregate")
@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo"])
def test_the_average_is_taken_where_the_terms_are(loss: Any) -> None:
    mask = torch.empty(3, 4, dtype=torch.bool, device="meta")
    found = aggregate(torch.empty(3, 4, device="meta"), mask, loss)
    assert (found.device.type, found.dtype, found.shape) == ("meta", torch.float32, ())


def batch_of(old: Tensor, advantage: Tensor, mask: Tensor) -> Batch:
    empty = torch.zeros(len(old), 0, dtype=torch.int64)
    return Batch(empty, torch.zeros_like(old, dtype=torch.int64), mask, old, advantage)


def test_the_loss_begins_at_zero_and_its_gradient_is_the_policy_gradient() -> None:
    logps = numbers(3)[0].requires_grad_()
    advantage = group_advantages(rewards(3, 2, 3).double(), True).flatten()
    batch = batch_of(logps.detach().clone(), advantage, MASKS)
    loss = grpo_loss(logps, batch, GRPOSettings())
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert logps.grad is not None
    length = MASKS.sum(dim=1, keepdim=True)
    expected = -advantage[:, None] * MASKS / length / N
    assert torch.allclose(logps.grad, expected)
    assert logps.grad.abs().sum() > 0.1


def test_the_share_of_clipped_tokens() -> None:
    old = torch.zeros(2, 4)
    logps = torch.tensor([[1.0, -1.0, 1.0, 0.0], [1.0, -1.0, 0.0, -1.0]])
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
    batch = batch_of(old, torch.tensor([1.0, -1.0]), mask)
    assert clipped_share(logps, batch, GRPOSettings()).item() == pytest.approx(2 / 5)


@pytest.fixture(scope="module")
def task() -> Addition:
    return Addition(2, "units_first", 5)


@pytest.fixture(scope="module")
def model(task: Addition) -> GPT:
    torch.manual_seed(0)
    found = make_model(task, 16, 2, 2, "cpu")
    for parameter in found.parameters():  # at first, its layers do nothing
        torch.nn.init.normal_(parameter, std=0.3)
    return found


def test_the_sampler_and_a_full_pass_agree(task: Addition, model: GPT) -> None:
    prompt = torch.from_numpy(task.prompts(task.pairs("test")[:50]))
    answer, logps = draw(model, prompt, 5)
    mask = answer_mask(answer, END)
    full = token_logps(model, prompt, answer)
    assert answer.shape == logps.shape == full.shape == (50, 5)
    assert torch.allclose(logps[mask], full[mask], atol=1e-5)
    logits = model(torch.cat([prompt, answer], dim=1)).log_softmax(dim=-1)
    for t in range(5):
        direct = logits[:, task.prompt_length - 1 + t].gather(1, answer[:, t : t + 1])
        assert torch.allclose(full[:, t], direct[:, 0], atol=1e-5)
    batch = Batch(prompt, answer, mask, logps, torch.zeros(50))
    assert largest_gap(full, batch) < 1e-5
    assert largest_gap(full + 0.5 * mask, batch).item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("length", [1, 5])
def test_a_prompt_that_is_read_once_for_its_group_gives_the_same_gradient(
    task: Addition, model: GPT, length: int
) -> None:
    prompt = torch.from_numpy(task.prompts(task.pairs("test")[:4])).repeat_interleave(3, dim=0)
    answer, _ = draw(model, prompt, length)
    weight = torch.randn(12, length)
    logits = model(torch.cat([prompt, answer], dim=1))[:, task.prompt_length - 1 : -1]
    direct = logits.log_softmax(dim=-1).gather(2, answer[..., None])[..., 0]
    shared = token_logps(model, prompt, answer, group=3)
    assert torch.allclose(shared, direct, atol=1e-5)
    wanted = torch.autograd.grad((direct * weight).sum(), list(model.parameters()))
    found = torch.autograd.grad((shared * weight).sum(), list(model.parameters()))
    for name, one, other in zip(dict(model.named_parameters()), found, wanted, strict=True):
        assert one.abs().max() > 0, name
        assert torch.allclose(one, other, atol=1e-4), name


def test_answers_are_drawn_with_the_models_probabilities(task: Addition, model: GPT) -> None:
    torch.manual_seed(1)
    prompt = torch.from_numpy(task.prompts(np.array([[47, 85]]))).expand(4000, -1)
    answer, _ = draw(model, prompt, 1)
    expected = model(prompt[:1])[0, -1].softmax(dim=-1)
    found = torch.bincount(answer[:, 0], minlength=len(expected)) / 4000
    assert (found - expected).abs().max() < 4 * 0.5 / 4000**0.5


def collector(task: Addition, **settings: Any) -> Collector:
    def judge(written: str, a: int, b: int) -> float:
        return float(len(written) % 2) if a % 2 else 1.0  # even a: all the same

    return Collector(task, judge, GRPOSettings(**settings), task.pairs("train")[:40], 3)


def test_a_batch_is_groups_of_answers_to_one_question(task: Addition, model: GPT) -> None:
    torch.manual_seed(0)
    found, drawn, trained = collector(task, prompts=10, group=4, beta=0.1), 0, 0
    for step in range(2):
        batch, reward = found.collect(model, step)
        assert reward.shape == (10, 4)
        assert len(batch.answer) == 40
        groups = batch.prompt.view(10, 4, -1)
        assert (groups == groups[:, :1]).all()
        said = task.text(batch.answer.numpy())
        for i, row in enumerate(groups[:, 0]):
            odd = bool((row[1] - 1) % 2)
            expected = [len(s) % 2 if odd else 1 for s in said[4 * i : 4 * i + 4]]
            assert reward[i].tolist() == expected
        assert torch.equal(batch.advantage.view(10, 4), group_advantages(reward, True))
        assert batch.share == 1
        written = int(batch.mask.sum())
        drawn += written + batch.prompt.numel() // 4  # a question is read once
        trained += 2 * (written + batch.prompt.numel())  # every batch is used twice
    assert found.tokens == {"drawn": drawn, "trained": trained}


def test_questions_depend_on_seed_and_step_alone(task: Addition, model: GPT) -> None:
    asked = [
        collector(task, prompts=10, beta=0.1).collect(model, step)[0].prompt for step in (0, 1, 0)
    ]
    assert torch.equal(asked[0], asked[2])
    assert not torch.equal(asked[0], asked[1])


def test_dynamic_sampling_leaves_out_equal_groups_and_draws_again(
    task: Addition, model: GPT
) -> None:
    torch.manual_seed(0)
    found = collector(task, prompts=10, group=4, dynamic=True)
    batch, reward = found.collect(model, 0)
    kept = int(informative(reward).sum())
    assert 0 < kept < 10
    assert len(batch.answer) == len(batch.advantage) == 4 * kept
    assert (batch.advantage.view(-1, 4).abs().sum(dim=1) > 0).all()
    torch.manual_seed(0)
    found = collector(task, prompts=10, group=4, dynamic=True, redraws=6)
    batch, reward = found.collect(model, 0)
    assert len(batch.answer) == 40
    assert 10 < len(reward) <= 60
    assert int(informative(reward).sum()) >= 10


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
def test_answers_without_advantage_need_not_be_computed(loss: Any) -> None:
    """Loss and gradient are those of the whole batch, also where the ratio is not 1."""
    logps, old, _ = numbers(7)
    reward = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    batch = batch_of(old, group_advantages(reward, True).flatten(), MASKS)
    settings, kept = GRPOSettings(loss=loss), informative(reward).repeat_interleave(2)
    whole, part = logps.clone().requires_grad_(), logps.clone().requires_grad_()
    loss_whole = grpo_loss(whole, batch, settings)
    few = batch.rows(kept, loss, dynamic=False)
    loss_part = grpo_loss(part[kept], few, settings)
    assert len(few.answer) == 2
    assert loss_part.item() == pytest.approx(loss_whole.item())
    loss_whole.backward()
    loss_part.backward()
    assert whole.grad is not None
    assert part.grad is not None
    assert torch.allclose(whole.grad, part.grad)
    assert whole.grad.abs().max() > 0
    assert batch.rows(kept, loss, dynamic=True).share == 1


def test_the_collector_leaves_them_out(task: Addition, model: GPT) -> None:
    torch.manual_seed(0)
    batch, reward = collector(task, prompts=10, group=4).collect(model, 0)
    kept = int(informative(reward).sum())
    assert reward.shape == (10, 4)
    assert 0 < kept < 10
    assert len(batch.answer) == 4 * kept
    assert batch.share == pytest.approx(kept / 10)


def test_dr_grpo_leaves_out_the_deviation(task: Addition, model: GPT) -> None:
    torch.manual_seed(0)
    batch, reward = collector(task, prompts=10, group=4, loss="dr_grpo", beta=0.1).collect(model, 0)
    assert torch.equal(batch.advantage.view(10, 4), group_advantages(reward, False))


@pytest.fixture(scope="module")
def trainer(task: Addition, model: GPT, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """trl's, around the same weights."""
    from datasets import Dataset

    from pretraining import to_huggingface
    from rlhf.verifiable.library import make_trainer
    from rlhf.verifiable.weights import tokenizer

    found = make_trainer(
        to_huggingface(model, tokenizer()), task, lambda *_: 0.0, GRPOSettings(prompts=3, group=2),
        1, Dataset.from_list([{"prompt": "10+10=", "a": 10, "b": 10}] * 3), torch.device("cpu"),
        str(tmp_path_factory.mktemp("trl")), 0,
    )  # fmt: skip
    found.model.eval()
    return found


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize(("beta", "kl_ratio"), [(0.0, False), (0.2, False), (0.2, True)])
def test_the_loss_and_its_gradient_are_those_of_trl(
    task: Addition, model: GPT, trainer: Any, loss: Any, beta: float, kl_ratio: bool
) -> None:
    torch.manual_seed(5)
    prompt = torch.from_numpy(task.prompts(task.pairs("valid")[:N]))
    answer, logps = draw(model, prompt, 5)
    mask = answer_mask(answer, END)
    old = logps + 0.4 * torch.randn(logps.shape)
    reference = logps + 0.4 * torch.randn(logps.shape)
    advantage = torch.randn(N)
    settings = GRPOSettings(loss=loss, clip_low=0.15, clip_high=0.3, beta=beta, kl_ratio=kl_ratio)
    model.zero_grad()
    batch = Batch(prompt, answer, mask, old, advantage)
    ours = grpo_loss(token_logps(model, prompt, answer), batch, settings, reference)
    ours.backward()

    trainer.loss_type, trainer.beta = loss, beta
    trainer.args.use_bias_correction_kl = kl_ratio
    trainer.epsilon_low, trainer.epsilon_high = 0.15, 0.3
    trainer.model.zero_grad()
    theirs = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": prompt, "prompt_mask": torch.ones_like(prompt), "completion_ids": answer,
            "completion_mask": mask.int(), "advantages": advantage, "old_per_token_logps": old,
            "ref_per_token_logps": reference, "num_items_in_batch": mask.sum(),
        },
    )  # fmt: skip
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    mine, other = model.head.weight.grad, trainer.model.lm_head.weight.grad
    assert mine is not None
    assert torch.allclose(mine, other, atol=1e-6)
    assert mine.abs().max() > 1e-3
