"""Losses against PyTorch's, the R1 penalty against closed forms, what each step may change."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generative_models import GAN, Decoder, Discriminator, GANSettings, gan
from generative_models.settings import AUGMENTATIONS, Loss


def pictures(batch: int, seed: int = 0, image: tuple[int, ...] = (2, 3, 4)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *image, generator=generator, dtype=torch.float64)


def linear(weight: Tensor) -> gan.Judge:
    return lambda x: (x * weight).flatten(1).sum(dim=1)


WEIGHT = pictures(1, seed=9)[0]


@pytest.mark.exercise("gan.discriminator_loss")
@pytest.mark.parametrize(("real", "fake"), [(1, 1), (3, 5)])
def test_non_saturating_loss_is_binary_cross_entropy(real: int, fake: int) -> None:
    judge, x, g = linear(WEIGHT), pictures(real), pictures(fake, 1)
    kept = x.clone(), g.clone()
    cross_entropy = F.binary_cross_entropy_with_logits
    expected = cross_entropy(judge(x), torch.ones(real).double()) + cross_entropy(
        judge(g), torch.zeros(fake).double()
    )
    found = gan.discriminator_loss(judge, x, g, "non_saturating")
    torch.testing.assert_close(found, expected)
    assert found.shape == ()
    assert torch.equal(x, kept[0])
    assert torch.equal(g, kept[1])


@pytest.mark.exercise("gan.discriminator_loss")
def test_hinge_loss_by_hand() -> None:
    def judge(x: Tensor) -> Tensor:
        return x.flatten(1).sum(dim=1)

    real, fake = torch.tensor([[2.0], [0.5], [-1.0]]), torch.tensor([[-3.0], [0.25]])
    found = gan.discriminator_loss(judge, real, fake, "hinge")
    assert found.item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1.25) / 2)


@pytest.mark.exercise("gan.discriminator_loss")
@pytest.mark.parametrize("loss", ["non_saturating", "hinge"])
def test_the_discriminator_s_loss_does_not_reach_the_generator(loss: Loss) -> None:
    """It reaches the discriminator through both sets, as numerical differences say."""
    weight = (0.1 * WEIGHT).requires_grad_()
    fake = pictures(3, 1).requires_grad_()
    real = pictures(2)
    gan.discriminator_loss(linear(weight), real, fake, loss).backward()
    assert fake.grad is None

    def of_weight(w: Tensor) -> Tensor:
        return gan.discriminator_loss(linear(w), real, fake, loss)

    assert weight.grad is not None
    for place in ((0, 0, 0), (1, 2, 3)):
        step = torch.zeros_like(WEIGHT)
        step[place] = 1e-6
        slope = (of_weight(weight.detach() + step) - of_weight(weight.detach() - step)) / 2e-6
        assert weight.grad[place].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-6)


@pytest.mark.exercise("gan.discriminator_loss")
@pytest.mark.parametrize("loss", ["non_saturating", "hinge"])
def test_real_and_generated_pictures_are_judged_in_two_calls(loss: Loss) -> None:
    seen = []

    def judge(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return x.flatten(1).sum(dim=1)

    real, fake = pictures(2), pictures(3, 1)
    gan.discriminator_loss(judge, real, fake, loss)
    assert len(seen) == 2
    assert torch.equal(seen[0], real)
    assert torch.equal(seen[1], fake)


@pytest.mark.exercise("gan.discriminator_loss")
def test_losses_are_finite_for_logits_of_any_size() -> None:
    def judge(x: Tensor) -> Tensor:
        return x.flatten(1).sum(dim=1)

    far = torch.full((1, 1), 500.0)
    assert gan.discriminator_loss(judge, far, -far, "non_saturating").item() == 0
    assert gan.discriminator_loss(judge, -far, far, "non_saturating").item() == 1000
    assert gan.discriminator_loss(judge, -far, far, "hinge").item() == 1002


@pytest.mark.exercise("gan.generator_loss")
@pytest.mark.parametrize("batch", [1, 4])
def test_generator_losses_and_their_gradients(batch: int) -> None:
    """The labels are flipped, not the sign of the loss: the gradient does not vanish."""
    judge = linear(WEIGHT)
    fake = pictures(batch, 1).requires_grad_()
    loss = gan.generator_loss(judge, fake, "non_saturating")
    expected = F.binary_cross_entropy_with_logits(judge(fake), torch.ones(batch).double())
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, fake)
    slope = -torch.sigmoid(-judge(fake)).detach().view(-1, 1, 1, 1) / batch
    torch.testing.assert_close(gradient, slope * WEIGHT)
    hinge = gan.generator_loss(judge, fake, "hinge")
    torch.testing.assert_close(hinge, -judge(fake).mean())
    (gradient,) = torch.autograd.grad(hinge, fake)
    torch.testing.assert_close(gradient, (-WEIGHT / batch).expand_as(gradient))


@pytest.mark.exercise("gan.generator_loss")
def test_generator_loss_is_finite_for_logits_of_any_size() -> None:
    def judge(x: Tensor) -> Tensor:
        return x.flatten()

    assert gan.generator_loss(judge, torch.tensor([[-500.0]]), "non_saturating").item() == 500
    assert gan.generator_loss(judge, torch.tensor([[500.0]]), "non_saturating").item() == 0


@pytest.mark.exercise("gan.r1_penalty")
@pytest.mark.parametrize("batch", [1, 3])
def test_r1_of_a_linear_discriminator_is_its_squared_norm(batch: int) -> None:
    weight = WEIGHT.clone().requires_grad_()
    penalty = gan.r1_penalty(linear(weight), pictures(batch))
    torch.testing.assert_close(penalty, WEIGHT.square().sum())
    assert penalty.shape == ()
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * WEIGHT)


@pytest.mark.exercise("gan.r1_penalty")
def test_r1_of_a_quadratic_discriminator() -> None:
    """D(x) = a |x|^2 / 2 has gradient a x: the penalty is a^2 |x|^2, averaged over pictures."""
    a = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    real = pictures(4).requires_grad_()
    kept = real.detach().clone()

    def judge(x: Tensor) -> Tensor:
        return a * x.square().flatten(1).sum(dim=1) / 2

    penalty = gan.r1_penalty(judge, real)
    squares = real.detach().square().flatten(1).sum(dim=1)
    assert penalty.item() == pytest.approx(2.25 * squares.mean().item())
    penalty.backward()
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(3 * squares.mean().item())
    assert real.grad is None
    assert torch.equal(real.detach(), kept)


@pytest.mark.exercise("gan.r1_penalty")
def test_r1_leaves_pictures_and_parameters_without_gradients() -> None:
    real = pictures(2)
    weight = WEIGHT.clone().requires_grad_()
    gan.r1_penalty(linear(weight), real)
    assert not real.requires_grad
    assert real.grad is None
    assert weight.grad is None


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_every_augmentation_changes_pictures_one_by_one(kind: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 24).repeat(6, 1, 1, 1)
    kept = x.clone()
    out = gan.augmented(x, [kind])
    assert out.shape == x.shape
    assert torch.equal(x, kept)
    assert not torch.equal(out, x)
    assert not torch.equal(out[0], out[1])
    assert torch.equal(gan.augmented(x, []), x)


def test_cutout_blanks_at_most_half_of_each_side_and_passes_the_gradient_elsewhere() -> None:
    torch.manual_seed(0)
    x = torch.ones(200, 1, 8, 12, requires_grad=True)
    out = gan.augmented(x, ["cutout"])
    blank = out == 0
    assert blank.any(dim=3).sum(dim=2).max() == 4
    assert blank.any(dim=2).sum(dim=2).max() == 6
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, blank)


def test_translation_moves_by_at_most_an_eighth() -> None:
    torch.manual_seed(0)
    x = torch.zeros(300, 1, 16, 16)
    x[:, :, 8, 8] = 1
    rows, columns = gan.augmented(x, ["translation"]).nonzero()[:, 2:].T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 10, 6, 10)


def test_colour_keeps_the_order_of_bright_and_dark() -> None:
    torch.manual_seed(0)
    x = torch.linspace(0, 1, 64).view(1, 1, 8, 8).repeat(50, 1, 1, 1)
    out = gan.augmented(x, ["color"]).flatten(1)
    assert (out.diff(dim=1) > 0).all()
    assert out.mean(dim=1).sub(0.5).abs().max() <= 0.5
    spread = (out[:, -1] - out[:, 0]).sort().values
    assert (spread[0] > 0.5, spread[-1] < 1.5) == (True, True)


def learner(**settings: object) -> GAN:
    torch.manual_seed(0)
    size = ((1, 8, 8), 4, 2)
    return GAN(
        Decoder(*size, 3, spatial=False),
        Discriminator(*size),
        GANSettings(**settings),  # type: ignore[arg-type]
        contextlib.nullcontext,
    )


@pytest.mark.parametrize(
    "settings", [{}, {"loss": "non_saturating", "r1": 1.0}, {"discriminator_steps": 3}]
)
def test_a_step_trains_both_players_and_the_average(settings: dict[str, object]) -> None:
    gan_ = learner(**settings)
    parts = (gan_.network, gan_.discriminator, gan_.generator)
    before = [[p.detach().clone() for p in part.parameters()] for part in parts]
    terms = gan_.update(torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8), 1.0)
    assert set(terms) == set(gan_.terms)
    assert all(value.isfinite() for value in terms.values())
    for part, old in zip(parts, before, strict=True):
        assert any(not torch.equal(p, q) for p, q in zip(part.parameters(), old, strict=True))


def test_each_player_is_changed_by_its_own_rate_alone() -> None:
    """A rate near 0 for one leaves it as it is: the other's step does not touch it."""
    for still, moving in (("lr_generator", 1), ("lr_discriminator", 0)):
        gan_ = learner(**{still: 1e-30})
        parts = (gan_.network, gan_.discriminator)
        before = [[p.detach().clone() for p in part.parameters()] for part in parts]
        gan_.update(torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8), 1.0)
        same = [
            all((p - q).abs().max() < 1e-20 for p, q in zip(part.parameters(), old, strict=True))
            for part, old in zip(parts, before, strict=True)
        ]
        assert same[1 - moving]
        assert not same[moving]


def test_the_average_forgets_the_first_weights() -> None:
    decay = learner(ema_decay=0.9).ema.decay
    assert [decay(n) for n in (0, 1, 1000)] == pytest.approx([1 / 10, 2 / 11, 0.9])
