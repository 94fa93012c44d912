"""Measures on views that were not trained on."""

from __future__ import annotations

from torch import Tensor

from cross_frontiers import metrics
from cross_frontiers.render import Field, RenderSettings, render_views
from cross_frontiers.scene import Split


def look(field: Field, split: Split, settings: RenderSettings) -> float:
    """Mean PSNR of the views of a split."""
    pictures, _ = render_views(field, split.rays, settings, *split.pictures.shape[2:])
    return metrics.psnr(pictures, split.pictures).mean().item()


def compare(pictures: Tensor, truth: Tensor) -> dict[str, float]:
    """Mean PSNR and SSIM of rendered pictures (N, 3, H, W), and the PSNR of blank ones of the
    background, which is what a model has that learned nothing."""
    return {
        "psnr": metrics.psnr(pictures, truth).mean().item(),
        "ssim": metrics.ssim(pictures, truth).mean().item(),
    }
