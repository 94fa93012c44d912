"""Energy networks: of points in the plane, and of pictures.

None has batch normalisation: with it the energy of an example would depend on the others in its
batch, real ones or samples, and there would be no p(x). All are smooth (Swish, x sigmoid(x)):
the sampler follows the gradient with respect to the *input*, and that of a ReLU network is constant
in pieces. JEM's author recommends it when training diverges.

Letters: B batch, C channels, H height, W width, K outputs.
"""

import itertools

import torch
from torch import Tensor, nn

from labkit import exercise

BASE = 2.0
"""Deviation of the Gaussian that `PlaneEnergy` multiplies: far out it alone counts."""


@exercise(minutes=10)
def energy_of_logits(logits: Tensor) -> Tensor:
    """A classifier's own energy (JEM, section 3): E(x) = -log of the sum over y of e^f(x)[y].

    Softmax divides by that sum and so throws it away: adding a constant to all logits changes no
    class probability, but lowers the energy by the constant. Logits of 1,000 or -1,000 must not
    overflow. Logits of lower precision are converted to float32 first; float64 stays.

    Args:
        logits: float (B, K).
    Returns:
        (B,), differentiable in the logits.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return -wide.logsumexp(dim=1)


class PlaneEnergy(nn.Module):
    """Energy of points in the plane (B, 2) -> (B,): a small network plus |x|^2 / (2 BASE^2).

    The second term is the energy of a wide Gaussian. It makes the normaliser finite whatever the
    network says, and brings back chains that went astray.
    """

    def __init__(self, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        sizes = [2, *[width] * layers]
        hidden = [
            module for a, b in itertools.pairwise(sizes) for module in (nn.Linear(a, b), nn.SiLU())
        ]
        self.net = nn.Sequential(*hidden, nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        energy: Tensor = self.net(x).squeeze(1) + x.square().sum(dim=1) / (2 * BASE**2)
        return energy


class Conv(nn.Module):
    """A small convolutional network for two CPU cores: pictures (B, C, H, W) in [-1, 1] -> (B, K).

    Four 3 x 3 convolutions; three of them halve the side, of pictures above 16 x 16, else two.
    Strided convolutions instead of pooling: their gradient reaches every pixel.
    """

    def __init__(self, image: tuple[int, int, int], width: int, outputs: int) -> None:
        super().__init__()
        channels, height, side = image
        strides = (2 if min(height, side) > 16 else 1, 2, 1, 2)
        widths = (channels, width, 2 * width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for a, b, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [nn.Conv2d(a, b, 3, stride, padding=1), nn.SiLU()]
            height, side = -(-height // stride), -(-side // stride)
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(4 * width * height * side, outputs)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x.contiguous(memory_format=torch.channels_last)))
        return logits


class WideBlock(nn.Module):
    """Two 3 x 3 convolutions beside an identity (Zagoruyko & Komodakis 2016), no normalisation.

    The second convolution starts at 0, so that the block starts as the identity (Zhang et al.
    2019, Fixup): without normalisation a deep network would otherwise not train.
    """

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(a, b, 3, stride, padding=1)
        self.second = nn.Conv2d(b, b, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        self.skip = nn.Conv2d(a, b, 1, stride) if a != b or stride != 1 else nn.Identity()
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.second(self.act(self.first(self.act(x))))
        return h + self.skip(x)


class WideResNet(nn.Module):
    """Wide ResNet of depth 6 n + 4: pictures (B, C, H, W) in [-1, 1] -> (B, K). JEM uses 28-10."""

    def __init__(self, image: tuple[int, int, int], width: int, outputs: int, depth: int) -> None:
        """Raises ValueError for a depth that is not 6 n + 4 with n >= 1."""
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth={depth} is not 6 n + 4; try depth=28")
        layers: list[nn.Module] = [nn.Conv2d(image[0], 16, 3, padding=1)]
        before = 16
        for level in range(3):
            channels = 16 * width * 2**level
            for block in range((depth - 4) // 6):
                stride = 2 if level and not block else 1
                layers.append(WideBlock(before, channels, stride))
                before = channels
        self.body = nn.Sequential(*layers, nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(before, outputs)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x.contiguous(memory_format=torch.channels_last)))
        return logits


def picture_network(
    name: str, image: tuple[int, int, int], width: int, outputs: int, depth: int
) -> Conv | WideResNet:
    """The network `name`, conv or wide_resnet; depth is for the second alone."""
    if name == "wide_resnet":
        return WideResNet(image, width, outputs, depth)
    return Conv(image, width, outputs)


class LogitEnergy(nn.Module):
    """Energy of pictures (B, C, H, W) -> float32 (B,) by any network with outputs (B, K).

    With K classes it is JEM's -logsumexp; with K = 1 simply minus the only output.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return energy_of_logits(self.network(x))
