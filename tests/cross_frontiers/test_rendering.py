"""Quadrature against closed forms and against the product, step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cross_frontiers import rendering


def by_hand(sigma: Tensor, widths: Tensor) -> np.ndarray:
    """Weights by the product of the paper, in plain Python."""
    result = np.zeros(sigma.shape)
    for ray in range(len(sigma)):
        left = 1.0
        for i in range(sigma.shape[1]):
            alpha = 1 - math.exp(-sigma[ray, i].item() * widths[ray, i].item())
            result[ray, i] = left * alpha
            left *= 1 - alpha
    return result


@pytest.mark.exercise("rendering.sample_widths")
def test_widths_reach_to_the_far_end() -> None:
    t, far = torch.tensor([[1.0, 1.5, 3.0], [0.0, 1.0, 2.0]]), torch.tensor([3.25, 7.0])
    kept = t.clone()
    widths = rendering.sample_widths(t, far)
    assert torch.equal(t, kept)
    torch.testing.assert_close(widths, torch.tensor([[0.5, 1.5, 0.25], [1.0, 1.0, 5.0]]))
    one = rendering.sample_widths(torch.tensor([[2.0]]), torch.tensor([2.5]))
    assert one.tolist() == [[0.5]]


@pytest.mark.exercise("rendering.sample_widths")
def test_widths_have_a_gradient() -> None:
    t = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    far = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rendering.sample_widths, (t, far))


@pytest.mark.exercise("rendering.ray_weights")
def test_weights_are_those_of_the_product() -> None:
    generator = torch.Generator().manual_seed(0)
    sigma = torch.rand(4, 7, generator=generator).double() * 5
    widths = torch.rand(4, 7, generator=generator).double()
    kept = sigma.clone(), widths.clone()
    found = rendering.ray_weights(sigma, widths)
    assert torch.equal(sigma, kept[0])
    assert torch.equal(widths, kept[1])
    np.testing.assert_allclose(found, by_hand(sigma, widths), rtol=1e-12)
    opacity = 1 - torch.exp(-(sigma * widths).sum(dim=1))
    torch.testing.assert_close(found.sum(dim=1), opacity)
    one = rendering.ray_weights(torch.tensor([[2.0]]), torch.tensor([[0.5]]))
    assert one.item() == pytest.approx(1 - math.exp(-1))


@pytest.mark.exercise("rendering.ray_weights")
def test_a_slab_and_a_gaussian_cloud() -> None:
    t = torch.linspace(0, 6, 6001).double()[None, :-1] + 0.0005
    widths = torch.full_like(t, 0.001)
    slab = torch.where((t > 2) & (t < 3.5), 0.8, 0.0)
    opacity = rendering.ray_weights(slab, widths).sum().item()
    assert opacity == pytest.approx(1 - math.exp(-0.8 * 1.5), rel=1e-6)
    cloud = 1.7 * torch.exp(-(t - 3).square() / (2 * 0.4**2))
    mass = 1.7 * 0.4 * math.sqrt(2 * math.pi)
    weights = rendering.ray_weights(cloud, widths)
    assert weights.sum().item() == pytest.approx(1 - math.exp(-mass), rel=1e-6)
    half = weights[t < 3].sum().item()
    assert half == pytest.approx(1 - math.exp(-mass / 2), rel=1e-6)


@pytest.mark.exercise("rendering.ray_weights")
def test_faint_and_opaque_samples() -> None:
    faint = rendering.ray_weights(torch.full((1, 3), 1e-9), torch.full((1, 3), 0.5))
    torch.testing.assert_close(faint, torch.full((1, 3), 5e-10), rtol=1e-5, atol=0)
    sigma = torch.tensor([[0.0, 1e6, 3.0, 2.0]], requires_grad=True)
    weights = rendering.ray_weights(sigma, torch.ones(1, 4))
    assert weights.tolist() == [[0.0, 1.0, 0.0, 0.0]]
    weights.sum().backward()
    assert sigma.grad is not None
    assert sigma.grad.isfinite().all()


@pytest.mark.exercise("rendering.ray_weights")
def test_gradients_are_those_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(2)
    sigma = torch.rand(2, 4, generator=generator).double().requires_grad_()
    widths = torch.rand(2, 4, generator=generator).double().requires_grad_()
    assert torch.autograd.gradcheck(rendering.ray_weights, (sigma, widths))


@pytest.mark.exercise("rendering.composite")
def test_colours_over_the_background() -> None:
    weights = torch.tensor([[0.25, 0.5], [0.0, 0.0], [0.5, 0.5]])
    colours = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]]).expand(3, 2, 3).clone()
    kept = weights.clone(), colours.clone()
    white = rendering.composite(weights, colours, 1.0)
    assert torch.equal(weights, kept[0])
    assert torch.equal(colours, kept[1])
    wanted = torch.tensor([[0.5, 0.75, 0.625], [1.0, 1.0, 1.0], [0.5, 0.5, 0.5]])
    torch.testing.assert_close(white, wanted)
    grey = rendering.composite(weights, colours, 0.2)
    torch.testing.assert_close(grey[1], torch.full((3,), 0.2))
    torch.testing.assert_close(grey[0], torch.tensor([0.3, 0.55, 0.425]))
    behind = torch.tensor([[1.0, 0.0, 0.2], [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])  # one for each ray
    each = rendering.composite(weights, colours, behind)
    torch.testing.assert_close(each[0], torch.tensor([0.5, 0.5, 0.425]))
    torch.testing.assert_close(each[1], behind[1])


@pytest.mark.exercise("rendering.composite")
def test_colours_have_a_gradient() -> None:
    weights = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    colours = torch.rand(2, 3, 3, dtype=torch.float64, requires_grad=True)
    mix = lambda w, c: rendering.composite(w, c, 0.7)  # noqa: E731
    assert torch.autograd.gradcheck(mix, (weights, colours))


def test_depth_and_pictures_on_a_background() -> None:
    weights, t = torch.tensor([[0.5, 0.25], [0.0, 0.0]]), torch.tensor([[2.0, 4.0], [1.0, 2.0]])
    depth = rendering.expected_depth(weights, t, torch.tensor([6.0, 5.0]))
    assert depth.tolist() == [3.5, 5.0]
    rgba = torch.tensor([0.2, 0.4, 0.6, 0.5])[None, :, None, None]
    white = rendering.on_background(rgba, 1.0).flatten()
    torch.testing.assert_close(white, torch.tensor([0.6, 0.7, 0.8]))
    pixels, behind = rgba.flatten().repeat(2, 1), torch.tensor([[1.0, 1, 1], [0.0, 0.5, 1]])
    laid = rendering.on_background(pixels, behind)
    torch.testing.assert_close(laid, torch.tensor([[0.6, 0.7, 0.8], [0.1, 0.45, 0.8]]))
