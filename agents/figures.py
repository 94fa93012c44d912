"""Figures of the week, from numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labkit.show.pictures import new_figure


def against_length(
    lengths: Sequence[int], success: Mapping[str, Sequence[float]], seen: int, title: str
) -> Any:
    """Success (%) against the number of towns in a question, a line for each agent or memory.

    Lengths above `seen` were not in training.
    """
    figure = new_figure()
    axes = figure.subplots()
    marks = "osv^D*"
    for i, (name, values) in enumerate(success.items()):
        axes.plot(lengths, values, f"{marks[i % len(marks)]}-", label=name, alpha=0.8)
    if seen and seen < max(lengths):
        axes.axvspan(seen + 0.5, max(lengths) + 0.3, color="0.9", label="longer than in training")
    axes.set_xlabel("towns to look up")
    axes.set_ylabel("answered rightly (%)")
    axes.set_title(title)
    axes.set_xticks(list(lengths))
    axes.set_ylim(-4, 104)
    axes.legend(loc="lower left")
    return figure


def bars(values: Mapping[str, float], title: str) -> Any:
    """A horizontal bar for each situation, in %."""
    figure = new_figure(6.4, 0.45 * len(values) + 1.2)
    axes = figure.subplots()
    names = list(values)[::-1]
    drawn = axes.barh(names, [values[name] for name in names], color="tab:blue")
    axes.bar_label(drawn, fmt="%.0f", padding=3)
    axes.set_xlim(0, 110)
    axes.set_xlabel("answered rightly (%)")
    axes.set_title(title)
    return figure
