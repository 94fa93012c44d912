"""A trained model ready to draw: network, process and image shape in one object that can be saved.

Later weeks use it by `from diffusion import Pipeline`, and `python -m diffusion.sample` is a thin
wrapper around it.
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import latent
from diffusion.ddpm import DDPM, Trace
from diffusion.flow import RectifiedFlow
from diffusion.guidance import guided
from diffusion.latent import Autoencoder
from diffusion.model import UNet
from diffusion.peers import DiffusersUNet
from labkit.learning.weights import check_finite, opening

Network = UNet | DiffusersUNet
AUTOENCODER = "autoencoder"
"""Folder, inside a model's own, of the autoencoder that it needs."""
Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


def network_of(kind: str, **shape: Any) -> Network:
    """A new network: `ours`, or `diffusers`, with the arguments of `UNet`."""
    return DiffusersUNet(**shape) if kind == "diffusers" else UNet(**shape)


def to_pictures(x: Tensor) -> Tensor:
    """From the network's range [-1, 1] to pixels, uint8; values outside are clipped."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_pictures(x: Tensor) -> Tensor:
    """From pixels, uint8, to the network's range: float in [-1, 1], centred at 0 like the noise."""
    return x.float() / 127.5 - 1


@dataclass(frozen=True)
class Settings:
    """The settings needed, with the weights, to draw; fields as in the week's Config."""

    objective: str
    schedule: str
    timesteps: int
    time_mean: float
    time_deviation: float
    sampler: str
    sampling_steps: int
    guidance: float
    image: tuple[int, int, int]
    """(C, H, W)"""
    network: str = "ours"
    latent: tuple[int, int, int] | None = None
    """(c, h, w) where the diffusion is in an autoencoder's latents; None in pixels."""
    scale: float = 1.0
    """What latents are multiplied by, see `latent.scale_factor`."""
    limit: float = 1.0
    """Largest absolute value that the network is to make: 1 for pixels, measured for latents."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what the network sees, without the batch."""
        return self.latent or self.image

    def process(self) -> DDPM | RectifiedFlow:
        """The process from noise to pictures: rectified flow, or DDPM for any other objective."""
        if self.objective == "flow":
            return RectifiedFlow(self.time_mean, self.time_deviation, self.limit)
        args = (self.objective, self.schedule, self.timesteps, self.limit)
        return DDPM(*args)  # type: ignore[arg-type]


class Pipeline:
    """Draws pictures of given classes."""

    def __init__(
        self,
        network: Network,
        settings: Settings,
        autocast: Autocast = contextlib.nullcontext,
        autoencoder: Autoencoder | None = None,
    ) -> None:
        """`autoencoder` is the one whose latents `settings.latent` is about."""
        self.network, self.settings, self.autocast = network, settings, autocast
        self.autoencoder, self.process = autoencoder, settings.process()

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures, uint8 (N, C, H, W), as the network sees them: pixels or scaled latents."""
        if self.autoencoder is None:
            return from_pictures(pictures)
        return latent.encode(self.autoencoder, pictures, self.settings.scale)

    def decode(self, x: Tensor) -> Tensor:
        """The pictures, uint8 (N, C, H, W), of what the network made: undoes `encode`."""
        if self.autoencoder is None:
            return to_pictures(x)
        return latent.decode(self.autoencoder, x, self.settings.scale)

    def __call__(self, labels: Tensor, **options: Any) -> Tensor:
        """One picture per label: int64 (N,) -> uint8 (N, C, H, W), on the device of the network.

        The options and errors are those of `sample`.
        """
        return self.decode(self.sample(labels, **options))

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        *,
        guidance: float = 1.0,
        sampler: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        batch_size: int = 500,
        trace: Trace | None = None,
    ) -> Tensor:
        """What the network makes for each label, float (N, *settings.shape): `decode` takes it.

        The label `network.null` stands for any class. Sampler and steps are those of the settings
        unless given. The same seed and batch size draw the same pictures. `trace` is called at
        every step of every batch. Raises ValueError for a sampler or a number of steps that the
        process does not have.
        """
        device = next(self.network.parameters()).device
        # Noise is drawn on the CPU, so that a seed means the same on every device.
        generator = torch.Generator().manual_seed(seed)
        drawn = []
        for y in labels.to(device).split(batch_size):
            noise = torch.randn(len(y), *self.settings.shape, generator=generator).to(device)
            denoise = guided(self.network, y, guidance, self.network.null)
            with self.autocast():
                x = self.process.sample(
                    denoise,
                    noise,
                    self.settings.sampling_steps if steps is None else steps,
                    sampler or self.settings.sampler,
                    generator,
                    trace,
                )
            drawn.append(x)
        return torch.cat(drawn)

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json` into `folder`, which is made if need be; the
        autoencoder, if there is one, into its subfolder `autoencoder`.
        """
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        config = {"network": self.network.shape, "settings": asdict(self.settings)}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if self.autoencoder is not None:
            self.autoencoder.save(folder / AUTOENCODER)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> "Pipeline":
        """The pipeline that a run saved. Raises UsageError, which names the folder and what is
        wrong with it, when it holds none.
        """
        from safetensors.torch import load_file

        with opening(folder, "diffusion model", "Train one: python -m diffusion.train +size=tiny"):
            config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
            stated: dict[str, Any] = config["settings"]
            shapes = {k: tuple(stated[k]) for k in ("image", "latent") if stated.get(k)}
            settings = Settings(**{**stated, **shapes})
            network = network_of(settings.network, **config["network"])
            network.load_state_dict(load_file(Path(folder, "model.safetensors")))
            found = None
            if settings.latent is not None:
                found = latent.load(Path(folder, AUTOENCODER), settings.image[0], device)
        check_finite(network, folder)
        network.to(device).eval().requires_grad_(False)
        return cls(network, settings, autoencoder=found)
