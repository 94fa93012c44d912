"""Pictures of the questions, from numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from labkit.show.pictures import new_figure


def gap(accuracy: Mapping[str, Sequence[float]]) -> Figure:
    """Accuracy in per cent of each kind of model, a point for each repeat."""
    figure = new_figure()
    axis = figure.subplots()
    for place, values in enumerate(accuracy.values()):
        axis.scatter([place] * len(values), values, color="#264653", alpha=0.5)
        axis.plot([place - 0.25, place + 0.25], [np.mean(values)] * 2, color="#e76f51", linewidth=2)
    names = {
        "weak": "weak supervisor", "naive": "weak to strong", "confident": "with confidence loss",
        "ceiling": "true labels",
    }  # fmt: skip
    axis.set_xticks(range(len(accuracy)), [names.get(name, name) for name in accuracy])
    axis.set_ylabel("test accuracy (%)")
    return figure


def bars(values: Mapping[str, float], label: str) -> Figure:
    """One bar for each value in per cent."""
    figure = new_figure(6.4, 0.5 * len(values) + 1.2)
    axis = figure.subplots()
    names = list(values)[::-1]
    axis.barh(range(len(names)), [values[name] for name in names], color="#2a9d8f")
    axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axis.set_xlim(0, 100)
    axis.set_xlabel(label)
    return figure


def power(sampled: Mapping[str, float], limit: Mapping[str, float]) -> Figure:
    """POWER of states, sampled as bars and in the limit as lines."""
    figure = new_figure()
    axis = figure.subplots()
    axis.bar(range(len(sampled)), list(sampled.values()), color="#2a9d8f", label="sampled")
    for place, name in enumerate(sampled):
        axis.plot(
            [place - 0.4, place + 0.4], [limit[name]] * 2, color="#e76f51", linewidth=2,
            label="limit of far sight" if place == 0 else None,
        )  # fmt: skip
    axis.set_xticks(range(len(sampled)), list(sampled))
    axis.set_ylim(0, 1)
    axis.set_ylabel("POWER")
    axis.legend(frameon=False)
    return figure


def over_kl(budgets: Sequence[float], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Expected rewards, in deviations of the reference, over the KL budget."""
    figure = new_figure()
    axis = figure.subplots()
    colours = ("#2a9d8f", "#e76f51", "#264653")
    for (name, values), colour in zip(curves.items(), colours, strict=True):
        axis.plot(budgets, values, color=colour, linewidth=2, label=name)
    axis.axhline(0, color="#999999", linewidth=1)
    axis.set_xlabel("KL to the reference (nats)")
    axis.set_ylabel("expected reward (deviations of the reference)")
    axis.legend(frameon=False)
    return figure
