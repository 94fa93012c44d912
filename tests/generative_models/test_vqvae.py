"""Codes by brute force, the straight-through gradient, and how a codebook's use is counted."""

import contextlib

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor

from generative_models import VQVAE, VQSettings, vqvae


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.exercise("vqvae.nearest_codes")
@pytest.mark.parametrize(("N", "K", "D"), [(1, 1, 1), (40, 7, 3), (5, 30, 2)])
def test_the_nearest_code_by_brute_force(N: int, K: int, D: int) -> None:
    z, codebook = normals(N, D), 2 * normals(K, D, seed=1)
    kept = z.clone(), codebook.clone()
    found = vqvae.nearest_codes(z, codebook)
    expected = [min(range(K), key=lambda k: float((z[n] - codebook[k]).norm())) for n in range(N)]
    assert found.tolist() == expected
    assert found.dtype == torch.int64
    assert torch.equal(z, kept[0])
    assert torch.equal(codebook, kept[1])


@pytest.mark.exercise("vqvae.nearest_codes")
def test_of_codes_at_one_distance_the_first_is_taken() -> None:
    codebook = torch.tensor([[5.0, 5.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert vqvae.nearest_codes(torch.zeros(2, 2), codebook).tolist() == [1, 1]
    meta = torch.zeros(3, 2, device="meta")
    assert vqvae.nearest_codes(meta, meta).device.type == "meta"


@pytest.mark.exercise("vqvae.straight_through")
def test_straight_through_has_the_code_s_value_and_the_encoder_s_gradient() -> None:
    z, quantised = normals(2, 3, 4, 5).requires_grad_(), normals(2, 3, 4, 5, seed=1)
    quantised.requires_grad_()
    kept = z.detach().clone(), quantised.detach().clone()
    out = vqvae.straight_through(z, quantised)
    torch.testing.assert_close(out, quantised)
    slope = normals(2, 3, 4, 5, seed=2)
    (out * slope).sum().backward()
    torch.testing.assert_close(z.grad, slope)
    assert quantised.grad is None or not quantised.grad.any()
    assert torch.equal(z.detach(), kept[0])
    assert torch.equal(quantised.detach(), kept[1])


@pytest.mark.exercise("vqvae.perplexity")
@pytest.mark.parametrize("counts", [[1], [3, 3, 3, 3], [5, 0, 1, 2], [0, 0, 9]])
def test_perplexity_is_the_exponential_of_scipy_s_entropy(counts: list[int]) -> None:
    indices = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    kept = indices.clone()
    expected = float(np.exp(entropy(counts)))
    found = vqvae.perplexity(indices, len(counts))
    assert isinstance(found, float)
    assert found == pytest.approx(expected)
    assert torch.equal(indices, kept)


@pytest.mark.exercise("vqvae.perplexity")
def test_perplexity_of_an_array_of_places_and_of_codes_never_chosen() -> None:
    assert vqvae.perplexity(torch.tensor([[[0, 7]], [[7, 0]]]), 100) == pytest.approx(2)
    assert vqvae.perplexity(torch.arange(50_000) % 5, 5) == pytest.approx(5)


def network() -> VQVAE:
    torch.manual_seed(0)
    return VQVAE((1, 8, 12), 4, 2, codes=6, dimension=3)


def test_latents_are_codes_after_quantisation() -> None:
    model = network().eval()
    assert model.latent == (3, 2, 3)
    z = model.latents(torch.rand(2, 1, 8, 12))
    indices = model.indices(z)
    assert indices.shape == (2, 2, 3)
    vectors = model.vectors(indices)
    assert vectors.shape == z.shape
    assert torch.equal(vectors[1, :, 0, 2], model.codebook[indices[1, 0, 2]])
    torch.testing.assert_close(model.decode(z), model.decoder.decode(vectors))
    assert torch.equal(model.indices(vectors), indices)


def test_the_prior_draws_each_place_by_its_own_counts() -> None:
    model = network()
    indices = torch.tensor([[[0, 1, 2], [3, 4, 5]], [[0, 1, 2], [3, 4, 0]]])
    model.count(indices)
    assert model.places.sum(dim=1).tolist() == pytest.approx([1.0] * 6)
    drawn = model.indices(model.prior(400, torch.Generator().manual_seed(0)))
    assert drawn.shape == (400, 2, 3)
    assert (drawn.flatten(1)[:, :5] == torch.arange(5)).all()
    last = drawn[:, 1, 2]
    assert set(last.tolist()) == {0, 5}
    assert (last == 5).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_a_step_trains_encoder_codebook_and_decoder() -> None:
    model = network()
    learner = vqvae.VQLearner(model, VQSettings(), contextlib.nullcontext)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    terms = learner.update(torch.randint(256, (4, 1, 8, 12), dtype=torch.uint8), 1.0)
    assert set(terms) == set(learner.terms)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == set(before)
