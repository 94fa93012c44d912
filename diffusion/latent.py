"""Latent diffusion (Rombach et al. 2022): the same process, on an autoencoder's latents.

    z = s E(x)                  s = 1 / deviation of E(x)          section D.1    scale_factor
    L = E || target - network(z_t, t) ||^2                         eq. 2          as in pixels
    x = D(z / s)                once, after the last step                         decode

The autoencoder has learned what the eye does not miss, and leaves the network fewer numbers: a
picture of 28 x 28 has 784, its latent of 7 x 7 sixteen times fewer positions. All T calls of the
network get cheaper; one call of the decoder is added.

Why the scale factor: the noise has variance 1. Where latents have deviation 0.2, the same schedule
hides them far too early, and nearly all noise levels show the network nothing but noise. Dividing
by the deviation, measured on the training pictures, makes every schedule mean what it means for
pictures. (Stable Diffusion's 0.18215 is such a measurement, of its own autoencoder.)

Letters: N pictures, (C, H, W) a picture, (c, h, w) a latent.
"""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from diffusion.peers import DiffusersAutoencoder
from labkit import Run, UsageError, exercise
from labkit.data import ImageData


class Autoencoder(Protocol):
    """What is needed of an autoencoder; week 9's and diffusers' both have it."""

    def encode(self, pictures: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float (N, c, h, w)."""

    def decode(self, latents: Tensor) -> Tensor:
        """float (N, c, h, w) -> uint8 (N, C, H, W)."""

    def save(self, folder: Path) -> None:
        """Write it into a folder."""


@exercise(minutes=10)
def scale_factor(latents: Tensor) -> float:
    """What latents (N, c, h, w) are multiplied by, so that their deviation is 1.

    One number for all: 1 / sigma, where sigma^2 is the mean over N, c, h and w of (z - mu)^2, and
    mu the mean over all of them (Rombach et al. 2022, appendix D.1). Computed in float64. Raises
    ValueError when all latents are equal, or one is not finite: nothing can be learned from them.
    """
    sigma = float(latents.double().std(correction=0))
    if not 0 < sigma < float("inf"):
        raise ValueError(f"latents with a deviation of {sigma:g} cannot be scaled to 1")
    return 1 / sigma


@exercise(minutes=10)
def encode(
    autoencoder: Autoencoder, pictures: Tensor, scale: float, batch_size: int = 500
) -> Tensor:
    """scale E(x) for pictures uint8 (N, C, H, W): float32 (N, c, h, w), without gradients.

    `autoencoder.encode` gets `batch_size` pictures at a time (the last time what is left): a whole
    training set at once would not fit into memory.
    """
    with torch.no_grad():
        parts = [scale * autoencoder.encode(x).float() for x in pictures.split(batch_size)]
    return torch.cat(parts)


@exercise(minutes=10)
def decode(autoencoder: Autoencoder, z: Tensor, scale: float, batch_size: int = 500) -> Tensor:
    """D(z / scale) for scaled latents (N, c, h, w): uint8 (N, C, H, W), without gradients.

    Undoes `encode`, `batch_size` latents at a time. `autoencoder.decode` gets float32, whatever the
    type of z.
    """
    with torch.no_grad():
        parts = [autoencoder.decode(x.float() / scale) for x in z.split(batch_size)]
    return torch.cat(parts)


def load(folder: Path, channels: int, device: torch.device | str = "cpu") -> Autoencoder:
    """The autoencoder of pictures with `channels` that was saved into a folder: diffusers' or week
    9's. Raises UsageError, which names the folder, when it holds neither.
    """
    if (folder / "config.json").is_file() and "_diffusers_version" in (
        folder / "config.json"
    ).read_text(encoding="utf-8"):
        return DiffusersAutoencoder.load(folder, channels, device)
    from generative_models import Autoencoder as LabAutoencoder

    found: Autoencoder = LabAutoencoder.load(folder, device)
    return found


def obtain(name: str, run: Run, data: ImageData) -> Autoencoder:
    """The autoencoder called `name`: `lab` is what week 9 published for these pictures (its run is
    started first if there is none); other names are a folder of diffusers, or one of its hub.

    At size smoke week 9's comes untrained. Raises UsageError when it cannot be opened, or does not
    return pictures in the shape of the data.
    """
    blank = torch.zeros(1, *data.train.x.shape[1:], dtype=torch.uint8, device=run.device)
    found: Autoencoder
    if name != "lab":
        found = DiffusersAutoencoder.load(name, blank.shape[1], run.device)
    else:
        from generative_models import VAE
        from generative_models import Autoencoder as LabAutoencoder

        folder = run.artifact("generative_models", data.name, experiment="autoencoder")
        if folder is not None:
            found = LabAutoencoder.load(folder, run.device)
        else:
            image = (blank.shape[1], blank.shape[2], blank.shape[3])
            untrained = VAE(image, width=16, levels=2, latent=4, spatial=True)
            found = LabAutoencoder(untrained.to(run.device).eval())
    returned = found.decode(found.encode(blank)).shape
    if returned != blank.shape:
        raise UsageError(
            f"autoencoder={name} makes pictures {tuple(returned[1:])} of {data.name}'s "
            f"{tuple(blank.shape[1:])}: their sides must be multiples of what it divides them by; "
            "take another autoencoder, or autoencoder=none"
        )
    return found
