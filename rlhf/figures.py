"""Pictures from arrays: reward against KL, and how well a reward model knows what it knows."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from labkit.show.pictures import new_figure

Points = Sequence[Mapping[str, float]]
"""Looks at one policy during training: `kl`, `gold` and perhaps `proxy` of each."""


def frontier(curves: Mapping[str, Points], bound: Points = ()) -> Figure:
    """Gold reward against the square root of KL, a line for each method.

    The axis is Gao et al.'s: in the square root of KL, best-of-n and RL are nearly straight at
    first. A dashed line is the proxy reward, in standard deviations, where a method has one.
    """
    figure = new_figure(7.0, 4.5)
    axis = figure.subplots()
    for number, (name, points) in enumerate({**curves, "best of n": bound}.items()):
        ordered = sorted(points, key=lambda point: point["kl"]) if name == "best of n" else points
        kl = [max(point["kl"], 0.0) ** 0.5 for point in ordered]
        style = {"color": f"C{number}", "marker": "o", "markersize": 3}
        if ordered and "gold" in ordered[0]:
            axis.plot(kl, [point["gold"] for point in ordered], label=name, **style)
        if ordered and "proxy" in ordered[0]:
            proxy = [point["proxy"] for point in ordered]
            axis.plot(kl, proxy, linestyle="--", alpha=0.6, label=f"{name}, proxy", **style)
    axis.set_xlabel("√KL to the reference (KL in nats)")
    axis.set_ylabel("reward")
    axis.legend(fontsize=8)
    return figure


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> Figure:
    """Accuracy against the probability that the reward model gives; the diagonal is perfect."""
    figure = new_figure(4.5, 4.5)
    axis = figure.subplots()
    edges = np.linspace(0.5, 1.0, bins + 1)
    which = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    shown = [k for k in range(bins) if (which == k).any()]
    axis.plot([0.5, 1], [0.5, 1], color="grey", linewidth=1)
    axis.plot(
        [confidence[which == k].mean() for k in shown],
        [right[which == k].mean() for k in shown], marker="o",
    )  # fmt: skip
    axis.set_xlabel("probability that the chosen answer is better")
    axis.set_ylabel("share of pairs where it is")
    return figure
