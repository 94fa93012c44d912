"""What is measured of a classifier, against scikit-learn and by hand; strange pictures."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from ebm_jepa import data, evaluate, ood
from labkit.data import load
from labkit.data.kinds import ImageData


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_scikit_learns(ties: bool) -> None:
    draws = np.random.default_rng(0)
    inside, outside = draws.normal(0.5, 1, 37), draws.normal(0, 1, 91)
    if ties:
        inside, outside = inside.round(), outside.round()
    truth = np.r_[np.ones(37), np.zeros(91)]
    expected = roc_auc_score(truth, np.r_[inside, outside])
    found = ood.auroc(torch.from_numpy(inside), torch.from_numpy(outside))
    assert found == pytest.approx(expected, abs=1e-12)


def test_calibration_error_by_a_loop() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, 4, generator=draws)
    y = torch.randint(4, (300,), generator=draws)
    p = logits.double().softmax(dim=1).numpy()
    sure, right = p.max(axis=1), p.argmax(axis=1) == y.numpy()
    total = 0.0
    for b in range(10):
        inside = (sure > b / 10) & (sure <= (b + 1) / 10)
        if inside.any():
            total += inside.mean() * abs(sure[inside].mean() - right[inside].mean())
    assert ood.calibration_error(logits, y, 10) == pytest.approx(100 * total, abs=1e-3)
    certain = 50 * torch.eye(3)
    assert ood.calibration_error(certain, torch.arange(3)) == pytest.approx(0, abs=1e-6)
    assert ood.calibration_error(certain, torch.tensor([0, 1, 0])) == pytest.approx(100 / 3)


def test_attack_on_a_linear_classifier_is_the_worst_there_is() -> None:
    """Two classes: each pixel moves by the radius against its weight, or to the edge of [-1, 1]."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    x, y = 2 * torch.rand(5, 1, 2, 3) - 1, torch.tensor([0, 1, 0, 1, 1])
    found = ood.attack(network, x, y, 0.3, steps=10)
    weight = network[1].weight.detach()
    up = (weight[1] - weight[0]).sign().view(1, 2, 3)
    direction = torch.where(y[:, None, None, None] == 0, up, -up)
    torch.testing.assert_close(found, (x + 0.3 * direction).clamp(-1, 1))
    assert not found.requires_grad
    assert network[1].weight.grad is None
    assert network[1].weight.requires_grad


def test_robust_accuracy_at_radius_0_is_the_accuracy() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    test = load("digits", kind=ImageData).test
    x, y = test.tensors()
    right = (ood.logits_of(network, x).argmax(dim=1) == y).float().mean()
    assert ood.robust_accuracy(network, x, y, 0.0) == pytest.approx(100 * float(right), abs=1e-4)
    assert ood.robust_accuracy(network, x, y, 0.2) < 100 * float(right)


def test_scores() -> None:
    logits = torch.tensor([[0.0, 0.0], [3.0, -2.0]])
    expected = logits.double().exp().sum(dim=1).log().float()
    torch.testing.assert_close(ood.log_density(logits), expected)
    torch.testing.assert_close(ood.confidence(logits), logits.softmax(dim=1).max(dim=1).values)


@pytest.mark.parametrize("image", [(1, 8, 8), (1, 28, 28), (3, 20, 24)])
def test_strange_pictures_have_the_shape_of_the_data(image: tuple[int, int, int]) -> None:
    for given in (torch.full((2, 3, 32, 32), 77), torch.full((2, 1, 28, 28), 77)):
        found = data.like(given.to(torch.uint8), image)
        assert found.shape == (2, *image)
        assert found.dtype == torch.uint8
        assert (found == 77).all()


def test_letters_are_centred_and_always_the_same() -> None:
    a, b = data.letters(30, seed=0), data.letters(30, seed=0)
    assert torch.equal(a, b)
    assert a.shape == (30, 1, 28, 28)
    x = a[:, 0].double()
    mass = x.sum(dim=(1, 2))
    row = (x.sum(dim=2) @ torch.arange(28.0, dtype=torch.float64)) / mass
    assert (row - 13.5).abs().max() < 2.5
    assert x.amax(dim=(1, 2)).min() > 150
    assert len({tuple(image.flatten().tolist()) for image in a}) == 30


def test_picture_scores_tell_dark_from_light() -> None:
    class Dark(nn.Module):
        """Two equal logits, high for dark pictures."""

        def forward(self, x: Tensor) -> Tensor:
            return -x.flatten(1).mean(dim=1, keepdim=True).expand(-1, 2)

    dark = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    light = torch.full((3, 3, 32, 32), 250, dtype=torch.uint8)
    metrics, scores = evaluate.picture_scores(Dark(), dark, light, letters=True)
    assert metrics["ood_auroc"] == 1
    assert metrics["ood_auroc_softmax"] == 0.5
    assert metrics["ood_auroc_letters"] == 1
    assert set(scores) == {"test", "outliers", "letters"}


def test_week_4s_records_are_read() -> None:
    found = evaluate.recorded_probes("cifar10_12k")
    assert {"simclr", "autoencoder", "random"} <= found.keys()
    assert found["random"] < found["simclr"]
    assert evaluate.recorded_probes("no such set") == {}
