"""Losses of an energy against closed forms, and what JEM reads from logits."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor, nn

from ebm_jepa import losses
from ebm_jepa.energy import Conv, LogitEnergy, PlaneEnergy, WideResNet, energy_of_logits
from ebm_jepa.losses import contrastive_divergence, denoising_score_matching
from labkit import RunFailed


def numbers(*shape: int, seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draws, dtype=torch.float64)


@pytest.mark.exercise("energy.energy_of_logits")
@pytest.mark.parametrize("shape", [(1, 3), (4, 4), (5, 1), (2, 10)])
def test_energy_is_minus_scipys_logsumexp(shape: tuple[int, int]) -> None:
    logits = numbers(*shape)
    kept = logits.clone()
    found = energy_of_logits(logits)
    np.testing.assert_allclose(found.numpy(), -logsumexp(logits.numpy(), axis=1))
    assert torch.equal(logits, kept)


@pytest.mark.exercise("energy.energy_of_logits")
def test_energy_falls_by_what_is_added_to_all_logits_and_does_not_overflow() -> None:
    logits = numbers(3, 5).float()
    for shift in (-1000.0, 1000.0):
        torch.testing.assert_close(
            energy_of_logits(logits + shift), energy_of_logits(logits) - shift, atol=1e-3, rtol=0
        )


@pytest.mark.exercise("energy.energy_of_logits")
def test_gradient_of_the_energy_is_minus_softmax() -> None:
    logits = numbers(3, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(energy_of_logits(logits).sum(), logits)
    torch.testing.assert_close(gradient, -logits.detach().softmax(dim=1))


@pytest.mark.exercise("energy.energy_of_logits")
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_energy_is_computed_in_32_bits_or_more(given: torch.dtype, wanted: torch.dtype) -> None:
    logits = (8 * numbers(6, 5)).to(given)
    found = energy_of_logits(logits)
    assert found.dtype == wanted
    expected = -logsumexp(logits.double().numpy(), axis=1)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-5)


@pytest.mark.exercise("losses.contrastive_divergence")
@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_contrastive_divergence_in_numbers(penalty: float) -> None:
    """Three data and two samples: means 2 and 5, mean squares 14/3 and 29."""
    real, fake = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 7.0])
    kept = real.clone(), fake.clone()
    found = contrastive_divergence(real, fake, penalty)
    assert found.shape == ()
    assert found.item() == pytest.approx(2 - 5 + penalty * (14 / 3 + 29))
    assert torch.equal(real, kept[0])
    assert torch.equal(fake, kept[1])


@pytest.mark.exercise("losses.contrastive_divergence")
def test_without_a_penalty_there_is_none() -> None:
    real, fake = numbers(4), numbers(7, seed=1)
    expected = float(np.mean(real.numpy()) - np.mean(fake.numpy()))
    assert contrastive_divergence(real, fake).item() == pytest.approx(expected)


@pytest.mark.exercise("losses.contrastive_divergence")
def test_data_go_down_and_samples_go_up() -> None:
    real, fake = numbers(4).requires_grad_(), numbers(2, seed=1).requires_grad_()
    loss = contrastive_divergence(real, fake, 0.25)
    down, up = torch.autograd.grad(loss, [real, fake])
    torch.testing.assert_close(down, 1 / 4 + 0.25 * 2 * real.detach() / 4)
    torch.testing.assert_close(up, -1 / 2 + 0.25 * 2 * fake.detach() / 2)


class Bowl(nn.Module):
    """E(x) = a |x|^2 / 2: a Gaussian of variance 1 / a."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x.flatten(1).square().sum(dim=1) / 2


def by_hand(a: float, x: Tensor, noise: Tensor, sigma: float) -> float:
    """The docstring's equation in NumPy: the score of the bowl is -a y."""
    X, Z = x.detach().numpy(), noise.numpy()
    Y = X + sigma * Z
    difference = -a * Y - (X - Y) / sigma**2
    return float(sigma**2 / 2 * np.mean([np.sum(row**2) for row in difference]))


@pytest.mark.exercise("losses.denoising_score_matching")
@pytest.mark.parametrize("shape", [(1, 2), (5, 3), (3, 2, 4, 1)])
@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_score_matching_is_its_equation(shape: tuple[int, ...], sigma: float) -> None:
    x, noise = numbers(*shape), numbers(*shape, seed=1)
    kept = x.clone(), noise.clone()
    found = denoising_score_matching(Bowl(0.7), x, noise, sigma)
    assert found.shape == ()
    assert found.item() == pytest.approx(by_hand(0.7, x, noise, sigma))
    assert torch.equal(x, kept[0])
    assert torch.equal(noise, kept[1])


