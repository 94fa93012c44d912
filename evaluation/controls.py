"""Samples whose faults are known, beside the models: they show what each metric sees.

copies     random training pictures: perfect, except that they are copied
collapse   training pictures of the first half of the classes: good ones, but no variety
blur       training pictures, blurred: variety, but no quality
noise      each pixel from a Gaussian with its mean and deviation: the worst that is sensible
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.data import ImageData

Draw = Callable[[int, int], Tensor]
"""(n, seed) -> pictures, uint8 (n, C, H, W)."""
TITLES = {
    "copies": "training images", "collapse": "half of the classes", "blur": "blurred",
    "noise": "noise by pixel",
}  # fmt: skip


def draws(data: ImageData) -> dict[str, Draw]:
    """Each control by its name."""
    x, y = data.train.x, data.train.y
    kept = x[y < max(1, len(data.classes) // 2)]
    mean, deviation = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)

    def some(pictures: np.ndarray, n: int, seed: int) -> Tensor:
        rng = np.random.default_rng((seed, len(pictures)))
        return torch.from_numpy(pictures[rng.choice(len(pictures), n, replace=n > len(pictures))])

    def noise(n: int, seed: int) -> Tensor:
        rng = np.random.default_rng((seed, 1))
        values = mean + deviation * rng.standard_normal((n, *mean.shape))
        return torch.from_numpy(values.clip(0, 255).round().astype(np.uint8))

    return {
        "copies": lambda n, seed: some(x, n, seed),
        "collapse": lambda n, seed: some(kept, n, seed),
        "blur": lambda n, seed: blurred(some(x, n, seed)),
        "noise": noise,
    }


def blurred(pictures: Tensor) -> Tensor:
    """uint8 (N, C, H, W), each channel twice averaged with the weights (1, 2, 1) / 4 both ways."""
    channels = pictures.shape[1]
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (row[:, None] * row).expand(channels, 1, 3, 3)
    x = pictures.float()
    for _ in range(2):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
    return x.round().to(torch.uint8)
