"""Measures on views that were not trained on."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cross_frontiers import metrics
from cross_frontiers.scene import Split

Show = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From poses (N, 4, 4) to pictures (N, 3, H, W) and depths (N, H, W)."""


def look(show: Show, split: Split) -> float:
    """Mean PSNR of the views of a split."""
    return metrics.psnr(show(split.poses)[0], split.pictures).mean().item()


def compare(pictures: Tensor, truth: Tensor) -> dict[str, float]:
    """Mean PSNR and SSIM of rendered pictures (N, 3, H, W)."""
    return {
        "psnr": metrics.psnr(pictures, truth).mean().item(),
        "ssim": metrics.ssim(pictures, truth).mean().item(),
    }
