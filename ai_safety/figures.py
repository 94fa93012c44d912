"""Pictures from arrays: the two axes, and attacks against defences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from labkit.show.pictures import new_figure

COLOURS = {"helped": "#2a9d8f", "refused": "#e76f51", "evaded": "#bbbbbb"}


def matrix(rows: Mapping[str, Mapping[str, float]], harmful: Sequence[str]) -> Figure:
    """What happens to each group of requests, in per cent, as bars.

    Args:
        rows: for each group the shares of helped, refused and evaded.
        harmful: the groups that should be refused.
    """
    figure = new_figure(6.4, 0.45 * len(rows) + 1.4)
    axis = figure.subplots()
    names = list(rows)[::-1]
    left = np.zeros(len(names))
    for outcome, colour in COLOURS.items():
        share = np.array([rows[name][outcome] for name in names])
        axis.barh(range(len(names)), share, left=left, color=colour, label=outcome)
        left += share
    labels = [f"{name} ({'harmful' if name in harmful else 'harmless'})" for name in names]
    axis.set_yticks(range(len(names)), labels)
    axis.set_xlim(0, 100)
    axis.set_xlabel("requests (%)")
    axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return figure


def attacks(success: np.ndarray, kinds: Sequence[str], defences: Sequence[str]) -> Figure:
    """Attack success in per cent, (defences, kinds), as a table in colour."""
    figure = new_figure(7.4, 0.6 * len(defences) + 1.6)
    axis = figure.subplots()
    axis.imshow(success, cmap="Reds", vmin=0, vmax=100, aspect="auto")
    axis.set_xticks(range(len(kinds)), kinds, rotation=25, ha="right")
    axis.set_yticks(range(len(defences)), defences)
    for i, j in np.ndindex(success.shape):
        colour = "white" if success[i, j] > 60 else "black"
        axis.text(j, i, f"{success[i, j]:.0f}", ha="center", va="center", color=colour)
    axis.set_title("harmful requests that were helped with (%)")
    return figure
