"""Trained networks that can be saved, loaded and used by later weeks.

    from generative_models import Autoencoder, Generator

`Generator` draws pictures: from the prior of a VAE, by a GAN's averaged generator, or from a
VQ-VAE's codes. `Autoencoder` turns pictures into latents and back; week 10 diffuses those. Both
read the folder that a run publishes.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from generative_models.model import Decoder, Shape, to_pictures
from generative_models.vae import VAE, Autocast
from generative_models.vqvae import VQVAE
from labkit import UsageError
from labkit.learning.modes import evaluating
from labkit.learning.weights import check_finite, opening

KINDS: dict[str, type[VAE] | type[Decoder] | type[VQVAE]] = {
    "vae": VAE, "gan": Decoder, "vqvae": VQVAE,
}  # fmt: skip
FIX = "Train one: python -m generative_models.train +size=tiny"


class Saved:
    """A network of one of the KINDS, in `model.safetensors` and `config.json`."""

    network: Any

    def __init__(self, network: nn.Module, autocast: Autocast = contextlib.nullcontext) -> None:
        self.network, self.autocast = network, autocast

    @property
    def method(self) -> str:
        """vae, gan or vqvae."""
        return next(name for name, kind in KINDS.items() if isinstance(self.network, kind))

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.network.parameters()).device
        return device

    @property
    def image(self) -> Shape:
        """(C, H, W) of a picture."""
        shape: Shape = self.network.image
        return shape

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json` into `folder`, which is made if need be."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        state = self.network.state_dict()
        weights = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        save_file(weights, folder / "model.safetensors")
        config = {"method": self.method, "network": self.network.shape}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> Self:
        """What a run saved. Raises UsageError, which names the folder and what is wrong with it,
        when it holds none.
        """
        from safetensors.torch import load_file

        with opening(folder, "generative model", FIX):
            config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
            shape = {**config["network"], "image": tuple(config["network"]["image"])}
            network = KINDS[config["method"]](**shape)
            network.load_state_dict(load_file(Path(folder, "model.safetensors")))
        check_finite(network, folder)
        cls._check(config["method"], folder)
        return cls(network.to(device).eval().requires_grad_(False))

    @classmethod
    def _check(cls, method: str, folder: Path | str) -> None:
        """Raises UsageError when this class has no use for a network of that method."""


class Generator(Saved):
    """Draws pictures."""

    def draw(self, n: int, seed: int = 0, batch_size: int = 500) -> Tensor:
        """n pictures, uint8 (n, C, H, W), on the device of the network.

        The same seed draws the same pictures, whatever the batch size. Raises ValueError unless n
        and batch_size are 1 or more.
        """
        if n < 1 or batch_size < 1:
            raise ValueError(f"n and batch_size must be 1 or more, got {n} and {batch_size}")
        z = self.network.prior(n, torch.Generator().manual_seed(seed))
        return self.pictures(z, batch_size)

    def pictures(self, z: Tensor, batch_size: int = 500) -> Tensor:
        """Pictures of given latents (n, c, h, w), as `draw` returns them."""
        with evaluating(self.network), self.autocast():
            return torch.cat([to_pictures(self.network.decode(p)) for p in z.split(batch_size)])


class Autoencoder(Saved):
    """Pictures to latents and back, by a VAE or a VQ-VAE."""

    @property
    def latent(self) -> Shape:
        """(c, h, w) of the latents of a picture."""
        shape: Shape = self.network.latent
        return shape

    def encode(self, pictures: Tensor, batch_size: int = 500) -> Tensor:
        """Latents, float32 (N, c, h, w), of pictures, uint8 (N, C, H, W): the means of q(z | x).

        A VQ-VAE gives the encoder's output, which `decode` quantises. Raises ValueError for
        pictures of another shape or type.
        """
        if pictures.shape[1:] != self.image or pictures.dtype != torch.uint8:
            raise ValueError(
                f"pictures must be uint8 (N, {self.image[0]}, {self.image[1]}, {self.image[2]}), "
                f"got {pictures.dtype} {tuple(pictures.shape)}"
            )
        with evaluating(self.network), self.autocast():
            parts = pictures.to(self.device).split(batch_size)
            return torch.cat([self.network.latents(p.float() / 255) for p in parts])

    def decode(self, latents: Tensor, batch_size: int = 500) -> Tensor:
        """Pictures, uint8 (N, C, H, W), of latents (N, c, h, w). Raises ValueError for latents of
        another shape.
        """
        if latents.shape[1:] != self.latent:
            raise ValueError(
                f"latents must be (N, {self.latent[0]}, {self.latent[1]}, {self.latent[2]}), got "
                f"{tuple(latents.shape)}"
            )
        with evaluating(self.network), self.autocast():
            parts = latents.to(self.device).split(batch_size)
            return torch.cat([to_pictures(self.network.decode(p)) for p in parts])

    @classmethod
    def _check(cls, method: str, folder: Path | str) -> None:
        if method == "gan":
            raise UsageError(
                f"{folder} holds a GAN, which has no encoder. Train an autoencoder: "
                "python -m generative_models.train +size=tiny +experiment=autoencoder"
            )


class Learner(Protocol):
    """What the training loop asks of a method."""

    lr: float
    """Peak learning rate: the generator's of a GAN."""

    @property
    def generator(self) -> nn.Module:
        """The network that draws, and is published."""

    @property
    def tracked(self) -> Mapping[str, Any]:
        """What a resumed run must restore."""

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of what `update` returns."""

    def update(self, pictures: Tensor, rate: float) -> dict[str, Tensor]:
        """One optimiser step; returns the terms of the loss."""
