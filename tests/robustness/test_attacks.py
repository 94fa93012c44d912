"""Attacks against closed forms on linear models, brute force and foolbox."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import UsageError
from robustness import attacks, square
from robustness.model import make_network


class Linear(nn.Module):
    """Logits w . x + b and 0: the best attack is known."""

    def __init__(self, w: Tensor, b: float = 0.0) -> None:
        super().__init__()
        self.w, self.b = w, b

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).flatten(1).sum(1) + self.b
        return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.fixture
def w() -> Tensor:
    return torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def x() -> Tensor:
    return 0.3 + 0.4 * torch.rand(4, 2, 3, 5, generator=torch.Generator().manual_seed(1))


def small() -> nn.Module:
    torch.manual_seed(0)
    return make_network("small", (1, 8, 12), 5, 4).eval()


@pytest.mark.exercise("attacks.project")
def test_projection_clips_each_number_for_linf(x: Tensor) -> None:
    delta = x - 0.5
    before = delta.clone()
    found = attacks.project(delta, 0.1, "linf")
    assert torch.equal(found, torch.minimum(torch.maximum(before, -0.1 + 0 * x), 0.1 + 0 * x))
    assert torch.equal(delta, before)


@pytest.mark.exercise("attacks.project")
def test_projection_scales_each_picture_for_l2(x: Tensor) -> None:
    delta = (x - 0.5) * torch.tensor([0.01, 1.0, 10.0, 0.0]).view(4, 1, 1, 1)
    before = delta.clone()
    found = attacks.project(delta, 0.5, "l2")
    for old, new in zip(before, found, strict=True):
        length = old.square().sum().sqrt()
        expected = old if length <= 0.5 else old * 0.5 / length
        assert torch.allclose(new, expected, atol=1e-6)
    assert torch.equal(delta, before)
    assert torch.equal(attacks.project(delta, 0.0, "l2"), torch.zeros_like(delta))
    assert len(attacks.project(delta[:0], 0.5, "l2")) == 0


@pytest.mark.exercise("attacks.ascent")
def test_ascent_raises_a_linear_function_most(x: Tensor) -> None:
    gradient = (x - 0.5) * torch.tensor([1.0, 100.0, 1e-6, 0.0]).view(4, 1, 1, 1)
    before = gradient.clone()
    flat = before.flatten(1)
    linf, l2 = attacks.ascent(gradient, "linf"), attacks.ascent(gradient, "l2")
    # Hoelder: the largest inner product is the dual norm of the gradient.
    assert torch.allclose((linf.flatten(1) * flat).sum(1), flat.abs().sum(1))
    assert linf.abs().max() == 1
    assert torch.allclose((l2.flatten(1) * flat).sum(1), flat.norm(dim=1))
    assert torch.allclose(l2.flatten(1).norm(dim=1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert torch.equal(gradient, before)


@pytest.mark.exercise("attacks.fgsm")
@pytest.mark.parametrize("label", [0, 1])
def test_fgsm_finds_the_best_attack_on_a_linear_model(w: Tensor, x: Tensor, label: int) -> None:
    y = torch.full((4,), label)
    before = x.clone()
    found = attacks.fgsm(Linear(w).eval(), x, y, 0.25)
    towards = w.sign() if label == 0 else -w.sign()
    assert torch.allclose(found, (before + 0.25 * towards).clamp(0, 1))
    assert torch.equal(x, before)
    assert not found.requires_grad
    still = w.clone()
    still[1, 0, 2] = 0  # a pixel without an effect stays as it is
    found = attacks.fgsm(Linear(still).eval(), x, y, 0.25)
    assert torch.equal(found[:, 1, 0, 2], before[:, 1, 0, 2])
    far = attacks.fgsm(Linear(w).eval(), x, y, 0.9)
    assert far.min() == 0
    assert far.max() == 1


Attack = Callable[[nn.Module, Tensor, Tensor, float], Tensor]


def refuses(attack: Attack, w: Tensor, x: Tensor) -> None:
    """Assert that the attack lets `check` refuse each kind of argument."""
    model, y = Linear(w).eval(), torch.tensor([0, 1, 0, 1])
    training = nn.Sequential(model, nn.Dropout())
    training.eval()[1].train()
    for arguments in (
        (model, x + 1, y, 0.1),
        (model, x, y, -0.1),
        (model, x, y + 1, 0.1),
        (training, x, y, 0.1),
    ):
        with pytest.raises(UsageError):
            attack(*arguments)


@pytest.mark.exercise("attacks.fgsm")
def test_fgsm_refuses_what_cannot_be_attacked(w: Tensor, x: Tensor) -> None:
    refuses(attacks.fgsm, w, x)


@pytest.mark.exercise("attacks.pgd")
def test_pgd_refuses_what_cannot_be_attacked(w: Tensor, x: Tensor) -> None:
    refuses(lambda *arguments: attacks.pgd(*arguments, steps=3, step_size=0.1), w, x)


def test_what_cannot_be_attacked_is_named(w: Tensor, x: Tensor) -> None:
    model, y = Linear(w).eval(), torch.tensor([0, 1, 0, 1])
    for images in (x + 1, x - 1, (255 * x).to(torch.uint8), x * torch.nan):
        with pytest.raises(UsageError, match=r"\[0, 1\]"):
            attacks.check(model, images, y, 0.1)
    for epsilon in (-0.1, float("nan")):
        with pytest.raises(UsageError, match="epsilon"):
            attacks.check(model, x, y, epsilon)
    for labels in (y + 1, y - 1, y[:3]):
        with pytest.raises(UsageError, match="labels"):
            attacks.check(model, x, labels, 0.1)
    with pytest.raises(UsageError, match="training mode"):
        attacks.check(nn.Sequential(model, nn.Dropout()).train(), x, y, 0.1)
    inside = nn.Sequential(model, nn.Dropout()).eval()
    inside[1].train()
    with pytest.raises(UsageError, match="training mode"):
        attacks.check(inside, x, y, 0.1)


@pytest.mark.exercise("attacks.pgd")
def test_pgd_reaches_the_best_attack_on_a_linear_model(w: Tensor, x: Tensor) -> None:
    x, w = x.double(), w.double()
    y, before = torch.ones(4, dtype=torch.int64), x.clone()
    model = Linear(w, b=25.0).eval()  # never fooled: it goes as far as it may
    found = attacks.pgd(model, x, y, 0.25, steps=4, step_size=0.1)
    assert torch.allclose(found, (before - 0.25 * w.sign()).clamp(0, 1), atol=1e-6)
    one = attacks.pgd(model, x, y, 0.25, steps=1, step_size=0.1)
    assert torch.allclose(one, (before - 0.1 * w.sign()).clamp(0, 1), atol=1e-6)
    l2 = attacks.pgd(model, x, y, 0.2, steps=3, step_size=0.15, norm="l2")
    assert torch.allclose(l2, before - 0.2 * w / w.norm(), atol=1e-5)
    assert torch.equal(x, before)
    assert attacks.pgd(model, x[:0], y[:0], 0.25, 2, 0.1).shape == (0, 2, 3, 5)
    with pytest.raises(UsageError, match="steps"):
        attacks.pgd(model, x, y, 0.25, steps=0, step_size=0.1)


@pytest.mark.exercise("attacks.pgd")
def test_pgd_begins_at_the_projected_start_and_clips(w: Tensor, x: Tensor) -> None:
    x, w = x.double(), w.double()
    start = torch.full_like(x, -5.0)
    before = start.clone()
    model, y = Linear(w, b=-25.0).eval(), torch.zeros(4, dtype=torch.int64)
    found = attacks.pgd(model, x, y, 0.2, steps=1, step_size=0.05, start=start)
    assert torch.allclose(found, (x - 0.2 + 0.05 * w.sign()).clamp(min=x - 0.2), atol=1e-6)
    assert torch.equal(start, before)
    # From a start outside [0, 1] the clipped picture moves, not the one outside.
    found = attacks.pgd(model, x, y, 0.9, steps=1, step_size=0.05, start=start)
    assert torch.allclose(found, (0.05 * w.sign()).clamp(min=0).expand_as(x), atol=1e-6)
    found = attacks.pgd(model, x, y, 0.9, steps=1, step_size=0.05, start=-start)
    assert torch.allclose(found, (1 + 0.05 * w.sign()).clamp(max=1).expand_as(x), atol=1e-6)
    # A start inside the cube is kept: the step begins there.
    near = torch.full_like(x, 0.1)
    found = attacks.pgd(model, x, y, 0.2, steps=1, step_size=0.05, start=near)
    assert torch.allclose(found, x + 0.1 + 0.05 * w.sign(), atol=1e-6)


@pytest.mark.exercise("attacks.pgd")
def test_pgd_leaves_alone_what_is_fooled_after_a_step(x: Tensor) -> None:
    w = torch.ones(2, 3, 5)
    x = torch.full_like(x, 0.5)
    x[1] += 0.05  # scores of 0.75 and less: one step of 0.1 moves the score by 3
    model, y = Linear(w, b=-14.0).eval(), torch.ones(4, dtype=torch.int64)
    found = attacks.pgd(model, x, y, 0.3, steps=3, step_size=0.04)
    assert torch.allclose(found[0], x[0] - 0.04, atol=1e-6)
    assert torch.allclose(found[1], x[1] - 0.12, atol=1e-6)
    # A picture that is wrong already moves once, since it is looked at after the first step.
    assert torch.allclose(attacks.pgd(model, x, 1 - y, 0.3, 3, 0.01)[0], x[0] + 0.01, atol=1e-6)


@pytest.mark.exercise("attacks.worst_case")
def test_a_picture_counts_only_if_right_under_every_attack() -> None:
    correct = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]]).bool()
    assert attacks.worst_case(correct) == 25
    assert isinstance(attacks.worst_case(correct), float)
    assert attacks.worst_case(correct[:1]) == 75
    assert attacks.worst_case(correct[:, :1]) == 100
    with pytest.raises(UsageError, match="pictures"):
        attacks.worst_case(correct[:, :0])


def test_random_starts_fill_the_ball() -> None:
    x = torch.zeros(4000, 1, 1, 2)
    draw = torch.Generator().manual_seed(0)
    cube = attacks.random_start(x, 0.3, "linf", draw).flatten(1)
    assert cube.abs().max() <= 0.3
    assert cube.std(0).tolist() == pytest.approx([0.3 / 3**0.5] * 2, rel=0.05)
    ball = attacks.random_start(x, 0.3, "l2", draw).flatten(1).norm(dim=1)
    assert ball.max() <= 0.3 + 1e-6
    assert (ball < 0.15).float().mean().item() == pytest.approx(0.25, abs=0.03)  # share of area


def test_accuracy_under_restarts_is_the_share_too_far_from_the_boundary(w: Tensor) -> None:
    x = 0.3 + 0.4 * torch.rand(30, 2, 3, 5, generator=torch.Generator().manual_seed(3))
    score = (x * w).flatten(1).sum(1)
    model = Linear(w, b=-score.median().item()).eval()
    y = model(x).argmax(1)
    rows = attacks.pgd_correct(model, x, y, 0.02, 3, 3, seed=0, batch_size=7)
    far = (score - score.median()).abs() > 0.02 * w.abs().sum()
    assert rows.shape == (3, 30)
    assert 0 < far.sum() < 30
    assert (rows[1:] <= rows[:-1]).all()
    assert torch.equal(rows[-1], far)


def test_square_stays_in_the_ball_and_matches_the_best_attack() -> None:
    w = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    x = torch.full((3, 1, 4, 6), 0.5)
    model, y = Linear(w, b=100.0).eval(), torch.ones(3, dtype=torch.int64)
    found = square.square_attack(model, x, y, 0.1, queries=800, seed=0)
    assert (found - x).abs().max() <= 0.1 + 1e-6
    reached = (model(x) - model(found))[:, 1]
    assert (reached > 0.9 * 0.1 * w.abs().sum()).all()  # the closed form is the last product
    assert (reached <= 0.1 * w.abs().sum() + 1e-4).all()
    sides = [square.side_of(s, 100, 28, 20) for s in range(100)]
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] == 1


def test_the_margin_is_negative_where_the_answer_is_wrong() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.5], [0.0, 1.0, 5.0]])
    assert square.margin(logits, torch.tensor([0, 1])).tolist() == [0.5, -4.0]


def test_fgsm_and_pgd_agree_with_foolbox() -> None:
    foolbox = pytest.importorskip("foolbox")
    model, x = small(), torch.rand(20, 1, 8, 12, generator=torch.Generator().manual_seed(3))
    y = model(x).argmax(1)
    peer = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    with_peer = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    assert torch.allclose(with_peer.run(peer, x, y, epsilon=0.05), attacks.fgsm(model, x, y, 0.05))
    for norm, kind in (("linf", "LinfPGD"), ("l2", "L2PGD")):
        attack = getattr(foolbox.attacks, kind)(abs_stepsize=0.02, steps=1, random_start=False)
        ours = attacks.pgd(model, x, y, 0.05, 1, 0.02, norm)
        assert torch.allclose(attack.run(peer, x, y, epsilon=0.05), ours, atol=1e-6)


@pytest.mark.parametrize("kind", ["small", "week3"])
def test_networks_take_pictures_of_other_shapes(kind: str) -> None:
    model = make_network(kind, (3, 8, 12), 7, 4).eval()  # type: ignore[arg-type]
    one = model(torch.zeros(1, 3, 8, 12))
    assert one.shape == (1, 7)
    assert F.softmax(one, dim=1).sum().item() == pytest.approx(1)
    if kind == "small":
        with pytest.raises(UsageError, match="network=week3"):
            make_network("small", (1, 9, 8), 2, 4)
