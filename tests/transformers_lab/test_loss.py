"""Loss against F.cross_entropy, schedule against the paper's own statements."""

import math

import pytest
import torch
import torch.nn.functional as F

from transformers_lab import loss, schedule
from transformers_lab.bpe import EOS, PAD


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (3, 5, 11) and labels (3, 5), six of which are padding, three the end."""
    g = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 5, 11, generator=g)
    labels = torch.tensor([[4, 9, EOS, PAD, PAD], [5, EOS, PAD, PAD, PAD], [6, 3, 10, EOS, PAD]])
    return logits, labels


@pytest.mark.exercise("loss.smoothed_cross_entropy")
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_loss_and_its_gradient_are_torchs(smoothing: float) -> None:
    logits, labels = example()
    mine, theirs = (logits.clone().requires_grad_() for _ in range(2))
    ours = loss.smoothed_cross_entropy(mine, labels, smoothing)
    expected = F.cross_entropy(
        theirs.flatten(0, 1), labels.flatten(), ignore_index=PAD, label_smoothing=smoothing
    )
    torch.testing.assert_close(ours, expected)
    ours.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.exercise("loss.smoothed_cross_entropy")
@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 1), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_of_any_shape_and_type_and_without_smoothing_by_default(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(*shape, 5, generator=g, dtype=dtype)
    labels = torch.randint(1, 5, shape, generator=g)
    given = logits.clone(), labels.clone()
    found = loss.smoothed_cross_entropy(logits, labels)
    assert (found.shape, found.dtype) == ((), dtype)
    torch.testing.assert_close(found, F.cross_entropy(logits.view(-1, 5), labels.view(-1)))
    assert torch.equal(logits, given[0])
    assert torch.equal(labels, given[1])


@pytest.mark.exercise("loss.smoothed_cross_entropy")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_token_that_cannot_come_leaves_the_loss_as_torch_has_it(smoothing: float) -> None:
    logits = torch.tensor([[1.0, 0.0, -torch.inf], [2.0, -torch.inf, 0.5]])
    mine, theirs = (logits.clone().requires_grad_() for _ in range(2))
    labels = torch.tensor([1, 2])
    found = loss.smoothed_cross_entropy(mine, labels, smoothing)
    expected = F.cross_entropy(theirs, labels, label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)
    assert found.isfinite() == (smoothing == 0)
    if not smoothing:
        found.backward()
        expected.backward()
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.exercise("loss.smoothed_cross_entropy")
def test_more_padding_changes_nothing() -> None:
    logits, labels = example()
    wider = torch.cat([logits, torch.full((3, 4, 11), 50.0)], dim=1)
    padded = torch.cat([labels, torch.full((3, 4), PAD)], dim=1)
    torch.testing.assert_close(
        loss.smoothed_cross_entropy(wider, padded, 0.1),
        loss.smoothed_cross_entropy(logits, labels, 0.1),
    )


@pytest.mark.exercise("loss.smoothed_cross_entropy")
def test_large_logits_do_not_overflow() -> None:
    logits, labels = example()
    shifted = loss.smoothed_cross_entropy(logits + 1000, labels, 0.1)
    torch.testing.assert_close(
        shifted, loss.smoothed_cross_entropy(logits, labels, 0.1), rtol=1e-3, atol=1e-3
    )


@pytest.mark.exercise("loss.smoothed_cross_entropy")
def test_smoothing_is_least_at_the_smoothed_target() -> None:
    """With p = q the loss is the entropy of q, whatever else is computed."""
    q = torch.full((1, 11), 0.1 / 11)
    q[0, 4] += 0.9
    found = loss.smoothed_cross_entropy(q.log(), torch.tensor([4]), 0.1)
    torch.testing.assert_close(found, torch.special.entr(q).sum())


def test_nll_is_torchs_without_smoothing_and_0_at_padding() -> None:
    logits, labels = example()
    nats = loss.nll(logits, labels)
    expected = F.cross_entropy(logits.mT, labels, ignore_index=PAD, reduction="none")
    torch.testing.assert_close(nats, expected)
    assert (nats == 0).sum() == 6


@pytest.mark.exercise("schedule.noam")
def test_rate_rises_to_its_peak_and_falls_as_the_root() -> None:
    rates = [schedule.noam(step, 512, 4000) for step in range(16_000)]
    assert max(rates) == rates[3999] == pytest.approx((512 * 4000) ** -0.5)
    assert rates[0] == pytest.approx(rates[3999] / 4000)
    assert rates[1999] == pytest.approx(rates[3999] / 2)  # linear on the way up
    assert rates[15_999] == pytest.approx(rates[3999] / 2)  # four times the steps, half the rate


@pytest.mark.exercise("schedule.noam")
@pytest.mark.parametrize(
    ("step", "d_model", "warmup"),
    [(0, 64, 10), (8, 64, 10), (9, 64, 10), (10, 64, 10), (99, 256, 10), (0, 1, 1), (7, 3, 1)],
)
def test_rate_is_equation_3(step: int, d_model: int, warmup: int) -> None:
    n = step + 1
    expected = 1 / math.sqrt(d_model) * min(1 / math.sqrt(n), n / warmup**1.5)
    found = schedule.noam(step, d_model, warmup)
    assert isinstance(found, float)
    assert found == pytest.approx(expected, rel=1e-12)
