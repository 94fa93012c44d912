"""V: a convolutional VAE that turns a frame into a few numbers.

Ha & Schmidhuber 2018, section 2.1 and appendix A.1, in small: 4 x 4 kernels with stride 2 and ReLU
until 4 x 4 places are left, one dense layer to the latents, the same way back, sigmoid.

    loss = w (sum of squared errors of a frame's pixels) + KL(q(z | x) || N(0, I)) with free bits

The KL's closed form, its free bits and the reparameterisation are week 9's.

Letters: B batch, D latents.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generative_models import gaussian_kl, kl_term, reparameterise
from labkit.learning.modes import evaluating
from world_models.settings import VAESettings

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]
CHUNK = 512
"""Frames encoded or decoded at once."""


def conv_encoder(side: int, width: int, outputs: int) -> nn.Sequential:
    """(B, 3, side, side) -> (B, outputs). Level i has width 2^i channels, the last one 4 x 4
    places. Raises ValueError for a side that is not 4 times a power of two.
    """
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise([3, *_widths(side, width)]):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * after, outputs))


def conv_decoder(side: int, width: int, inputs: int) -> nn.Sequential:
    """The way back: (B, inputs) -> (B, 3, side, side)."""
    widths = _widths(side, width)[::-1]
    layers: list[nn.Module] = [
        nn.Linear(inputs, 16 * widths[0]),
        nn.Unflatten(1, (widths[0], 4, 4)),
    ]
    for before, after in itertools.pairwise([*widths, 3]):
        layers += [nn.ReLU(inplace=True), nn.ConvTranspose2d(before, after, 4, 2, 1)]
    return nn.Sequential(*layers)


def _widths(side: int, width: int) -> list[int]:
    levels = (side // 4).bit_length() - 1
    if levels < 1 or side != 4 << levels:
        raise ValueError(f"frames of {side} x {side}: the side must be 8, 16, 32, 64 ...")
    return [width << i for i in range(levels)]


def channels_first(frames: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [0, 1], laid out as the frames were: the layout
    that convolutions are fastest in.
    """
    return frames.permute(0, 3, 1, 2).float().div(255)


class VAE(nn.Module):
    """Encoder and decoder of frames of `side` x `side` pixels; `side` is 4 times a power of two."""

    def __init__(self, side: int, latent: int, width: int) -> None:
        super().__init__()
        self.encoder = conv_encoder(side, width, 2 * latent)
        self.decoder = conv_decoder(side, width, latent)
        self.latent = latent

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, H, W, 3) -> mean and log-variance of q(z | x), float32 (B, D)."""
        mean, log_variance = self.encoder(channels_first(frames)).float().chunk(2, dim=-1)
        return mean, log_variance.clamp(-20, 10)  # an early step must not overflow exp

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, D) -> logits of pixels, float32 (B, H, W, 3)."""
        return self.decoder(z).float().permute(0, 2, 3, 1)

    def pictures(self, z: Tensor) -> np.ndarray:
        """Latents (B, D) -> uint8 (B, H, W, 3)."""
        with evaluating(self):
            parts = [self.decode(part).sigmoid() for part in z.split(CHUNK)]
        return (255 * torch.cat(parts)).round().to(torch.uint8).cpu().numpy()


class VisionLearner:
    """Trains V on the frames of rollouts."""

    def __init__(self, network: VAE, settings: VAESettings, autocast: Autocast) -> None:
        self.network, self.settings, self.autocast = network, settings, autocast
        self.optimizer = torch.optim.AdamW(network.parameters(), settings.lr, fused=True)
        self.tracked = {"vae": network, "vae_optimizer": self.optimizer}

    def update(self, frames: Tensor, rate: float) -> dict[str, Tensor | float]:
        """One step on frames uint8 (B, H, W, 3), at `rate` times the peak learning rate."""
        self.optimizer.param_groups[0]["lr"] = rate * self.settings.lr
        with self.autocast():
            mean, log_variance = self.network.encode(frames)
            logits = self.network.decode(reparameterise(mean, log_variance))
        error = (logits.sigmoid() - frames.float() / 255).square().sum(dim=(1, 2, 3)).mean()
        kl = gaussian_kl(mean, log_variance)
        loss = self.settings.error_weight * error + kl_term(kl, self.settings.free_bits)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"train/vae_loss": loss, "train/vae_error": error, "train/vae_kl": kl_term(kl)}


def encode_all(
    network: VAE, frames: np.ndarray, device: torch.device, autocast: Autocast
) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of frames uint8 (T, N, H, W, 3): float32 (T, N, D) each."""
    flat = torch.from_numpy(frames.reshape(-1, *frames.shape[2:]))
    with evaluating(network), autocast():
        parts = [network.encode(part.to(device)) for part in flat.split(CHUNK)]
    mean, log_variance = (torch.cat(both) for both in zip(*parts, strict=True))
    shape = (*frames.shape[:2], network.latent)
    return mean.view(shape), log_variance.view(shape)
