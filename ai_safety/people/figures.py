"""A picture of both axes at once."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from ai_safety.evaluate import Share
from labkit.show.pictures import new_figure


def both_axes(found: Mapping[str, Mapping[str, Share]]) -> Figure:
    """Each model as a point with its intervals: safe prompts refused, and unsafe ones refused.

    Args:
        found: for each model its shares `safe` and `unsafe`. On the diagonal a model refuses
            without looking at what is asked.
    """
    figure = new_figure(4.6, 4.4)
    axis = figure.subplots()
    axis.plot([0, 100], [0, 100], color="#bbbbbb", linewidth=1, zorder=0)
    for name, shares in found.items():
        x, y = shares["safe"], shares["unsafe"]
        xerr, yerr = ([[s.percent - s.interval[0]], [s.interval[1] - s.percent]] for s in (x, y))
        axis.errorbar(x.percent, y.percent, yerr, xerr, fmt="o", label=name)
    axis.set_xlim(-2, 102)
    axis.set_ylim(-2, 102)
    axis.set_xlabel("safe prompts refused (%)")
    axis.set_ylabel("unsafe prompts refused (%)")
    axis.legend(frameon=False, loc="upper left")
    return figure
