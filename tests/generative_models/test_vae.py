"""The ELBO's terms against torch.distributions, sampling and models whose likelihood is known."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from generative_models import VAE, vae


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.exercise("vae.reparameterise")
def test_samples_have_the_mean_and_the_deviation_asked_for() -> None:
    torch.manual_seed(0)
    mean, log_variance = torch.tensor([[-2.0, 0.5]]), torch.tensor([[0.0, math.log(9.0)]])
    z = vae.reparameterise(mean.expand(100_000, 2), log_variance.expand(100_000, 2))
    torch.testing.assert_close(z.mean(dim=0), mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(z.std(dim=0), torch.tensor([1.0, 3.0]), atol=0.05, rtol=0)
    assert abs(np.corrcoef(z.T.numpy())[0, 1]) < 0.02, "each latent has its own noise"
    assert abs(np.corrcoef(z[1:, 0].numpy(), z[:-1, 0].numpy())[0, 1]) < 0.02, "so has each picture"
    skew = ((z[:, 0] + 2) ** 3).mean().item()
    kurtosis = ((z[:, 0] + 2) ** 4).mean().item()
    assert (skew, kurtosis) == pytest.approx((0, 3), abs=0.15), "it is Gaussian"


@pytest.mark.exercise("vae.reparameterise")
def test_the_gradient_goes_to_mean_and_log_variance() -> None:
    """dz / dmean = 1 and dz / dlog_variance = (z - mean) / 2."""
    torch.manual_seed(0)
    mean, log_variance = normals(2, 3, 2, 4).requires_grad_(), normals(2, 3, 2, 4, seed=1)
    log_variance.requires_grad_()
    kept = mean.clone(), log_variance.clone()
    z = vae.reparameterise(mean, log_variance)
    z.sum().backward()
    assert z.shape == mean.shape
    assert z.dtype == torch.float64
    torch.testing.assert_close(mean.grad, torch.ones_like(mean))
    torch.testing.assert_close(log_variance.grad, (z - mean).detach() / 2)
    assert torch.equal(mean, kept[0])
    assert torch.equal(log_variance, kept[1])


@pytest.mark.exercise("vae.reparameterise")
def test_noise_comes_from_pytorch_s_generator_on_the_device_of_the_mean() -> None:
    mean, log_variance = torch.zeros(1, 5), torch.zeros(1, 5)
    torch.manual_seed(3)
    first, second = (vae.reparameterise(mean, log_variance) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(vae.reparameterise(mean, log_variance), first)
    assert not torch.equal(first, second)
    meta = torch.zeros(2, 3, device="meta")
    assert vae.reparameterise(meta, meta).device.type == "meta"


@pytest.mark.exercise("vae.gaussian_kl")
@pytest.mark.parametrize("shape", [(1, 1), (3, 2, 4, 5)])
def test_kl_is_that_of_torch_distributions(shape: tuple[int, ...]) -> None:
    mean, log_variance = 2 * normals(*shape), normals(*shape, seed=1)
    kept = mean.clone(), log_variance.clone()
    expected = kl_divergence(
        Normal(mean, log_variance.exp().sqrt()),
        Normal(torch.zeros_like(mean), torch.ones_like(mean)),
    )
    torch.testing.assert_close(vae.gaussian_kl(mean, log_variance), expected)
    assert torch.equal(mean, kept[0])
    assert torch.equal(log_variance, kept[1])


@pytest.mark.exercise("vae.gaussian_kl")
def test_kl_by_monte_carlo_and_where_it_is_zero() -> None:
    mean, log_variance = torch.tensor([1.5]), torch.tensor([-1.0])
    q, p = Normal(mean, math.exp(-0.5)), Normal(0.0, 1.0)
    torch.manual_seed(0)
    z = q.sample((200_000,))
    estimate = (q.log_prob(z) - p.log_prob(z)).mean(dim=0)
    torch.testing.assert_close(vae.gaussian_kl(mean, log_variance), estimate, atol=0.02, rtol=0)
    assert vae.gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)).eq(0).all()
    assert torch.autograd.gradcheck(vae.gaussian_kl, (normals(4).requires_grad_(),) * 2)


@pytest.mark.exercise("vae.kl_term")
def test_kl_term_is_the_kl_of_a_picture_averaged_over_the_batch() -> None:
    kl = normals(3, 2, 4).square()
    kept = kl.clone()
    expected = sum(float(kl[b].sum()) for b in range(3)) / 3
    assert vae.kl_term(kl).item() == pytest.approx(expected)
    assert vae.kl_term(kl).shape == ()
    assert torch.equal(kl, kept)
    assert vae.kl_term(kl[:1, :, 0]).item() == pytest.approx(float(kl[0, :, 0].sum()))


@pytest.mark.exercise("vae.kl_term")
def test_free_bits_are_for_each_latent_after_the_mean_over_the_batch() -> None:
    kl = torch.tensor([[0.0, 3.0, 0.1], [0.8, 1.0, 0.1]], requires_grad=True)
    term = vae.kl_term(kl, 0.5)  # means 0.4, 2.0, 0.1
    assert term.item() == pytest.approx(0.5 + 2.0 + 0.5)
    term.backward()
    torch.testing.assert_close(kl.grad, torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.5, 0.0]]))


@pytest.mark.exercise("vae.bernoulli_log_likelihood")
@pytest.mark.parametrize("shape", [(1, 1, 2, 3), (4, 3, 5, 2)])
def test_bernoulli_is_that_of_torch_distributions(shape: tuple[int, ...]) -> None:
    logits, x = 3 * normals(*shape), (normals(*shape, seed=1) > 0).double()
    kept = logits.clone(), x.clone()
    expected = Bernoulli(logits=logits).log_prob(x).flatten(1).sum(dim=1)
    torch.testing.assert_close(vae.bernoulli_log_likelihood(logits, x), expected)
    assert torch.equal(logits, kept[0])
    assert torch.equal(x, kept[1])


@pytest.mark.exercise("vae.bernoulli_log_likelihood")
def test_bernoulli_is_exact_for_large_logits_and_has_the_right_gradient() -> None:
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]], requires_grad=True)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = vae.bernoulli_log_likelihood(logits, x)
    assert found.tolist() == pytest.approx([0.0, -400.0])
    found.sum().backward()
    torch.testing.assert_close(logits.grad, x - logits.detach().sigmoid())


def test_gaussian_is_that_of_torch_distributions() -> None:
    mean, x, log_deviation = normals(2, 3, 4, 5), normals(2, 3, 4, 5, seed=1), torch.tensor(-0.7)
    expected = Normal(mean, log_deviation.exp().double()).log_prob(x).flatten(1).sum(dim=1)
    found = vae.gaussian_log_likelihood(mean, log_deviation.double(), x)
    torch.testing.assert_close(found, expected)


@pytest.mark.exercise("vae.importance_bound")
@pytest.mark.parametrize(("samples", "pictures"), [(1, 1), (7, 3)])
def test_importance_bound_is_scipy_s(samples: int, pictures: int) -> None:
    weights = 5 * normals(samples, pictures)
    kept = weights.clone()
    found = vae.importance_bound(weights)
    np.testing.assert_allclose(found, logsumexp(weights.numpy(), axis=0) - math.log(samples))
    assert torch.equal(weights, kept)


@pytest.mark.exercise("vae.importance_bound")
def test_importance_bound_of_equal_and_of_extreme_weights() -> None:
    assert vae.importance_bound(torch.full((4, 2), -2000.0)).tolist() == [-2000.0, -2000.0]
    assert vae.importance_bound(torch.tensor([[2000.0], [-3000.0]])).item() == pytest.approx(
        2000 - math.log(2)
    )
    assert torch.autograd.gradcheck(vae.importance_bound, normals(3, 2).requires_grad_())


class Linear(nn.Module):
    """z ~ N(0, 1), x | z ~ N(z, 1), so x ~ N(0, 2); q(z | x) is exact, N(x / 2, 1 / 2), up to
    `excess`, which is added to its mean.
    """

    def __init__(self, excess: float) -> None:
        super().__init__()
        self.excess = excess

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x / 2 + self.excess, torch.full_like(x, math.log(0.5))

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        return Normal(z, 1.0).log_prob(x).flatten(1).sum(dim=1)


def marginal(x: Tensor) -> Tensor:
    return Normal(0.0, math.sqrt(2)).log_prob(x).flatten(1).sum(dim=1)


def test_with_the_exact_posterior_every_sample_gives_the_likelihood() -> None:
    x = normals(3, 2, 1, 2).float()
    weights = vae.log_weights(Linear(0.0), x, 4)  # type: ignore[arg-type]
    torch.testing.assert_close(weights, marginal(x).expand(4, 3))


def test_the_bound_rises_with_the_samples_towards_the_likelihood() -> None:
    torch.manual_seed(0)
    x = torch.zeros(4000, 1)
    bounds = [
        vae.importance_bound(vae.log_weights(Linear(1.0), x, k)).mean().item()  # type: ignore[arg-type]
        for k in (1, 4, 64)
    ]
    truth = marginal(x)[0].item()
    assert bounds[0] == pytest.approx(truth - 1.0, abs=0.05), "the ELBO: less by KL(q || posterior)"
    assert all(a < b for a, b in itertools.pairwise([*bounds, truth]))
    assert bounds[2] == pytest.approx(truth, abs=0.1)


def test_the_learner_s_loss_is_the_negative_elbo() -> None:
    """With all weights of the heads at 0: q is the prior and p(x | z) is one half everywhere."""
    network = VAE((1, 8, 12), 4, 2, 3)
    for module in (network.encoder.head, network.decoder.body[-1]):
        nn.init.zeros_(module.weight)  # type: ignore[arg-type]
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    import contextlib

    learner = vae.VAELearner(network, vae.VAESettings(free_bits=0.5), contextlib.nullcontext)
    pictures = torch.zeros(2, 1, 8, 12, dtype=torch.uint8)
    terms = learner.update(pictures, 1.0)
    assert terms["reconstruction"].item() == pytest.approx(96 * math.log(2), rel=1e-5)
    assert terms["kl"].item() == 0
    assert terms["loss"].item() == pytest.approx(96 * math.log(2) + 3 * 0.5, rel=1e-5)


def test_binarised_pixels_are_one_as_often_as_they_are_bright() -> None:
    network = VAE((1, 4, 4), 4, 1, 2)
    grey = torch.tensor([0, 64, 255], dtype=torch.uint8).repeat_interleave(16)
    grey = grey.view(3, 1, 4, 4).repeat(1000, 1, 1, 1)
    x = network.observe(grey, torch.Generator().manual_seed(0)).view(1000, 3, 16)
    assert x.unique().tolist() == [0, 1]
    assert x.mean(dim=(0, 2)).tolist() == pytest.approx([0, 64 / 255, 1], abs=0.01)
    assert torch.equal(x.view(-1), network.observe(grey, torch.Generator().manual_seed(0)).view(-1))
    assert x.std(dim=0)[1].min() > 0, "drawn anew for each pixel and picture"


def test_a_gaussian_likelihood_is_a_bound_in_nats_of_whole_grey_levels() -> None:
    """A decoder that knows nothing, with a deviation so large that the density is flat: 256 equally
    likely grey levels cost ln 256 each, up to what lies outside.
    """
    network = VAE((1, 4, 6), 4, 1, 2, likelihood="gaussian")
    nn.init.zeros_(network.decoder.body[-1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(network.decoder.body[-1].bias)  # type: ignore[arg-type]
    network.log_deviation.data.fill_(3.0)
    x = network.observe(torch.full((2, 1, 4, 6), 200, dtype=torch.uint8))
    assert (x.min() >= 200 / 256, x.max() < 201 / 256) == (True, True)
    found = network.log_likelihood(torch.zeros(2, 2, 1, 1), x)
    each = math.log(256) + 3.0 + 0.5 * math.log(2 * math.pi)
    assert found.tolist() == pytest.approx([-24 * each] * 2, rel=1e-3)


@pytest.mark.parametrize("spatial", [False, True])
def test_shapes_of_pictures_that_are_not_square(spatial: bool) -> None:
    network = VAE((3, 8, 12), 4, 2, 5, spatial=spatial).eval()
    x = torch.rand(1, 3, 8, 12)
    mean, log_variance = network.encode(x)
    expected = (5, 2, 3) if spatial else (5, 1, 1)
    assert network.latent == expected
    assert mean.shape == log_variance.shape == (1, *expected)
    assert network.decode(mean).shape == (1, 3, 8, 12)
    assert network.prior(7).shape == (7, *expected)
