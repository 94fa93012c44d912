"""Figures from numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from labkit.show.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = "osD^vPX"


def accuracy_curve(
    sizes: Sequence[float], rows: Mapping[str, Sequence[float]], label: str
) -> Figure:
    """Accuracy in percent against `label`, a line for each row."""
    figure = new_figure()
    axes = figure.subplots()
    for mark, (name, values) in zip(MARKS, rows.items(), strict=False):
        axes.plot(sizes, values, marker=mark if len(sizes) < 20 else None, label=name)
    axes.set(xlabel=label, ylabel="accuracy (%)", ylim=(-2, 102))
    axes.legend()
    return figure


def deletion(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Probability of the class against the share of pixels deleted."""
    figure = new_figure(7.6, 4.0)
    axes = figure.subplots()
    for name, values in curves.items():
        shares = [100 * i / (len(values) - 1) for i in range(len(values))]
        axes.plot(shares, values, label=name, linestyle=":" if name == "random" else "-")
    axes.set(xlabel="pixels deleted (%)", ylabel="probability of the class", ylim=(0, 1.02))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def sanity(layers: Sequence[str], rows: Mapping[str, Sequence[float]]) -> Figure:
    """Rank correlation with the trained model's map, as layers are drawn anew from the top."""
    figure = new_figure(7.6, 4.4)
    axes = figure.subplots()
    for mark, (name, values) in zip(MARKS, rows.items(), strict=False):
        axes.plot(range(len(layers) + 1), [1.0, *values], marker=mark, label=name)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xticks(range(len(layers) + 1), ["none", *layers], rotation=45, ha="right")
    axes.set(xlabel="last layer drawn anew", ylabel="rank correlation", ylim=(-0.55, 1.05))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
