"""Augmentation of a whole batch at once, as tensor operations: no loader, no worker."""

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise


@exercise(minutes=20)
def random_shift(images: Tensor, reach: int) -> Tensor:
    """Shift every image by its own whole number of pixels, with zeros from outside the image.

    Image b becomes out[b, c, i, j] = images[b, c, i + dy_b, j + dx_b], and 0 where that lies
    outside. dy_b and dx_b are drawn uniformly and independently from -reach..reach for each image
    (one shift for the batch augments far less); all channels of an image move together.

    Args:
        images: (B, C, H, W) of any type.
        reach: 0 or more.
    Returns:
        (B, C, H, W) of the same type, new; differentiable where the images are.
    """
    B, _, H, W = images.shape
    padded = F.pad(images, (reach,) * 4)
    windows = padded.unfold(2, H, 1).unfold(3, W, 1)  # (B, C, dy, dx, H, W), a view
    dy, dx = torch.randint(2 * reach + 1, (2, B), device=images.device)
    return windows[torch.arange(B, device=images.device), :, dy, dx]
