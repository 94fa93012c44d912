"""The networks of the week: a small one for adversarial training, and week 3's.

Letters: B batch, C channels, H height, W width, K classes.
"""

from typing import Literal

from torch import Tensor, nn

from labkit.errors import UsageError
from pytorch_mastery import CNN

MAPS = {"small": "convolutions.3", "week3": "body.2"}
"""The layer of each network that Grad-CAM looks at: the last with more than a few pixels."""


class Small(nn.Module):
    """Two strided convolutions and two linear layers, the network of Wong et al. 2020 for MNIST.

    Float images (B, C, H, W) in [0, 1] -> logits (B, K). There is no batch normalisation, so that a
    prediction never depends on the rest of the batch, attacked or not.
    """

    def __init__(self, channels: int, height: int, width: int, classes: int, base: int) -> None:
        super().__init__()
        if height % 4 or width % 4:
            raise UsageError(
                f"images of {height} x {width} cannot be halved twice; try network=week3"
            )
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, base, 4, stride=2, padding=1),  # (B, b, H/2, W/2)
            nn.ReLU(),
            nn.Conv2d(base, 2 * base, 4, stride=2, padding=1),  # (B, 2b, H/4, W/4)
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(2 * base * (height // 4) * (width // 4), 100),
            nn.ReLU(),
            nn.Linear(100, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, K)."""
        logits: Tensor = self.head(self.convolutions(images))
        return logits


def make_network(
    kind: Literal["small", "week3"], image: tuple[int, int, int], classes: int, base: int
) -> nn.Module:
    """A network for images of shape `image`, (C, H, W), with `base` channels in its first layer.

    Raises UsageError when small cannot halve the images twice.
    """
    if kind == "week3":  # it standardises inside: its input is in [0, 1] too
        return CNN(image[0], classes, base, [0.5] * image[0], [0.5] * image[0])
    return Small(*image, classes, base)
