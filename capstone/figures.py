"""Pictures from numbers: the curves of the stages that train, and shares with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from labkit.show.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curves(rows: Sequence[Mapping[str, float]], keys: Sequence[str]) -> Figure:
    """Logged numbers against the step, a panel for each key; keys that were never logged have
    none."""
    logged = [key for key in keys if any(key in row for row in rows)]
    figure = new_figure(3.6 * max(1, len(logged)), 2.8)
    for place, key in enumerate(logged, start=1):
        axes = figure.add_subplot(1, len(logged), place)
        points = [(row["step"], row[key]) for row in rows if key in row]
        axes.plot([x for x, _ in points], [y for _, y in points], linewidth=1)
        axes.set_title(key, fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    return figure


def intervals(shares: Mapping[str, Sequence[float]]) -> Figure:
    """Shares (value, low, high), each from 0 to 1, as points with their intervals, in %."""
    figure = new_figure(6.4, 0.6 + 0.5 * len(shares))
    axes = figure.add_subplot()
    upwards = list(shares.items())[::-1]  # the first one is to be at the top
    for place, (_, (value, low, high)) in enumerate(upwards):
        axes.plot([100 * low, 100 * high], [place, place], color="0.6", linewidth=3)
        axes.plot([100 * value], [place], "o", color="C0")
    axes.set_yticks(range(len(shares)), [name.replace("_", " ") for name, _ in upwards])
    axes.set_xlim(-3, 103)
    axes.set_ylim(-0.6, len(shares) - 0.4)
    axes.set_xlabel("% (95 % interval)")
    axes.grid(axis="x", alpha=0.3)
    return figure
