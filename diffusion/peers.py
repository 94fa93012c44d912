"""diffusers' own U-Net and autoencoder, with the faces of ours: to be trained beside them.

`UNet2DModel` is the network of Ho et al. as the library builds it: GroupNorm with groups, time and
class added instead of scaling, no Muon. `AutoencoderKL` is that of Stable Diffusion.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from labkit import UsageError
from labkit.learning.weights import check_finite, opening


def library() -> ModuleType:
    """diffusers. Raises UsageError when it is not installed."""
    try:
        import diffusers
    except ImportError as error:
        raise UsageError(
            f"this needs diffusers, which cannot be imported ({error}): pip install diffusers"
        ) from error
    return diffusers


class DiffusersUNet(nn.Module):
    """`UNet2DModel` with the arguments and the call of `diffusion.model.UNet`."""

    def __init__(
        self,
        channels: int = 1,
        classes: int = 10,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 1,
    ) -> None:
        """Attention at the lowest level alone, as in ours; groups and heads as the widths allow."""
        super().__init__()
        self.shape = {
            "channels": channels,
            "classes": classes,
            "width": width,
            "multipliers": list(multipliers),
            "blocks": blocks,
        }
        self.null = classes  # the label that means "any class"
        plain = len(multipliers) - 1
        self.unet = library().UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            num_class_embeds=classes + 1,
            block_out_channels=[width * m for m in multipliers],
            layers_per_block=blocks,
            down_block_types=["DownBlock2D"] * plain + ["AttnDownBlock2D"],
            up_block_types=["AttnUpBlock2D"] + ["UpBlock2D"] * plain,
            norm_num_groups=math.gcd(width, 32),
            attention_head_dim=math.gcd(width, 8),
        )

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """x (B, C, H, W), t (B,) in [0, 1], labels (B,) int64 in 0..classes -> (B, C, H, W)."""
        out: Tensor = self.unet(x, 1000 * t, class_labels=labels).sample
        return out

    def matrices(self) -> list[nn.Parameter]:
        """The weights that Muon trains: the matrices inside. Its convolutions, whose weights have
        four axes, are AdamW's, as are the embeddings of time and class.
        """
        rims = ("unet.time_embedding", "unet.class_embedding")
        named = self.named_parameters()
        return [p for name, p in named if p.ndim == 2 and not name.startswith(rims)]


class DiffusersAutoencoder:
    """`AutoencoderKL` for pictures of any number of channels: one that was made for colour gets a
    grey picture three times, and the mean of its answer counts.
    """

    def __init__(self, vae: Any, channels: int) -> None:
        """`channels` of the pictures; raises UsageError when they are not those of the network."""
        self.vae, self.channels = vae.eval().requires_grad_(False), channels
        its = int(vae.config.in_channels)
        if its != channels and (channels, its) != (1, 3):
            raise UsageError(
                f"this autoencoder is for {its} channels, and the pictures have {channels}"
            )
        self.copies = its // channels

    @classmethod
    def load(
        cls, name: Path | str, channels: int, device: torch.device | str = "cpu"
    ) -> "DiffusersAutoencoder":
        """From a folder, or by a name of the hub. Raises UsageError when that holds none."""
        fix = "Give a folder of diffusers, or a name of its hub such as stabilityai/sd-vae-ft-mse"
        kind = library().AutoencoderKL
        with opening(name, "AutoencoderKL", fix):
            vae = kind.from_pretrained(name, low_cpu_mem_usage=False)
        check_finite(vae, name)
        return cls(vae.to(device), channels)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> the means of its latents, float (N, c, h, w)."""
        x = pictures.float().repeat(1, self.copies, 1, 1) / 127.5 - 1
        means: Tensor = self.vae.encode(x).latent_dist.mean
        return means

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """float (N, c, h, w) -> uint8 (N, C, H, W); values outside the range are clipped."""
        x: Tensor = self.vae.decode(latents).sample
        x = x.clamp(-1, 1).unflatten(1, (self.copies, self.channels)).mean(dim=1)
        return ((x + 1) * 127.5).round().to(torch.uint8)

    def save(self, folder: Path) -> None:
        """Write it into a folder as diffusers does."""
        self.vae.save_pretrained(folder)
