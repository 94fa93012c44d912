"""Three ways to train an encoder: modules that hold it, and map a batch of images to a loss.

Letters: B images of a batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from representation_learning import losses
from representation_learning.augment import Augmentation
from representation_learning.model import Decoder, ResNet18, Small, projection_head

Encoder = Small | ResNet18
Metrics = dict[str, Tensor]


def channels_last(images: Tensor) -> Tensor:
    """The memory layout that is fastest for convolutions."""
    return images.contiguous(memory_format=torch.channels_last)


class SimCLR(nn.Module):
    """SimCLR: pull the two views of an image together (Chen et al. 2020, algorithm 1)."""

    def __init__(
        self, encoder: Encoder, augment: Augmentation, temperature: float, head: tuple[int, int]
    ) -> None:
        """`head`: hidden and output sizes of the projection."""
        super().__init__()
        self.encoder, self.augment, self.temperature = encoder, augment, temperature
        self.head = projection_head(encoder.dim, *head)

    def forward(self, images: Tensor, labels: Tensor, autocast: Callable) -> tuple[Tensor, Metrics]:
        """images uint8 (B, 3, H, W); the labels are not looked at."""
        B = len(images)
        views = self.augment(images.repeat(2, 1, 1, 1))  # (2 B, 3, H, W): every view by itself
        with autocast():
            z = self.head(self.encoder(channels_last(views)))
        z1, z2 = z.float().split(B)  # similarities need more digits than bf16 has
        loss = losses.nt_xent(z1, z2, self.temperature)
        with torch.no_grad():
            shape = {
                "partners_found": losses.partners_found(z1, z2),
                "alignment": losses.alignment(z1, z2),
                "uniformity": losses.uniformity(z1),
            }
        return loss, shape


class Autoencoder(nn.Module):
    """Reconstruct the image from its representation: mean squared error per pixel."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, Decoder(encoder.dim)

    def forward(self, images: Tensor, labels: Tensor, autocast: Callable) -> tuple[Tensor, Metrics]:
        """images uint8 (B, 3, H, W); the labels are not looked at."""
        x = channels_last(images.float() / 255)
        with autocast():
            out = self.decoder(self.encoder(x))
        return F.mse_loss(out.float(), x), {}


class Supervised(nn.Module):
    """To compare, with labels: cross-entropy of a linear read-out, on the same kind of views."""

    def __init__(self, encoder: Encoder, augment: Augmentation, classes: int) -> None:
        super().__init__()
        self.encoder, self.augment = encoder, augment
        self.head = nn.Linear(encoder.dim, classes)

    def forward(self, images: Tensor, labels: Tensor, autocast: Callable) -> tuple[Tensor, Metrics]:
        """images uint8 (B, 3, H, W), labels int64 (B,)."""
        views = channels_last(self.augment(images))
        with autocast():
            logits = self.head(self.encoder(views))
        return F.cross_entropy(logits.float(), labels), {}


Objective = SimCLR | Autoencoder | Supervised
