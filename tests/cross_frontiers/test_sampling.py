"""Samples on rays: their parts, and the distribution that they are drawn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from cross_frontiers import sampling


@pytest.mark.exercise("sampling.stratified")
def test_each_part_has_one_sample() -> None:
    near, far = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([2.0, 8.0, 2.0])
    jitter = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    kept = [near.clone(), far.clone(), jitter.clone()]
    t = sampling.stratified(near, far, jitter)
    assert all(torch.equal(a, b) for a, b in zip((near, far, jitter), kept, strict=True))
    assert t.shape == (3, 5)
    for ray in range(3):
        for i in range(5):
            width = (far[ray] - near[ray]).item() / 5
            wanted = near[ray].item() + (i + jitter[ray, i].item()) * width
            assert t[ray, i].item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.exercise("sampling.stratified")
def test_the_middle_of_one_part_and_both_ends() -> None:
    one = torch.ones(1, dtype=torch.float64)
    assert sampling.stratified(one, 3 * one, torch.full((1, 1), 0.5).double()).tolist() == [[2.0]]
    ends = sampling.stratified(one, 3 * one, torch.zeros(1, 4).double())
    assert ends.tolist() == [[1.0, 1.5, 2.0, 2.5]]
    assert ends.dtype == torch.float64
    meta = sampling.stratified(
        *(torch.ones(2, device="meta"),) * 2, torch.ones(2, 3, device="meta")
    )
    assert meta.device.type == "meta"


@pytest.mark.exercise("sampling.stratified")
def test_the_ends_have_a_gradient() -> None:
    near, far = (torch.tensor([each], dtype=torch.float64, requires_grad=True) for each in (1, 3))
    jitter = torch.tensor([[0.2, 0.6]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sampling.stratified, (near, far, jitter))


@pytest.mark.exercise("sampling.inverse_cdf")
def test_draws_follow_the_histogram() -> None:
    edges = torch.tensor([[0.0, 1.0, 1.5, 4.0, 5.0], [2.0, 2.1, 2.2, 2.9, 4.0]]).double()
    weights = torch.tensor([[1.0, 4.0, 0.0, 3.0], [0.5, 0.1, 0.2, 0.0]]).double()
    kept = weights.clone()
    u = torch.rand(2, 4000, generator=torch.Generator().manual_seed(1)).double()
    draws = sampling.inverse_cdf(edges, weights, u)
    assert torch.equal(weights, kept)
    assert draws.shape == (2, 4000)
    for ray in range(2):
        p = (weights[ray] + 1e-5).numpy() / (weights[ray] + 1e-5).sum().item()
        true = stats.rv_histogram((p, edges[ray].numpy()), density=False)
        assert stats.kstest(draws[ray].numpy(), true.cdf).pvalue > 1e-3
        np.testing.assert_allclose(draws[ray].numpy(), true.ppf(u[ray].numpy()), atol=1e-6)


@pytest.mark.exercise("sampling.inverse_cdf")
def test_ends_order_and_boundaries_of_bins() -> None:
    edges = torch.tensor([[1.0, 2.0, 4.0, 8.0]]).double()
    weights = torch.tensor([[1.0, 1.0, 2.0]]).double()
    u = torch.tensor([[1.0, 0.0, 0.25, 0.5, 0.125, 0.999999999]]).double()
    draws = sampling.inverse_cdf(edges, weights, u)
    np.testing.assert_allclose(draws[0], [8, 1, 2, 4, 1.5, 8], atol=1e-4)


@pytest.mark.exercise("sampling.inverse_cdf")
def test_a_ray_with_nothing_on_it_draws_evenly_from_the_bins() -> None:
    edges = torch.tensor([[0.0, 1.0, 10.0]])
    draws = sampling.inverse_cdf(edges, torch.zeros(1, 2), torch.tensor([[0.25, 0.5, 0.75]]))
    torch.testing.assert_close(draws, torch.tensor([[0.5, 1.0, 5.5]]))
    faint = sampling.inverse_cdf(edges, torch.tensor([[0.0, 1e-5]]), torch.tensor([[1 / 6, 2 / 3]]))
    torch.testing.assert_close(faint, torch.tensor([[0.5, 5.5]]), rtol=1e-4, atol=1e-4)


@pytest.mark.exercise("sampling.inverse_cdf")
def test_no_gradient_and_one_bin() -> None:
    weights = torch.ones(2, 1, requires_grad=True)
    edges = torch.tensor([[0.0, 2.0], [1.0, 5.0]])
    u = torch.tensor([[0.5, 1.0, 0.0]]).repeat(2, 1)
    draws = sampling.inverse_cdf(edges, weights, u)
    assert not draws.requires_grad
    torch.testing.assert_close(draws, torch.tensor([[1.0, 2.0, 0.0], [3.0, 5.0, 1.0]]))
