"""SimCLR's augmentation of a whole batch at once (Chen et al. 2020, section 3 and appendix A).

Every image gets its own crop, flip, colours and blur, yet each operation is one tensor expression
over the batch: no loader, no worker. The operations equal torchvision's, to rounding.

Letters: B batch, C = 3 channels, H height, W width. Images are float in [0, 1].
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in luma (ITU-R BT.601), with torchvision's rounding."""


@dataclass(frozen=True)
class Augmentation:
    """uint8 (B, 3, H, W) -> float (B, 3, H, W) in [0, 1], one random view of each image.

    The defaults are the paper's for ImageNet; for CIFAR-10 the paper halves the colour strength and
    omits the blur (appendix B.9). Crops have a share `scale` of the area and an aspect `ratio`, and
    are resized to full size.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    colour: float = 1.0
    jitter: float = 0.8
    grey: float = 0.2
    blur: float = 0.5

    def __call__(self, images: Tensor) -> Tensor:
        B, _, H, W = images.shape
        boxes = crop_boxes(B, H, W, self.scale, self.ratio).to(images.device)
        x = resized_crop(images.float() / 255, boxes, chance(B, self.flip, images.device))
        x = chosen(x, self.jitter, lambda part: colour_jitter(part, self.colour))
        x = chosen(x, self.grey, greyscale)
        size = max(3, round(0.1 * H) // 2 * 2 + 1)  # odd, about a tenth of the side
        return chosen(x, self.blur, lambda part: gaussian_blur(part, uniform(part, 0.1, 2.0), size))


def chance(n: int, p: float, device: torch.device | str = "cpu") -> Tensor:
    """n independent coins, bool (n,), true with probability p."""
    return torch.rand(n, device=device) < p


def uniform(x: Tensor, low: float, high: float) -> Tensor:
    """A random number in low..high for every image of x (B, C, H, W), shaped (B, 1, 1, 1)."""
    return torch.empty(len(x), 1, 1, 1, device=x.device).uniform_(low, high)


def chosen(x: Tensor, p: float, operation) -> Tensor:  # type: ignore[no-untyped-def]
    """Apply `operation` to each image with probability p; it receives the chosen images only."""
    index = chance(len(x), p, x.device).nonzero().flatten()
    return x.index_copy(0, index, operation(x[index])) if len(index) else x


def crop_boxes(
    n: int, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """n boxes (top, left, height, width), int64 (n, 4), as torchvision's RandomResizedCrop draws.

    The area is a uniform share of the image's, the logarithm of the aspect ratio is uniform. A box
    that does not fit is drawn again, up to ten times; then the largest central box is taken.
    """
    area = height * width * torch.empty(10, n).uniform_(*scale)
    aspect = torch.empty(10, n).uniform_(math.log(ratio[0]), math.log(ratio[1])).exp()
    w, h = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)  # (10, n)
    first = fits.int().argmax(dim=0)
    w, h = w[first, torch.arange(n)], h[first, torch.arange(n)]
    whole = (
        min(width, round(height * ratio[1])),
        min(height, round(width / ratio[0])),
    )
    ok = fits.any(dim=0)
    w, h = torch.where(ok, w, whole[0]), torch.where(ok, h, whole[1])
    top, left = (
        torch.where(ok, (torch.rand(n) * (free + 1)).long(), free // 2)
        for free in (height - h, width - w)
    )
    return torch.stack([top, left, h, w], dim=1)


def interpolation(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Matrices (B, size, size) that stretch the pixels start..start+length-1 to `size` pixels.

    Row i holds the weights of linear interpolation at the source coordinate of output pixel i,
        u_i = start + (i + 1/2) length / size - 1/2, kept inside the box:
    weight of source pixel j is max(0, 1 - |u_i - j|).
    """
    pixel = torch.arange(size, device=start.device)
    u = start[:, None] + (pixel + 0.5) * length[:, None] / size - 0.5
    u = u.clamp(start[:, None], (start + length - 1)[:, None])
    return (1 - (u[:, :, None] - pixel).abs()).clamp(min=0)


@exercise(minutes=25)
def resized_crop(images: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
    """Cut a box out of every image, resize it to the full size bilinearly, and mirror some.

    Linear interpolation is separable: rows are mixed by one matrix and columns by another (both
    made by `interpolation`), so the whole batch takes two batched matrix products.

    Args:
        images: float (B, C, H, W).
        boxes: int (B, 4): top, left, height, width.
        flip: bool (B,): which images are mirrored left to right, after the crop.
    Returns:
        (B, C, H, W), of the images' dtype, differentiable in the images.
    """
    top, left, height, width = boxes.T
    rows = interpolation(top, height, images.shape[2])  # (B, H, H)
    columns = interpolation(left, width, images.shape[3])  # (B, W, W)
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    rows, columns = rows[:, None].to(images.dtype), columns[:, None].to(images.dtype)
    return rows @ images @ columns.mT


def luma(x: Tensor) -> Tensor:
    """Brightness of every pixel: (B, 3, H, W) -> (B, 1, H, W)."""
    red, green, blue = x.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def greyscale(x: Tensor) -> Tensor:
    """The luma in all three channels."""
    return luma(x).expand_as(x)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with black: factor (B, 1, 1, 1), 1 leaves an image as it is."""
    return (x * factor).clamp(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean luma."""
    return torch.lerp(luma(x).mean(dim=(2, 3), keepdim=True), x, factor).clamp(0, 1)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's own greyscale."""
    return torch.lerp(luma(x).expand_as(x), x, factor).clamp(0, 1)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue by `shift` (B, 1, 1, 1), in turns: 1 is a full turn.

    RGB to HSV and back (Smith 1978), without branches: with hue h in sixths of a turn, value v and
    chroma c = v - min, the channels are v - c max(0, min(k, 4 - k, 1)), k = (n + h) mod 6, for
    n = 5, 3, 1.
    """
    red, green, blue = x.split(1, dim=1)
    v, chroma = x.amax(dim=1, keepdim=True), x.amax(1, keepdim=True) - x.amin(1, keepdim=True)
    safe = torch.where(chroma == 0, 1, chroma)
    h = torch.where(
        v == red,
        (green - blue) / safe,
        torch.where(v == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    h = torch.where(chroma == 0, 0, h) + 6 * shift
    n = torch.tensor([5.0, 3.0, 1.0], device=x.device).view(3, 1, 1)
    k = (n + h) % 6  # (B, 3, H, W)
    return v - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def colour_jitter(x: Tensor, strength: float) -> Tensor:
    """Brightness, contrast, saturation (each by a factor from 1 -+ 0.8 strength) and hue (by up to
    0.2 strength of a turn), drawn for each image, in an order drawn for the batch.
    """
    low, high = max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength
    operations = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    for i in torch.randperm(4).tolist():
        reach = 0.2 * strength
        x = operations[i](x, uniform(x, -reach, reach) if i == 3 else uniform(x, low, high))
    return x


def gaussian_blur(x: Tensor, sigma: Tensor, size: int) -> Tensor:
    """Blur each image with a Gaussian of its own deviation, in pixels.

    Args:
        x: (B, C, H, W); edges are mirrored.
        sigma: (B, 1, 1, 1).
        size: odd number of taps.
    """
    taps = torch.arange(size, device=x.device) - size // 2
    kernel = torch.exp(-0.5 * (taps / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).view(-1, 1, 1, 1, size)
    padded = F.pad(x, (size // 2,) * 4, mode="reflect")
    return ((padded.unfold(2, size, 1) * kernel).sum(-1).unfold(3, size, 1) * kernel).sum(-1)
