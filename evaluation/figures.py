"""Pictures of a comparison, from arrays."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from labkit.show.pictures import new_figure, to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NEAR = 20.0
"""Largest ratio of two distances that one picture shows."""


def page(rows: Mapping[str, np.ndarray]) -> "Figure":
    """One row of pictures for each title: uint8 (n, C, H, W), the same n in all."""
    first = next(iter(rows.values()))
    count, (height, width) = len(first), first.shape[2:]
    gap = max(1, width // 14)
    side_by_side = [
        np.concatenate([_framed(image, gap) for image in row], 1) for row in rows.values()
    ]
    sheet = np.concatenate(side_by_side)
    across, down = 0.62 * count, 0.62 * height / width * len(rows)
    figure = new_figure(across + 1.7, down)
    figure.set_layout_engine("none")
    axes = figure.add_axes((1.7 / (across + 1.7), 0, across / (across + 1.7), 1))
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
    axes.axis("off")
    for i, title in enumerate(rows):
        middle = 1 - (i + 0.5) / len(rows)
        axes.text(
            -0.1 / across, middle, title, transform=axes.transAxes, ha="right", va="center",
            fontsize=9,
        )  # fmt: skip
    return figure


def _framed(image: np.ndarray, gap: int) -> np.ndarray:
    """(C, H, W) -> (H + gap, W + gap) or (H + gap, W + gap, 3), with a white border below and to
    the right.
    """
    pixels = to_uint8(image)
    edges = [(0, gap), (0, gap)] + [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, edges, constant_values=255)


def bias(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], infinity: Mapping[str, float]
) -> "Figure":
    """Distances against 1 / N, by title, with the line that was extrapolated to 1 / N = 0.

    Sets that are more than NEAR times as far away as the nearest one would flatten the others, and
    are left out.
    """
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    limit = NEAR * min(values[-1] for _, values in curves.values())
    near = {title: curve for title, curve in curves.items() if curve[1][-1] <= limit}
    for i, (title, (counts, values)) in enumerate(near.items()):
        inverse = 1 / np.asarray(counts, dtype=np.float64)
        axes.plot(inverse, values, ".", color=f"C{i}", markersize=4)
        slope = np.polyfit(inverse, values, 1)[0]
        ends = np.array([0, inverse.max()])
        axes.plot(ends, infinity[title] + slope * ends, color=f"C{i}", lw=1, label=title)
        axes.plot([0], [infinity[title]], "o", color=f"C{i}", clip_on=False)
    axes.set(xlabel="1 / N", ylabel="Fréchet distance", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
