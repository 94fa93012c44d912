"""A convolutional network for small images, after LeNet-5 (LeCun et al. 1998, section II-B).

What changed since: 3 x 3 kernels, max-pooling before the non-linearity, and batch normalisation,
which allows a learning rate some ten times higher (Ioffe & Szegedy 2015).

Letters: B batch, C channels, H height, W width, K classes.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.learning.weights import check_finite, opening

SIDE = 28
"""Images enter the first convolution with this height and width."""


def resize(images: Tensor) -> Tensor:
    """Float images (B, C, H, W) as (B, C, 28, 28), bilinearly if of another size."""
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


def conv(channels_in: int, channels_out: int, pool: bool) -> nn.Sequential:
    """3 x 3 convolution, then 2 x 2 max-pooling if asked for, batch normalisation, ReLU.

    Pooling before ReLU gives the same result with a quarter of the work: ReLU commutes with max.
    """
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.MaxPool2d(2) if pool else nn.Identity(),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class CNN(nn.Module):
    """Four convolutions, a 64-d embedding and a linear read-out.

    Input convention, for every week that uses it: float images (B, C, H, W) in [0, 1]. They are
    resized to 28 x 28 and standardised inside, with the training set's own mean and deviation, kept
    as buffers.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channels: int = 1,
        classes: int = 10,
        width: int = 24,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
    ) -> None:
        super().__init__()
        self.shape = {"channels": channels, "classes": classes, "width": width}
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.body = nn.Sequential(
            conv(channels, width, pool=True),  # (B, w, 14, 14)
            conv(width, 2 * width, pool=True),  # (B, 2w, 7, 7)
            conv(2 * width, 4 * width, pool=False),  # (B, 4w, 7, 7)
            conv(4 * width, 4 * width, pool=True),  # (B, 4w, 3, 3)
            nn.Flatten(),
        )
        self.embed = nn.Sequential(nn.Linear(9 * 4 * width, 64, bias=False), nn.BatchNorm1d(64))
        self.head = nn.Linear(64, classes)

    def features(self, images: Tensor) -> Tensor:
        """The penultimate layer: (B, C, H, W) in [0, 1] -> (B, 64), before its ReLU.

        Before the ReLU, each feature has values on both sides of zero and none is dead: weeks that
        compare sets of images by mean and covariance (the Frechet distance) need that.
        """
        standardised = (resize(images) - self.mean) / self.std
        embedded: Tensor = self.embed(
            self.body(standardised.contiguous(memory_format=torch.channels_last))
        )
        return embedded

    def forward(self, images: Tensor) -> Tensor:
        """Logits: (B, C, H, W) in [0, 1] -> (B, K)."""
        logits: Tensor = self.head(F.relu(self.features(images)))
        return logits


def save_classifier(model: CNN, folder: Path) -> None:
    """Write `model.safetensors` and `config.json` into `folder`."""
    from safetensors.torch import save_file

    weights = {k: v.cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(model.shape, indent=2) + "\n", encoding="utf-8")


def load_classifier(folder: Path | str, device: torch.device | str = "cpu") -> CNN:
    """The classifier that a finished run published into `folder`, in eval mode, without gradients.

    Raises UsageError, which names the folder and what is wrong with it, when it holds none.
    """
    from safetensors.torch import load_file

    fix = "Remove it, and it is made anew: python -m pytorch_mastery.train +size=tiny"
    with opening(folder, "classifier", fix):
        shape = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        blank = [0.0] * shape["channels"]  # mean and deviation, buffers, come with the weights
        model = CNN(**shape, mean=blank, std=blank)
        model.load_state_dict(load_file(Path(folder, "model.safetensors"), device=str(device)))
    check_finite(model, folder)
    return model.to(device).eval().requires_grad_(False)
