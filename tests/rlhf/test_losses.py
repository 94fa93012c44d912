"""Losses of DPO's family: by their formulas, at their limits, and against trl's."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pretraining import GPT, to_huggingface
from rlhf import losses, preferences
from rlhf.preferences import Pair

TAU, BETA = 0.3, 0.7


def logps(pairs: int = 5, count: int = 4, seed: int = 0) -> list[Tensor]:
    """Log-probabilities of answers, float64 (P,) each."""
    g = torch.Generator().manual_seed(seed)
    return [-0.1 - 4 * torch.rand(pairs, generator=g, dtype=torch.float64) for _ in range(count)]


def lengths(pairs: int = 5) -> list[Tensor]:
    return [1 + torch.arange(pairs) % 4, 2 + (3 * torch.arange(pairs)) % 5]


def checked(
    loss_of: Callable[..., Tensor], values: Sequence[Tensor], expected: Callable[..., Tensor],
    constants: int = 0,
) -> None:  # fmt: skip
    """`loss_of(*values)` and its gradients are those of `expected`; nothing is changed in place.

    The last `constants` of the values get no gradient.
    """
    ours, theirs = ([v.clone().requires_grad_() for v in values] for _ in range(2))
    loss, other = loss_of(*ours), expected(*theirs)
    assert loss.shape == ()
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, other)
    free = len(values) - constants
    grads = torch.autograd.grad(loss, ours[:free])
    for grad, right in zip(grads, torch.autograd.grad(other, theirs[:free]), strict=True):
        torch.testing.assert_close(grad, right)
    assert all(torch.equal(a.detach(), b) for a, b in zip(ours, values, strict=True))


# --- IPO ---


@pytest.mark.exercise("losses.ipo_loss")
@pytest.mark.parametrize("pairs", [1, 5])
@pytest.mark.parametrize("tau", [0.1, 2.0])
def test_ipo_by_the_formula(pairs: int, tau: float) -> None:
    n, m = lengths(pairs)

    def expected(*v: Tensor) -> Tensor:
        terms = [
            ((v[0][i] - v[2][i]) / n[i] - (v[1][i] - v[3][i]) / m[i] - 0.5 / tau) ** 2
            for i in range(pairs)
        ]
        return sum(terms[1:], terms[0]) / pairs

    checked(lambda *v: losses.ipo_loss(*v, n, m, tau), logps(pairs), expected)


@pytest.mark.exercise("losses.ipo_loss")
def test_ipo_is_done_at_a_finite_margin() -> None:
    """Nothing is left to gain at a margin of 1 / (2 tau) per token."""
    zero, length = torch.zeros(3), torch.full((3,), 4)
    chosen = torch.full((3,), 4 / (2 * TAU), requires_grad=True)
    loss = losses.ipo_loss(chosen, zero, zero, zero, length, length, TAU)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert chosen.grad is not None
    assert chosen.grad.abs().max().item() < 1e-6


# --- KTO ---


@pytest.mark.exercise("losses.kto_loss")
@pytest.mark.parametrize("moved", [[0.4, 0.9, -0.1], [-0.5, -0.2, 0.3], [0.8]])
def test_kto_by_a_loop(moved: list[float]) -> None:
    ratio = torch.tensor([1.5, -0.7, 0.2, -2.0, 0.9], dtype=torch.float64)
    desirable = torch.tensor([True, True, False, False, True])
    z0 = max(0.0, sum(moved) / len(moved))

    def expected(r: Tensor) -> Tensor:
        costs = []
        for value, good in zip(r, desirable.tolist(), strict=True):
            distance = BETA * (value - z0 if good else z0 - value)
            costs.append((1.3 if good else 0.6) * (1 - 1 / (1 + torch.exp(-distance))))
        return sum(costs[1:], costs[0]) / 5

    other = torch.tensor(moved, dtype=torch.float64)
    checked(lambda r: losses.kto_loss(r, desirable, other, BETA, 1.3, 0.6), [ratio], expected)


@pytest.mark.exercise("losses.kto_loss")
def test_kto_has_no_gradient_through_its_reference_point() -> None:
    ratio = torch.tensor([0.3, -0.4], requires_grad=True)
    moved = torch.tensor([0.5, 0.1], requires_grad=True)
    losses.kto_loss(ratio, torch.tensor([True, False]), moved + 0, BETA).backward()
    assert moved.grad is None or not moved.grad.any()
    assert ratio.grad is not None
    assert ratio.grad[0] < 0 < ratio.grad[1]


@pytest.mark.exercise("losses.kto_loss")
@pytest.mark.parametrize("good", [True, False])
def test_kto_of_one_kind_only(good: bool) -> None:
    """Weights are 1 unless others are given; far from the reference point nothing overflows."""
    ratio = torch.tensor([0.0, 1e4, -1e4])
    kind = torch.full((3,), good)
    found = losses.kto_loss(ratio, kind, torch.zeros(2), 0.5)
    assert found.item() == pytest.approx((0.5 + 0 + 1) / 3)


# --- SimPO ---


@pytest.mark.exercise("losses.simpo_loss")
@pytest.mark.parametrize("pairs", [1, 5])
@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 0.5), (0.7, 0.0), (1.0, 1.6)])
def test_simpo_by_the_formula(pairs: int, beta: float, gamma: float) -> None:
    n, m = lengths(pairs)

    def expected(chosen: Tensor, rejected: Tensor) -> Tensor:
        margins = beta * chosen / n - beta * rejected / m - gamma
        return (1 + (-margins).exp()).log().mean()

    checked(lambda a, b: losses.simpo_loss(a, b, n, m, beta, gamma), logps(pairs, 2), expected)


@pytest.mark.exercise("losses.simpo_loss")
def test_simpo_of_large_margins() -> None:
    one = torch.ones(1)
    far = torch.tensor([-2e4])
    assert losses.simpo_loss(far, -one, one, one, 1.0, 0.0).item() == pytest.approx(2e4, rel=1e-3)
    assert losses.simpo_loss(-one, far, one, one, 1.0, 0.0).item() == 0


# --- ORPO ---


@pytest.mark.exercise("losses.orpo_loss")
@pytest.mark.parametrize("pairs", [1, 5])
@pytest.mark.parametrize("weight", [0.1, 3.0])
def test_orpo_by_its_odds(pairs: int, weight: float) -> None:
    n, m = lengths(pairs)

    def expected(chosen: Tensor, rejected: Tensor) -> Tensor:
        good, bad = (chosen / n).exp(), (rejected / m).exp()
        ratio = (good / (1 - good)) / (bad / (1 - bad))
        return -chosen.sum() / n.sum() + weight * (1 + 1 / ratio).log().mean()

    checked(lambda a, b: losses.orpo_loss(a, b, n, m, weight), logps(pairs, 2), expected)


@pytest.mark.exercise("losses.orpo_loss")
def test_orpo_near_certainty() -> None:
    """1 - P would round to 0 for a likely answer, and P to 0 for an unlikely one."""
    chosen = torch.tensor([-1e-9], requires_grad=True)
    length = torch.ones(1)
    loss = losses.orpo_loss(chosen, torch.tensor([-50.0]), length, length, 1.0)
    loss.backward()
    assert loss.isfinite()
    assert chosen.grad is not None
    assert chosen.grad.isfinite().all()


def test_log_one_minus_exp() -> None:
    x = torch.tensor([-1e-12, -0.5, -0.7, -40.0], dtype=torch.float64)
    expected = [math.log(-math.expm1(v)) for v in x.tolist()]
    assert losses.log_one_minus_exp(x).tolist() == pytest.approx(expected, rel=1e-12)


# --- cDPO ---


def test_smoothed_dpo_by_the_formula() -> None:
    """And its best margin is log((1 - e) / e)."""

    def expected(*v: Tensor) -> Tensor:
        p = torch.sigmoid(BETA * (v[0] - v[2] - v[1] + v[3]))
        return -(0.8 * p.log() + 0.2 * (1 - p).log()).mean()

    checked(lambda *v: losses.cdpo_loss(*v, BETA, 0.2), logps(), expected)
    zero = torch.zeros(1, dtype=torch.float64)
    best = torch.full_like(zero, math.log(4) / BETA).requires_grad_()
    losses.cdpo_loss(best, zero, zero, zero, BETA, 0.2).backward()
    assert best.grad is not None
    assert best.grad.item() == pytest.approx(0, abs=1e-9)


# --- trl ---

HERE = SimpleNamespace(device="cpu")


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 0.5), (0.7, 1.1)])
def test_simpo_is_trls(beta: float, gamma: float) -> None:
    """trl has it as CPO with loss_type="simpo": it takes the mean log-probabilities."""
    from trl.experimental.cpo import CPOTrainer

    trainer = SimpleNamespace(
        alpha=0.0, loss_type="simpo", simpo_gamma=gamma, beta=beta, label_smoothing=0.0,
        accelerator=HERE,
    )  # fmt: skip
    n, m = lengths()
    checked(
        lambda a, b: losses.simpo_loss(a, b, n, m, beta, gamma),
        logps(count=2),
        lambda a, b: CPOTrainer.cpo_loss(trainer, a / n, b / m)[0].mean(),
    )


def test_smoothed_dpo_is_trls() -> None:
    from trl.experimental.cpo import CPOTrainer

    trainer = SimpleNamespace(
        alpha=0.0, loss_type="sigmoid", beta=BETA, label_smoothing=0.15, accelerator=HERE
    )
    checked(
        lambda *v: losses.cdpo_loss(*v, BETA, 0.15),
        logps(),
        lambda a, b, c, d: CPOTrainer.cpo_loss(trainer, a - c, b - d)[0].mean(),
    )


def test_orpos_odds_ratio_is_trls() -> None:
    """Without the likelihood, for which trl counts the tokens of the prompt as well."""
    from trl.experimental.orpo import ORPOTrainer

    trainer = SimpleNamespace(beta=0.4, accelerator=HERE)
    n, m = lengths()
    checked(
        lambda a, b: losses.orpo_loss(a, b, n, m, 0.4) + a.sum() / n.sum(),
        logps(count=2),
        lambda a, b: -ORPOTrainer.odds_ratio_loss(trainer, a / n, b / m)[0].mean().double(),
    )


@pytest.fixture(scope="module")
def library_words() -> tuple[Any, Any, dict[str, Any]]:
    """A tokenizer, a dataset and settings: what a trainer of trl wants before it computes."""
    from datasets import Dataset

    from rlhf.start import word_tokenizer

    tokenizer = word_tokenizer([" ".join("abcdefghijklmnopqrstuvwxyz12")])
    settings = {
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none",
        "max_length": None, "per_device_train_batch_size": 3, "disable_tqdm": True,
    }  # fmt: skip
    return tokenizer, Dataset, settings


@pytest.mark.parametrize("method", ["sigmoid", "ipo"])
def test_loss_and_gradients_are_trls(
    method: str,
    make_gpt: Callable[..., GPT],
    pairs: list[Pair],
    library_words: tuple[Any, Any, dict[str, Any]],
    tmp_path: Path,
) -> None:
    from trl import DPOConfig, DPOTrainer

    tokenizer, kind, settings = library_words
    policy, reference = make_gpt(0), make_gpt(1)
    twin = to_huggingface(policy)
    trainer = DPOTrainer(
        model=twin, ref_model=to_huggingface(reference),
        args=DPOConfig(output_dir=str(tmp_path), beta=TAU, loss_type=[method], **settings),
        train_dataset=kind.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=tokenizer,
    )  # fmt: skip
    inputs = trainer.data_collator([
        {"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in pairs
    ])  # fmt: skip
    theirs = trainer.compute_loss(trainer.model.train(), inputs)
    theirs.backward()

    rows = preferences.table(pairs)
    with torch.no_grad():
        known = preferences.answer_logps(reference, rows)
    two, n = preferences.answer_logps(policy, rows), rows.lengths()
    if method == "ipo":
        ours = losses.ipo_loss(*two.unbind(1), *known.unbind(1), *n.unbind(1), TAU)
    else:
        ours = losses.cdpo_loss(*two.unbind(1), *known.unbind(1), TAU)
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)
    same_gradients(policy, twin)


def same_gradients(ours: GPT, theirs: Any) -> None:
    found = dict(theirs.named_parameters())
    pairs = {"embedding": "transformer.wte", "positions": "transformer.wpe"}
    pairs |= {f"blocks.{i}.norm1": f"transformer.h.{i}.ln_1" for i in range(2)}
    for name, other in pairs.items():
        grad = ours.get_parameter(f"{name}.weight").grad
        torch.testing.assert_close(grad, found[f"{other}.weight"].grad, rtol=1e-3, atol=1e-5)


def test_kto_is_trls(
    make_gpt: Callable[..., GPT],
    pairs: list[Pair],
    library_words: tuple[Any, Any, dict[str, Any]],
    tmp_path: Path,
) -> None:
    from trl import KTOConfig, KTOTrainer

    tokenizer, kind, settings = library_words
    policy, reference = make_gpt(2), make_gpt(3)
    twin = to_huggingface(policy)
    words = [
        {"prompt": "a", "completion": letter, "label": label}
        for letter, label in (("b", True), ("c", False), ("d", True))
    ]
    trainer = KTOTrainer(
        model=twin, ref_model=to_huggingface(reference),
        args=KTOConfig(
            output_dir=str(tmp_path), beta=BETA, desirable_weight=1.2, undesirable_weight=0.8,
            **settings,
        ),
        train_dataset=kind.from_list(words), processing_class=tokenizer,
    )  # fmt: skip
    others = preferences.mismatched(pairs)
    rows = [
        {"prompt_ids": p.prompt, "completion_ids": answer, "label": good,
         "KL_completion_ids": others.tokens[i][others.mask[i]].tolist()}
        for i, p in enumerate(pairs)
        for answer, good in ((p.chosen, True), (p.rejected, False))
    ]  # fmt: skip
    theirs = trainer.compute_loss(trainer.model.train(), trainer.data_collator(rows))
    theirs.backward()

    table = preferences.table(pairs)
    two = preferences.answer_logps(policy, table)
    with torch.no_grad():
        moved = preferences.answer_logps(policy, others)
        moved = moved - preferences.answer_logps(reference, others)
        known = preferences.answer_logps(reference, table)
    ratio = (two - known).flatten()
    desirable = torch.tensor([True, False] * 3)
    ours = losses.kto_loss(ratio, desirable, moved, BETA, 1.2, 0.8)
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)
    same_gradients(policy, twin)
