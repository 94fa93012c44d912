"""V: shapes, its loss by hand, and what it costs to encode in parts."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from world_models import evaluate
from world_models.settings import VAESettings
from world_models.vae import VAE, VisionLearner, encode_all

CPU = torch.device("cpu")


@pytest.mark.parametrize("side", [8, 32, 64])
def test_shapes(side: int) -> None:
    network = VAE(side, latent=5, width=4)
    frames = torch.randint(0, 256, (3, side, side, 3), dtype=torch.uint8)
    mean, log_variance = network.encode(frames)
    assert mean.shape == log_variance.shape == (3, 5)
    assert network.decode(mean).shape == (3, side, side, 3)
    assert network.pictures(mean).shape == (3, side, side, 3)
    one = network.encode(frames[1:2])[0]
    torch.testing.assert_close(one[0], mean[1], atol=1e-5, rtol=1e-4)
    meta = VAE(side, 5, 4).to("meta")
    assert meta.encode(frames.to("meta"))[0].device.type == "meta"


@pytest.mark.parametrize("side", [4, 20, 96])
def test_sides_that_cannot_be_halved_down_to_four_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"{side} x {side}"):
        VAE(side, 4, 4)


def test_height_and_width_are_not_exchanged() -> None:
    """Convolutions of a kernel that looks to the right alone see no change in a row."""
    network = VAE(8, latent=2, width=4)
    frame = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    frame[0, 2, 5, 1] = 255
    seen: list[torch.Tensor] = []
    network.encoder[0].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    network.encode(frame)
    assert seen[0].nonzero().tolist() == [[0, 1, 2, 5]]
    assert seen[0].max() == 1


def test_the_loss_is_squared_error_and_kl_with_free_bits() -> None:
    torch.manual_seed(0)
    network = VAE(8, latent=3, width=4)
    frames = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8)
    with torch.no_grad():
        mean, log_variance = network.encode(frames)
        torch.manual_seed(1)
        z = mean + (log_variance / 2).exp() * torch.randn(5, 3)
        error = (network.decode(z).sigmoid() - frames / 255).square().sum() / 5
        q = torch.distributions.Normal(mean, (log_variance / 2).exp())
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    for free_bits, weight in ((0.0, 1.0), (0.5, 3.0)):
        settings = VAESettings(free_bits=free_bits, error_weight=weight)
        learner = VisionLearner(network, settings, contextlib.nullcontext)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        torch.manual_seed(1)
        log = learner.update(frames, rate=1.0)
        network.load_state_dict(before)
        expected = weight * error + kl.clamp(min=free_bits).sum()
        torch.testing.assert_close(torch.as_tensor(log["train/vae_loss"]).detach(), expected)
        torch.testing.assert_close(torch.as_tensor(log["train/vae_kl"]).detach(), kl.sum())


def test_it_learns_to_tell_frames_apart() -> None:
    torch.manual_seed(0)
    frames = torch.zeros(64, 8, 8, 3, dtype=torch.uint8)
    for i in range(64):
        frames[i, i % 8, :, 1] = 255  # a green row, another in each of eight kinds
    learner = VisionLearner(VAE(8, 3, 8), VAESettings(lr=1e-2), contextlib.nullcontext)
    for _ in range(250):
        learner.update(frames, rate=1.0)
    array = frames.numpy()[:, None]
    error = evaluate.pixel_error(learner.network, array, CPU)
    assert error < 0.5 * array.std()


def test_frames_are_encoded_in_their_order_and_in_parts() -> None:
    network = VAE(8, latent=2, width=4)
    frames = np.random.default_rng(0).integers(0, 256, (300, 4, 8, 8, 3)).astype(np.uint8)
    mean, log_variance = encode_all(network, frames, CPU, contextlib.nullcontext)
    assert mean.shape == log_variance.shape == (300, 4, 2)
    for t, n in ((0, 0), (150, 3), (299, 1)):
        one = network.encode(torch.from_numpy(frames[t, n][None]))
        torch.testing.assert_close(mean[t, n], one[0][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(log_variance[t, n], one[1][0], atol=1e-5, rtol=1e-4)
    assert not mean.requires_grad
    error = evaluate.pixel_error(network, frames, CPU)
    again = network.pictures(mean.flatten(0, 1)).astype(float).reshape(frames.shape)
    assert error == pytest.approx(np.sqrt(((again - frames) ** 2).mean()), rel=1e-3)
