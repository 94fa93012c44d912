"""KL estimators against the exact KL of small categorical distributions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pretraining import GPT
from rlhf import kl
from rlhf.preferences import Rows, collate

PI = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
REF = torch.tensor([0.2, 0.4, 0.15, 0.25], dtype=torch.float64)
EXACT = (PI * (PI / REF).log()).sum()


def moments(kind: kl.Estimator) -> tuple[float, float]:
    """Mean and variance of an estimate over samples from pi, by a sum over all outcomes."""
    values = kl.kl_estimate(PI.log(), REF.log(), kind)
    mean = (PI * values).sum()
    return mean.item(), (PI * (values - mean).square()).sum().item()


@pytest.mark.exercise("kl.kl_estimate")
def test_k1_and_k3_are_unbiased() -> None:
    assert moments("k1")[0] == pytest.approx(EXACT.item(), rel=1e-12)
    assert moments("k3")[0] == pytest.approx(EXACT.item(), rel=1e-12)


@pytest.mark.exercise("kl.kl_estimate")
def test_k2_and_k3_are_never_negative() -> None:
    for kind in ("k2", "k3"):
        assert (kl.kl_estimate(PI.log(), REF.log(), kind) >= 0).all()
    assert (kl.kl_estimate(PI.log(), REF.log(), "k1") < 0).any()


@pytest.mark.exercise("kl.kl_estimate")
def test_k2_is_biased_and_both_others_vary_less_than_k1() -> None:
    ratio = (PI / REF).log()
    assert moments("k2")[0] == pytest.approx((PI * ratio**2 / 2).sum().item(), rel=1e-12)
    assert abs(moments("k2")[0] - EXACT.item()) > 1e-3
    assert moments("k2")[1] < moments("k1")[1] / 4
    assert moments("k3")[1] < moments("k1")[1] / 4


@pytest.mark.exercise("kl.kl_estimate")
@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_estimates_by_their_formulas(kind: kl.Estimator) -> None:
    """With the gradients of both arguments, and in their type and shape."""
    g = torch.Generator().manual_seed(0)
    values = [torch.randn(2, 3, generator=g, dtype=torch.float64) for _ in range(2)]

    def right(a: Tensor, b: Tensor) -> Tensor:
        return {"k1": a - b, "k2": 0.5 * (a - b) ** 2, "k3": b.exp() / a.exp() - 1 + a - b}[kind]

    ours, theirs = ([v.clone().requires_grad_() for v in values] for _ in range(2))
    found, expected = kl.kl_estimate(*ours, kind), right(*theirs)
    torch.testing.assert_close(found, expected)
    weight = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    grads = torch.autograd.grad((weight * found).sum(), ours)
    for grad, other in zip(
        grads, torch.autograd.grad((weight * expected).sum(), theirs), strict=True
    ):
        torch.testing.assert_close(grad, other)
    assert all(torch.equal(a.detach(), b) for a, b in zip(ours, values, strict=True))


@pytest.mark.exercise("kl.kl_estimate")
def test_k3_keeps_its_digits_near_zero() -> None:
    r = torch.tensor([1e-3, -1e-3])
    found = kl.kl_estimate(r, torch.zeros(2), "k3")
    assert found.tolist() == pytest.approx([5e-7, 5e-7], rel=2e-3)
    assert kl.kl_estimate(r, r, "k3").tolist() == [0.0, 0.0]


def test_token_kl_is_the_sum_over_the_vocabulary(make_gpt: Callable[..., GPT]) -> None:
    model, reference = make_gpt(0), make_gpt(1)
    rows = collate([[5, 6], [3, 4, 10]], [[7, 8, 0], [9, 0]])
    found = kl.token_kl(model, reference, rows)
    log_pi, log_ref = (m(rows.tokens).log_softmax(-1) for m in (model, reference))
    for n, t in rows.mask.nonzero().tolist():
        p, q = log_pi[n, t - 1], log_ref[n, t - 1]
        expected = sum(p[v].exp() * (p[v] - q[v]) for v in range(30))
        torch.testing.assert_close(found[n, t], expected)
    assert not found[~rows.mask].any()


def test_token_kl_estimates_the_kl_of_answers(make_gpt: Callable[..., GPT]) -> None:
    """Answers of one and two tokens, counted one by one: both estimates have this mean."""
    model, reference = make_gpt(0), make_gpt(1)
    prompt = [5, 6]
    answers = [[a, b] for a in range(30) for b in range(30)]
    rows = collate([prompt] * 900, answers)
    log_pi, log_ref = (_whole(m, rows) for m in (model, reference))
    exact = (log_pi.exp() * (log_pi - log_ref)).sum()
    torch.testing.assert_close(log_pi.exp().sum(), torch.tensor(1.0), rtol=1e-4, atol=0)
    estimate = (log_pi.exp() * kl.token_kl(model, reference, rows).sum(1)).sum()
    torch.testing.assert_close(estimate, exact, rtol=1e-3, atol=1e-5)


def _whole(model: GPT, rows: Rows) -> Tensor:
    every = model(rows.tokens).log_softmax(-1)
    return sum(every[:, t - 1].gather(1, rows.tokens[:, t : t + 1])[:, 0] for t in (2, 3)).detach()  # type: ignore[union-attr]