@pytest.mark.exercise("losses.denoising_score_matching")
def test_score_matching_of_a_gaussian_finds_the_noised_variance() -> None:
    """Data N(0, t^2), noised by s: the loss is least, its slope 0, at a = 1 / (t^2 + s^2)."""
    t, s = 1.5, 0.8
    x, noise = t * numbers(200_000, 1), numbers(200_000, 1, seed=1)
    best = 1 / (t**2 + s**2)
    slopes = []
    for a in (0.7 * best, best, 1.4 * best):
        bowl = Bowl(a)
        slopes += torch.autograd.grad(denoising_score_matching(bowl, x, noise, s), bowl.a)
    assert slopes[0] < -0.05
    assert slopes[1].item() == pytest.approx(0, abs=0.02)
    assert slopes[2] > 0.05


@pytest.mark.exercise("losses.denoising_score_matching")
def test_gradient_of_score_matching_is_that_of_differences() -> None:
    x, noise, h = numbers(4, 2), numbers(4, 2, seed=1), 1e-6
    bowl = Bowl(0.9)
    (slope,) = torch.autograd.grad(denoising_score_matching(bowl, x, noise, 0.5), bowl.a)
    difference = by_hand(0.9 + h, x, noise, 0.5) - by_hand(0.9 - h, x, noise, 0.5)
    assert slope.item() == pytest.approx(difference / (2 * h), rel=1e-5)


@pytest.mark.exercise("losses.denoising_score_matching")
def test_score_matching_of_data_that_need_a_gradient() -> None:
    leaf = numbers(4, 2).requires_grad_()
    found = denoising_score_matching(Bowl(0.9), 2 * leaf, numbers(4, 2, seed=1), 0.5)
    found.backward()
    assert leaf.grad is None, "the loss is of the weights"
    assert leaf.requires_grad


@pytest.mark.parametrize(("real", "fake"), [(1e6, 0.0), (0.0, 1e6), (math.nan, 0.0)])
def test_energies_that_diverge_end_the_run(real: float, fake: float) -> None:
    with pytest.raises(RunFailed, match=r"diverged at step 7.*lower jem\.lr"):
        losses.check_energies(torch.tensor(real), torch.tensor(fake), 7, "jem")


def test_energies_that_are_close_do_not() -> None:
    losses.check_energies(torch.tensor(-500.0), torch.tensor(-495.0), 7, "jem")


@pytest.mark.parametrize("image", [(1, 8, 8), (1, 28, 28), (3, 32, 20)])
def test_picture_networks_judge_each_picture_by_itself(image: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    for network in (Conv(image, 4, 3), WideResNet(image, 1, 3, 10)):
        x = torch.randn(5, *image)
        out = network(x)
        assert out.shape == (5, 3)
        torch.testing.assert_close(network(x[2:3]), out[2:3], atol=1e-5, rtol=1e-4)
        names = {type(m).__name__ for m in network.modules()}
        assert not {"BatchNorm2d", "ReLU"} & names


def test_wide_resnet_has_the_layers_of_its_depth() -> None:
    """Depth counts convolutions on the main path and the read-out: 6 n + 4 with the skips."""
    network = WideResNet((3, 32, 32), 1, 10, 16)
    main = [
        m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and "skip" not in name
    ]
    assert len(main) == 6 * 2 + 1
    with pytest.raises(ValueError, match="6 n \\+ 4"):
        WideResNet((3, 32, 32), 1, 10, 20)


def test_energies_of_points_and_of_pictures() -> None:
    torch.manual_seed(0)
    plane = PlaneEnergy(8, 2)
    x = torch.randn(5, 2)
    assert plane(x).shape == (5,)
    torch.testing.assert_close(plane(x[1:2]), plane(x)[1:2])
    far = torch.tensor([[1e3, 0.0]])
    assert plane(far).item() == pytest.approx(1e6 / 8, rel=0.05), "far out it is the Gaussian's"
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images = torch.randn(2, 1, 2, 2)
    expected = -logsumexp(network(images).detach().numpy(), axis=1)
    found = LogitEnergy(network)(images).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
