"""Explanations and certificates against closed forms, scipy and captum."""

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from labkit import UsageError
from robustness import explanations, smoothing
from robustness.model import make_network


class Cubic(nn.Module):
    """Logits sum of x^3 and product of two pixels: the integrals are known."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.stack([flat.pow(3).sum(1), flat[:, 0] * flat[:, 1]], dim=1)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.exercise("explanations.integrated_gradients")
def test_integrated_gradients_of_a_cubic(x: Tensor) -> None:
    b, y, before = (
        torch.full((1, 1, 2, 3), 0.2, dtype=torch.float64),
        torch.tensor([0, 0, 1]),
        x.clone(),
    )
    found = explanations.integrated_gradients(Cubic(), x, y, b, steps=200)
    assert torch.allclose(found[:2], x[:2].pow(3) - b.pow(3), atol=1e-4)
    # The product: each pixel gets (x_i - b)(b + (x_j - b) / 2).
    p, q = x[2].flatten()[:2]
    assert found[2].flatten()[0].item() == pytest.approx(((p - 0.2) * (0.1 + q / 2)).item())
    assert found[2].flatten()[2:].abs().max() == 0
    assert torch.equal(x, before)
    assert not found.requires_grad
    # The midpoint rule with one step, exactly.
    one = explanations.integrated_gradients(Cubic(), x[:1], y[:1], b, steps=1)
    assert torch.allclose(one, (x[:1] - b) * 3 * ((x[:1] + b) / 2).square())
    fifty = explanations.integrated_gradients(Cubic(), x, y, b, steps=50)
    assert torch.equal(explanations.integrated_gradients(Cubic(), x, y, b), fifty)
    with pytest.raises(UsageError, match="steps"):
        explanations.integrated_gradients(Cubic(), x, y, b, steps=0)


@pytest.mark.exercise("explanations.integrated_gradients")
def test_attributions_are_complete(x: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    y, b = torch.tensor([1, 3, 0]), 1 - x
    found = explanations.integrated_gradients(model, x, y, b)
    gap = (model(x) - model(b)).gather(1, y[:, None])[:, 0]
    assert torch.allclose(found.flatten(1).sum(1), gap, atol=1e-4)


def test_integrated_gradients_agree_with_captum(x: Tensor) -> None:
    captum = pytest.importorskip("captum.attr")
    y, b = torch.tensor([0, 0, 1]), torch.zeros(1, 1, 2, 3, dtype=torch.float64)
    ours = explanations.integrated_gradients(Cubic(), x, y, b, steps=20)
    peer = captum.IntegratedGradients(Cubic())
    theirs = peer.attribute(x, b, target=y, n_steps=20, method="riemann_middle")
    assert torch.allclose(ours, theirs)


def test_smooth_grad_is_the_mean_gradient_under_noise(x: Tensor) -> None:
    y = torch.zeros(3, dtype=torch.int64)
    found = explanations.smooth_grad(Cubic(), x, y, 0.3, samples=4000, seed=0)
    assert torch.allclose(found, 3 * (x.square() + 0.09), atol=0.06)  # E (x + n)^2


@pytest.mark.exercise("explanations.grad_cam")
def test_grad_cam_weighs_channels_by_their_mean_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    a, g = torch.randn(2, 3, 4, 5, generator=draw), torch.randn(2, 3, 4, 5, generator=draw)
    kept = a.clone(), g.clone()
    found = explanations.grad_cam(a, g)
    assert found.shape == (2, 4, 5)
    for n in range(2):
        total = sum(g[n, c].sum() / 20 * a[n, c] for c in range(3))
        assert torch.allclose(found[n], torch.where(total > 0, total, 0.0), atol=1e-6)
    assert torch.equal(a, kept[0])
    assert torch.equal(g, kept[1])


def test_the_lower_bound_is_clopper_pearson() -> None:
    for successes, trials in ((0, 10), (7, 10), (10, 10), (999, 1000)):
        exact = stats.binomtest(successes, trials, alternative="greater")
        expected = exact.proportion_ci(0.99, method="exact").low
        assert smoothing.lower_bound(successes, trials, 0.01) == pytest.approx(expected)
    assert smoothing.lower_bound(10, 10, 0.001) == pytest.approx(0.001 ** (1 / 10))
    for successes, trials in ((11, 10), (-1, 10), (0, 0)):
        with pytest.raises(UsageError, match="no share"):
            smoothing.lower_bound(successes, trials, 0.01)


@pytest.mark.exercise("smoothing.certified_radius")
def test_the_certified_radius_takes_the_lower_bound() -> None:
    found = smoothing.certified_radius(990, 1000, 0.25, 0.001)
    assert found == pytest.approx(0.25 * stats.norm.ppf(stats.beta.ppf(0.001, 990, 11)))
    assert smoothing.certified_radius(500, 1000, 0.25, 0.001) is None
    assert smoothing.certified_radius(530, 1000, 0.25, 0.001) is None  # estimate above, bound below
    assert smoothing.certified_radius(0, 10, 0.25, 0.001) is None
    assert smoothing.certified_radius(990, 1000, 0.5, 0.001) == pytest.approx(2 * found)
    # With one draw the bound is alpha itself.
    assert smoothing.certified_radius(1, 1, 0.25, 0.5) is None
    assert smoothing.certified_radius(1, 1, 0.25, 0.52) == pytest.approx(
        0.25 * stats.norm.ppf(0.52)
    )
    # A linear classifier's true radius is its distance to the boundary: never certified further.
    distance, deviation, trials = 0.3, 0.25, 2000
    share = stats.norm.cdf(distance / deviation)
    assert smoothing.certified_radius(round(share * trials), trials, deviation, 0.001) < distance


def test_grad_cam_of_a_layer_agrees_with_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    model = make_network("small", (1, 8, 12), 5, 4).eval()
    x, y = torch.rand(3, 1, 8, 12), torch.tensor([4, 0, 2])
    found = explanations.grad_cam_of(model, "convolutions.3", x, y)
    peer = captum.LayerGradCam(model, model.get_submodule("convolutions.3"))
    small = peer.attribute(x, target=y, relu_attributions=True).detach()
    assert small.max() > 0
    large = captum.LayerAttribution.interpolate(small, (8, 12), "bilinear")
    assert torch.allclose(found, large[:, 0], atol=1e-6)
    assert not model.get_submodule("convolutions.3")._forward_hooks
    with pytest.raises(UsageError, match="no layer 'conv'"):
        explanations.grad_cam_of(model, "conv", x, y)
