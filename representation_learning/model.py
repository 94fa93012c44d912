"""Encoders, and the modules on top of them during training: projection head, decoder.

The small encoder is made for two CPU cores: a whitening layer, computed from the data and then
fixed, reduces to 16 x 16 at once, and the channels grow as the maps shrink. The full size uses
torchvision's ResNet-18 with a stem for small images (Chen et al. 2020, appendix B.9).

Letters: B batch, d dimensions of the representation.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 32
"""Images enter an encoder with this height and width."""


def square(images: Tensor) -> Tensor:
    """uint8 (B, 1 or 3, H, W) -> uint8 (B, 3, 32, 32), resized bilinearly; grey ones repeated."""
    if images.shape[-2:] != (SIDE, SIDE):
        resized = F.interpolate(images.float(), size=SIDE, mode="bilinear", align_corners=False)
        images = resized.round().to(torch.uint8)
    return images.expand(-1, 3, -1, -1).contiguous()


def whitening(images: Tensor, kernel: int, count: int, eps: float = 1e-3) -> Tensor:
    """Filters that whiten image patches: weights (2 count, 3, kernel, kernel).

    The `count` leading eigenvectors of the patches' covariance, each divided by the root of its
    eigenvalue + eps, and their negatives, because the non-linearity that follows cuts off one side.
    Page 2019, "How to Train Your ResNet 8", introduced this as a first layer that is not trained.

    Args:
        images: float (B, 3, H, W) in [0, 1].
        count: at most 3 kernel^2.
    """
    patches = F.unfold(images, kernel).transpose(1, 2).flatten(0, 1)  # (patches, 3 kernel^2)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T.double()))  # ascending
    filters = (vectors / (values + eps).sqrt()).T.flip(0)[:count].float()
    return torch.cat([filters, -filters]).reshape(-1, 3, kernel, kernel)


def conv(channels_in: int, channels_out: int, halve: bool) -> nn.Sequential:
    """3 x 3 convolution, 2 x 2 max-pooling if asked for, batch normalisation, GELU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.MaxPool2d(2) if halve else nn.Identity(),
        nn.BatchNorm2d(channels_out),
        nn.GELU(),
    )


class Small(nn.Module):
    """Float images (B, 3, 32, 32) in [0, 1] -> representations (B, d), d = 4 width."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.dim = 4 * width
        self.whiten = nn.Conv2d(3, 96, 4, stride=2, padding=1, bias=False)  # (B, 96, 16, 16)
        self.whiten.weight.requires_grad_(False)
        self.body = nn.Sequential(
            nn.GELU(),
            conv(96, width, halve=True),  # (B, w, 8, 8)
            conv(width, 2 * width, halve=False),
            conv(2 * width, 2 * width, halve=True),  # (B, 2w, 4, 4)
            conv(2 * width, 4 * width, halve=False),
            conv(4 * width, 4 * width, halve=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def prepare(self, images: Tensor) -> None:
        """Set the whitening layer from training images, float in [0, 1]; a few hundred will do."""
        self.whiten.weight.data.copy_(whitening(images, 4, 48))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.body(self.whiten(images))
        return features


class ResNet18(nn.Module):
    """torchvision's ResNet-18 with a 3 x 3 stem and no pooling before the first block; d = 512."""

    dim = 512

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.net = resnet18(weights=None)
        self.net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.net.maxpool = nn.Identity()
        self.net.fc = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.net(images)
        return features


def make_encoder(name: str, width: int, images: Tensor) -> Small | ResNet18:
    """An untrained encoder, in the memory layout that is fastest for convolutions.

    Args:
        name: small or resnet18.
        images: training images, uint8 (N, 3, 32, 32).
    """
    if name == "resnet18":
        return ResNet18().to(memory_format=torch.channels_last)
    encoder = Small(width)
    encoder.prepare(images[:1000].float() / 255)
    return encoder.to(memory_format=torch.channels_last)


def projection_head(dim: int, hidden: int, out: int) -> nn.Sequential:
    """g(h) = W2 relu(norm(W1 h)) (Chen et al. 2020, section 2.1): (B, dim) -> (B, out).

    The loss uses its output, the representation is its input: the head may discard what does not
    help the loss, such as colour, which the representation then keeps (section 4.2).
    """
    return nn.Sequential(
        nn.Linear(dim, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, out),
    )


class Decoder(nn.Module):
    """Representations (B, d) -> images (B, 3, 32, 32) in [0, 1]: the encoder in reverse."""

    def __init__(self, dim: int, width: int = 16) -> None:
        super().__init__()
        self.unflatten = nn.Linear(dim, 4 * width * 16)
        self.body = nn.Sequential(
            nn.Unflatten(1, (4 * width, 4, 4)),
            nn.BatchNorm2d(4 * width),
            nn.GELU(),
            nn.Upsample(scale_factor=2),
            conv(4 * width, 2 * width, halve=False),  # (B, 2w, 8, 8)
            nn.Upsample(scale_factor=2),
            conv(2 * width, width, halve=False),  # (B, w, 16, 16)
            nn.Conv2d(width, 4 * 3, 3, padding=1),
            nn.PixelShuffle(2),  # (B, 3, 32, 32)
            nn.Sigmoid(),
        )

    def forward(self, h: Tensor) -> Tensor:
        images: Tensor = self.body(self.unflatten(h))
        return images
