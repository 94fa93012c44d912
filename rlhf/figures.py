"""A picture from arrays: how well a reward model knows what it knows."""

import numpy as np
from matplotlib.figure import Figure

from labkit.show.pictures import new_figure


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> Figure:
    """Accuracy against the probability that the reward model gives; the diagonal is perfect.

    The area of a point is the share of pairs in its bin.
    """
    figure = new_figure(4.5, 4.5)
    axis = figure.subplots()
    edges = np.linspace(0.5, 1.0, bins + 1)
    which = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    shown = [k for k in range(bins) if (which == k).any()]
    axis.plot([0.5, 1], [0.5, 1], color="grey", linewidth=1)
    x = [confidence[which == k].mean() for k in shown]
    y = [right[which == k].mean() for k in shown]
    axis.plot(x, y)
    axis.scatter(x, y, [10 + 400 * (which == k).mean() for k in shown])
    axis.set_xlabel("probability that the better answer was found")
    axis.set_ylabel("share of pairs where it was")
    return figure
