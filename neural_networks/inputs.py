"""From stored bytes to the network's input: standardising, and shifting images by a few pixels.

LeCun et al. 1998b recommend inputs of mean 0 and deviation 1 ("Efficient BackProp", §4.3).
Shifted copies are new examples at no cost: a digit moved by one pixel is the same digit.
Shapes: N images, C channels, D = C·height·width inputs, B images in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray
Kind = Literal["standardized", "unit", "raw"]


class Scaling:
    """Maps images (B, C, height, width) uint8 to rows (B, D) float32.

    standardized: (x/255 - mean) / std by channel; unit: x/255; raw: x as it is, 0..255.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], kind: Kind) -> None:
        m, s = np.array(mean), np.array(std)
        s = np.where(s > 0, s, 1.0)  # a channel of one value becomes 0, and not 0/0
        factor, offset = {
            "standardized": (1 / (255 * s), -m / s),
            "unit": (np.full_like(m, 1 / 255), 0 * m),
            "raw": (np.ones_like(m), 0 * m),
        }[kind]
        self.factor = factor.astype(np.float32)[:, None, None]  # (C, 1, 1)
        self.offset = offset.astype(np.float32)[:, None, None]

    def __call__(self, images: Array) -> Array:
        x = images * self.factor
        x += self.offset
        return x.reshape(len(x), -1)


def shifts(images: Array, pixels: int) -> Array:
    """Every image at every shift of up to p pixels: (N, C, 2p+1, 2p+1, height, width), a view.

    Pixels from outside the image are 0. The unshifted image is at [:, :, p, p].
    """
    rim = (pixels, pixels)
    padded = np.pad(images, ((0, 0), (0, 0), rim, rim))
    return sliding_window_view(padded, images.shape[2:], axis=(2, 3))


def shifted_batch(windows: Array, indices: Array, seed: int, step: int) -> Array:
    """Images `indices` (B,) of `shifts`, each at a random shift of its own: (B, C, height, width).

    A pure function of (seed, step), so a resumed run draws the same shifts.
    """
    rng = np.random.default_rng((seed, step))
    down, right = rng.integers(windows.shape[2], size=(2, len(indices)))
    return windows[indices, :, down, right]
