"""The networks of all three methods, after DCGAN (Radford, Metz & Chintala 2015, section 3).

    Encoder        picture -> [4 x 4 convolution, halve] x levels -> latent statistics
    Decoder        latents -> [4 x 4 transposed convolution, double] x levels -> logits of pixels
    Discriminator  picture -> [4 x 4 convolution, halve] x levels -> one logit

A GAN's generator and a VAE's decoder are the same network: `Decoder`. Latents always have the shape
(c, h, w). A latent vector is (c, 1, 1): one convolution over all that the levels left, (H, W) /
2^levels, makes it. Latents with the full height and width of the last level come from a 1 x 1
convolution.

Letters: B batch, C channels, H height, W width of a picture; c, h, w those of the latents.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import exercise

Shape = tuple[int, int, int]


def to_pictures(x: Tensor) -> Tensor:
    """From [0, 1] to pixels, uint8; values outside are clipped."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def reduced(image: Shape, levels: int) -> tuple[int, int]:
    """Height and width after `levels` halvings. Raises ValueError when they do not come out even,
    or when there is no level.
    """
    height, width = image[1] >> levels, image[2] >> levels
    if levels < 1 or height < 1 or width < 1:
        raise ValueError(f"pictures of {image[1]} x {image[2]} cannot be halved {levels} times")
    if (height << levels, width << levels) != image[1:]:
        raise ValueError(f"{image[1]} x {image[2]} cannot be halved evenly {levels} times")
    return height, width


@exercise(minutes=25)
def power_iteration(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """One power iteration towards the largest singular value (Miyato et al. 2018, algorithm 1).

        v <- W^T u / |W^T u|        u <- W v / |W v|        sigma = u^T W v

    u and v are constants: no gradient flows through them. It flows through W in the last equation,
    which gives the gradient of the singular value, u v^T. Norms below 1e-12 count as 1e-12, so that
    a zero matrix gives sigma 0.

    Args:
        weight: W, (rows, columns), of any floating type.
        u: (rows,), the approximate left singular vector from the last step; not changed.
    Returns:
        sigma, a scalar, and the new u, (rows,).
    """
    with torch.no_grad():
        v = F.normalize(weight.T @ u, dim=0, eps=1e-12)
        u = F.normalize(weight @ v, dim=0, eps=1e-12)
    return u @ (weight @ v), u


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight, as a matrix (C_out, C_in * k * k), has largest singular value 1.

    Such a layer cannot make differences between pictures grow much, which bounds the slope of the
    discriminator. u is kept from step to step: weights change slowly, so one iteration is enough.
    """

    u: Tensor

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int | tuple[int, int],
        stride: int = 1, padding: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(channels_in, channels_out, kernel, stride, padding)
        self.register_buffer("u", F.normalize(torch.randn(channels_out), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # a norm in bf16 has two digits
            sigma, u = power_iteration(self.weight.flatten(1), self.u)
        if self.training:
            self.u = u
        return F.conv2d(x, self.weight / sigma, self.bias, self.stride, self.padding)


class Encoder(nn.Module):
    """Pictures in [0, 1], (B, C, H, W) -> `outputs` numbers at each of the h x w latent places."""

    def __init__(self, image: Shape, width: int, levels: int, outputs: int, spatial: bool) -> None:
        """Level i has width * 2^i channels. `spatial` keeps height and width of the last level."""
        super().__init__()
        channels = [image[0], *(width << i for i in range(levels))]
        layers: list[nn.Module] = []
        for i in range(levels):
            layers += [nn.Conv2d(channels[i], channels[i + 1], 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(channels[i + 1]), nn.LeakyReLU(0.2, inplace=True)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(channels[-1], outputs, 1 if spatial else reduced(image, levels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, h, w)."""
        out: Tensor = self.head(self.body(_centred(x)))
        return out


class Decoder(nn.Module):
    """Latents (B, c, h, w) -> logits of pixels, (B, C, H, W); also the generator of a GAN.

    Pictures are the sigmoid of the logits. DCGAN's tanh gives the same range from -1 to 1:
    tanh(a) = 2 sigmoid(2 a) - 1.
    """

    def __init__(self, image: Shape, width: int, levels: int, channels: int, spatial: bool) -> None:
        """Level i has width * 2^i channels; `channels` is c."""
        super().__init__()
        self.shape = {
            "image": list(image), "width": width, "levels": levels, "channels": channels,
            "spatial": spatial,
        }  # fmt: skip
        height, wide = reduced(image, levels)
        self.image = image
        self.latent: Shape = (channels, height, wide) if spatial else (channels, 1, 1)
        widths = [width << i for i in reversed(range(levels))]
        kernel = 1 if spatial else (height, wide)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(channels, widths[0], kernel, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for before, after in itertools.pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        layers.append(nn.ConvTranspose2d(widths[-1], image[0], 4, 2, 1))
        self.body = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """(B, c, h, w) -> (B, C, H, W)."""
        out: Tensor = self.body(z)
        return out

    def decode(self, z: Tensor) -> Tensor:
        """Pictures in [0, 1], float32 (B, C, H, W)."""
        return self(z).float().sigmoid()

    def prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n latents from a standard normal, (n, c, h, w). They are drawn on the CPU, so that a
        seed means the same on every device.
        """
        device = next(self.parameters()).device
        return torch.randn(n, *self.latent, generator=generator).to(device)


class Discriminator(nn.Module):
    """Pictures in [0, 1] -> one logit each, high for real ones; no normalisation over the batch.

    DCGAN's batch normalisation would make the logit of a picture depend on the other pictures:
    real and generated ones must then never share a batch, and R1 has no gradient per picture.
    """

    def __init__(self, image: Shape, width: int, levels: int, spectral_norm: bool = True) -> None:
        """Level i has width * 2^i channels."""
        super().__init__()
        conv = SpectralConv2d if spectral_norm else nn.Conv2d
        channels = [image[0], *(width << i for i in range(levels))]
        layers: list[nn.Module] = []
        for i in range(levels):
            layers += [conv(channels[i], channels[i + 1], 4, 2, 1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, conv(channels[-1], 1, reduced(image, levels)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits, float32 (B,)."""
        out: Tensor = self.body(_centred(x)).float().flatten()
        return out


def _centred(x: Tensor) -> Tensor:
    """[0, 1] as [-1, 1], in the layout that convolutions are fastest in."""
    return (2 * x - 1).contiguous(memory_format=torch.channels_last)


def dcgan_weights(module: nn.Module) -> None:
    """Start as DCGAN does: weights from N(0, 0.02), scales of the normalisation from N(1, 0.02)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
