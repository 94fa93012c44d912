"""Picture of quality against size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.show.pictures import new_figure


def size_and_quality(points: Mapping[str, tuple[float, float]], exact: float) -> Any:
    """A point for each scheme: megabytes on disk, and perplexity.

    Args:
        points: name -> (megabytes, perplexity). exact: perplexity in float32.
    """
    figure = new_figure(6.4, 4)
    axes = figure.subplots()
    axes.axhline(exact, color="grey", linewidth=1, linestyle="--", label="float32")
    for name, (size, value) in points.items():
        axes.plot(size, value, "o")
        axes.annotate(name, (size, value), textcoords="offset points", xytext=(6, 4))
    axes.margins(x=0.2)
    axes.set_xlabel("MB on disk")
    axes.set_ylabel("perplexity")
    axes.legend()
    return figure
