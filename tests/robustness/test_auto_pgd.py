"""Auto-PGD against brute force and the paper's own numbers, and what masks gradients."""

import pytest
import torch
from torch import Tensor, nn

from labkit import UsageError
from robustness import attacks, auto_pgd, evaluate, masking


class Confident(nn.Module):
    """Three classes with logits so far apart that the cross-entropy's gradient is 0."""

    def __init__(self, w: Tensor, scale: float) -> None:
        super().__init__()
        self.w, self.scale = w, scale

    def forward(self, x: Tensor) -> Tensor:
        score = ((x - 0.5) * self.w).flatten(1).sum(1) + 0.6
        return self.scale * torch.stack([score, -score, -9 + 0 * score], dim=1)


@pytest.mark.exercise("auto_pgd.dlr_loss")
def test_dlr_loss_is_the_ratio_of_the_paper() -> None:
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 5
    before = logits.clone()
    found = auto_pgd.dlr_loss(logits, y)
    for row, label, value in zip(before.tolist(), y.tolist(), found.tolist(), strict=True):
        others = max(z for i, z in enumerate(row) if i != label)
        first, _, third = sorted(row, reverse=True)[:3]
        assert value == pytest.approx(-(row[label] - others) / (first - third), abs=1e-5)
    assert torch.equal(found > 0, before.argmax(1) != y)
    assert torch.equal(logits, before)
    assert torch.allclose(auto_pgd.dlr_loss(700 * logits - 3, y), found, atol=1e-4)
    assert auto_pgd.dlr_loss(torch.ones(1, 3), torch.tensor([2])).tolist() == [0]
    assert auto_pgd.dlr_loss(torch.tensor([[2.0, 5.0, 4.0]]), torch.tensor([1])).item() == (
        pytest.approx(-1 / 3)
    )
    near = torch.tensor([[1.0, 1 - 2e-12, 1 - 4e-12]], dtype=torch.float64)
    assert auto_pgd.dlr_loss(near, torch.tensor([0])).item() == pytest.approx(-0.4, rel=1e-3)
    with pytest.raises(UsageError, match="3 classes"):
        auto_pgd.dlr_loss(logits[:, :2], y % 2)


@pytest.mark.exercise("auto_pgd.dlr_loss")
def test_dlr_loss_has_a_gradient() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]], requires_grad=True)
    auto_pgd.dlr_loss(logits, torch.tensor([0])).sum().backward()
    # -(z0 - z2) / (z0 - z1), by hand.
    assert torch.allclose(logits.grad, torch.tensor([[-0.25, -0.25, 0.5, 0.0]]))


@pytest.mark.exercise("auto_pgd.halves")
def test_the_step_is_halved_when_progress_stops() -> None:
    no, yes = torch.tensor([False]), torch.tensor([True])
    for rises, window, same_step, same_best, expected in (
        (7, 10, no, no, True),  # fewer than 7.5 of 10 steps
        (8, 10, no, no, False),
        (3, 4, no, no, False),  # 0.75 is enough
        (10, 10, yes, yes, True),
        (10, 10, yes, no, False),
        (10, 10, no, yes, False),
        (0, 1, yes, yes, True),
    ):
        found = auto_pgd.halves(torch.tensor([rises]), window, same_step, same_best)
        assert found.tolist() == [expected]
        assert found.dtype == torch.bool
    rows = auto_pgd.halves(
        torch.tensor([9, 2, 9]), 10, torch.tensor([True] * 3), torch.tensor([True, False, False])
    )
    assert rows.tolist() == [True, True, False]


def test_checkpoints_are_those_of_the_paper() -> None:
    assert auto_pgd.checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert auto_pgd.checkpoints(1) == [0, 1]
    assert auto_pgd.checkpoints(10)[1] == 3  # rounded up


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_auto_pgd_finds_the_best_attack_on_a_linear_model(loss: auto_pgd.Loss) -> None:
    w = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    x = 0.3 + 0.4 * torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    model, before = Confident(w, 1.0).eval(), x.clone()
    y = model(x).argmax(1)
    for epsilon in (0.01, 0.1):
        found = auto_pgd.apgd(model, x, y, epsilon, 20, loss, seed=0)
        best = (x - epsilon * w.sign() * (1 - 2 * y.view(-1, 1, 1, 1))).clamp(0, 1)
        assert torch.equal(model(found).argmax(1) == y, model(best).argmax(1) == y)
        kept = model(best).argmax(1) == y
        assert torch.allclose(found[kept], best[kept], atol=1e-6)
        assert (found - x).abs().max() <= epsilon + 1e-6
    assert torch.equal(x, before)
    with pytest.raises(UsageError, match="one step"):
        auto_pgd.apgd(model, x, y, 0.1, 0, loss, seed=0)
    assert auto_pgd.apgd(model, x[:0], y[:0], 0.1, 3, loss, seed=0).shape == (0, 1, 4, 6)


def small() -> tuple[nn.Module, Tensor, Tensor]:
    """A network, pictures, and its answers for them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, 32), nn.Tanh(), nn.Linear(32, 5)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 4  # so that its answers differ
    x = torch.rand(60, 1, 8, 12, generator=torch.Generator().manual_seed(3))
    return model, x, model(x).argmax(1)


def test_a_picture_that_was_fooled_once_is_returned_fooled() -> None:
    model, x, y = small()
    for i in range(20):
        answers: list[int] = []
        hook = model.register_forward_hook(
            lambda module, arguments, logits: answers.append(int(logits.argmax()))  # noqa: B023
        )
        found = auto_pgd.apgd(model, x[i : i + 1], y[i : i + 1], 0.06, 20, "cross_entropy", seed=0)
        hook.remove()
        fooled = any(answer != y[i] for answer in answers)
        assert (model(found).argmax().item() != y[i]) == fooled


def test_auto_pgd_is_no_weaker_than_pgd_of_as_many_steps() -> None:
    model, x, y = small()
    pgd = attacks.pgd_correct(model, x, y, 0.05, 20, 1, seed=0)[0]
    auto = evaluate.auto_correct(model, x, y, 0.05, 20, seed=0)
    assert 0 < auto.sum() < 60
    assert auto.sum() <= pgd.sum()


def test_only_the_ratio_sees_through_confident_logits() -> None:
    w = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    x, model = torch.full((3, 1, 4, 6), 0.5), Confident(w, 1e5).eval()
    y = torch.zeros(3, dtype=torch.int64)
    assert attacks.gradient(model, x, y).abs().max() == 0
    assert attacks.pgd_correct(model, x, y, 0.05, 10, 1, seed=0).all()
    assert not evaluate.auto_correct(model, x, y, 0.05, 10, seed=0).any()


@pytest.mark.exercise("masking.signs_of_masking")
def test_each_sign_of_masking_is_found_alone() -> None:
    def signs(*numbers: float) -> list[str]:
        return masking.signs_of_masking(masking.Measured(*numbers))

    assert signs(60, 50, 55, 90, 0) == []
    assert signs(40, 50, 55, 90, 0) == ["one step"]
    assert signs(60, 50, 30, 90, 0) == ["black box"]
    assert signs(60, 50, 55, 45, 0) == ["noise"]
    assert signs(60, 50, 55, 90, 4) == ["unbounded"]
    assert signs(10, 90, 20, 80, 70) == ["one step", "black box", "noise", "unbounded"]
    assert signs(49, 50, 49, 49, 1) == []  # a point is chance
    assert signs(48.9, 50, 48.9, 48.9, 1.1) == ["one step", "black box", "noise", "unbounded"]
