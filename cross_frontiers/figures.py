"""Pictures of a run, from arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.show.pictures import new_figure


def shade_depth(depth: np.ndarray, low: float, high: float) -> np.ndarray:
    """Distances (..., H, W) as colours (..., H, W, 3), uint8: near is bright, and what is at `high`
    or beyond is black."""
    from matplotlib import colormaps

    share = ((high - depth) / (high - low)).clip(0, 1)
    shaded: np.ndarray = (colormaps["magma"](share)[..., :3] * 255).round().astype(np.uint8)
    return shaded


def beside_truth(
    rendered: np.ndarray, truth: np.ndarray, depth: np.ndarray, psnr: np.ndarray
) -> Any:
    """A row for each view: rendered, true, five times their difference, and depth.

    Args:
        rendered, truth: (N, H, W, 3) in [0, 1]. depth: (N, H, W, 3), uint8. psnr: (N,).
    """
    count = len(rendered)
    figure = new_figure(9.0, 2.4 * count)
    axes = figure.subplots(count, 4, squeeze=False)
    error = (5 * np.abs(rendered - truth)).clip(0, 1)
    for row, pictures in enumerate(zip(rendered, truth, error, depth, strict=True)):
        for place, picture in zip(axes[row], pictures, strict=True):
            place.imshow(picture, interpolation="nearest")
            place.set(xticks=[], yticks=[])
        axes[row][0].set_ylabel(f"{psnr[row]:.1f} dB")
    for place, title in zip(axes[0], ("rendered", "true", "5 x difference", "depth"), strict=True):
        place.set_title(title)
    return figure
