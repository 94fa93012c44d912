"""An autoencoder that loses nothing, and whose latents are known: for tests."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Toy(nn.Module):
    """Each square of 2 x 2 pixels becomes 4 channels; pixel p is `spread` (p / 255) + 3."""

    def __init__(self, image: tuple[int, int, int] = (1, 8, 8), spread: float = 0.2) -> None:
        super().__init__()
        self.spread = nn.Parameter(torch.tensor(spread))  # a weight, so that gradients would flow
        self.latent = (4 * image[0], image[1] // 2, image[2] // 2)
        self.encoded: list[int] = []
        self.decoded: list[Tensor] = []

    def encode(self, pictures: Tensor) -> Tensor:
        assert pictures.dtype == torch.uint8
        self.encoded.append(len(pictures))
        return F.pixel_unshuffle(pictures.double() / 255, 2) * self.spread.double() + 3

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded.append(latents)
        x = F.pixel_shuffle((latents - 3) / self.spread, 2)
        return (x.detach() * 255).round().clamp(0, 255).to(torch.uint8)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}", encoding="utf-8")
