"""Pictures of an energy, of what it tells apart, and of a representation; from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ebm_jepa.densities import SQUARE
from labkit.show.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plane(true: Tensor, learned: Tensor, chains: Tensor, points: Tensor) -> Figure:
    """Log-densities (P, P) on the grid, indexed by x and then y: the true one and the learned one
    in the same colours, their difference, and points: chains (N, 2) beside data (M, 2).
    """
    figure = new_figure(13, 3.6)
    axes = figure.subplots(1, 4)
    extent = (-SQUARE, SQUARE, -SQUARE, SQUARE)
    high = float(true.max())
    low = high - 8  # nats: below that there are no data
    for place, values, title in (
        (axes[0], true, "true log-density"),
        (axes[1], learned, "learned log-density"),
    ):
        image = place.imshow(
            values.T.clamp(min=low), origin="lower", extent=extent, vmin=low, vmax=high
        )
        place.set_title(title)
    figure.colorbar(image, ax=axes[1], label="nats", shrink=0.8)
    difference = (learned - true).masked_fill(true < low, torch.nan)
    image = axes[2].imshow(
        difference.T, origin="lower", extent=extent, vmin=-1, vmax=1, cmap="RdBu_r"
    )
    axes[2].set_title("learned minus true")
    figure.colorbar(image, ax=axes[2], label="nats", shrink=0.8)
    axes[3].scatter(*points.T, s=2, label="data", color="C7")
    axes[3].scatter(*chains.T, s=2, label="chains", color="C3")
    axes[3].set(xlim=extent[:2], ylim=extent[2:], aspect="equal", title="points")
    axes[3].legend(loc="upper right", fontsize=7)
    return figure


def histograms(scores: Mapping[str, Tensor]) -> Figure:
    """Distribution of log p(x), up to a constant, in each set of pictures: name -> (N,)."""
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot()
    together = torch.cat(list(scores.values()))
    low, high = together.quantile(0.005).item(), together.quantile(0.995).item()
    for name, values in scores.items():
        axes.hist(
            values.clamp(low, high).numpy(), bins=60, range=(low, high), density=True, alpha=0.6,
            label=name,
        )  # fmt: skip
    axes.set(xlabel="log p(x) + constant, nats", ylabel="density of examples")
    axes.legend(frameon=False)
    return figure


def robustness(radii: Sequence[float], accuracy: Sequence[float]) -> Figure:
    """Accuracy in % under attacks of growing radius."""
    figure = new_figure(5.2, 3.6)
    axes = figure.add_subplot()
    axes.plot(radii, accuracy, marker="o")
    axes.set(xlabel="largest change of a pixel, share of the grey scale", ylabel="accuracy, %")
    axes.set_ylim(0, 100)
    return figure


def bars(values: Mapping[str, float]) -> Figure:
    """Probe accuracies in %, one bar for each method, the lowest at the top."""
    figure = new_figure(6.4, 0.6 + 0.4 * len(values))
    axes = figure.add_subplot()
    names = sorted(values, key=lambda name: -values[name])
    drawn = axes.barh(names, [values[name] for name in names])
    axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.set(xlabel="linear-probe test accuracy, %", xlim=(0, 100))
    return figure


def token_colours(images: Tensor, tokens: Tensor, rows: int, columns: int) -> Tensor:
    """Pictures beside the three leading principal components of their tokens, as red, green, blue.

    Args:
        images: float (N, C, H, W) in [0, 1].
        tokens: float (N, R C, d).
    Returns:
        float (2 N, 3, H, W): all pictures, then all maps.
    """
    flat = tokens.flatten(0, 1).float()
    _, _, directions = torch.pca_lowrank(flat, q=3, niter=4)
    parts = (flat - flat.mean(dim=0)) @ directions
    low, high = parts.quantile(0.02, dim=0), parts.quantile(0.98, dim=0)
    parts = ((parts - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    maps = parts.view(len(images), rows, columns, 3).permute(0, 3, 1, 2)
    size = images.shape[-2:]
    maps = torch.nn.functional.interpolate(maps, size=size, mode="nearest")
    return torch.cat([images.expand(-1, 3, -1, -1), maps])
