"""Picture of what each scheme costs and saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.show.pictures import new_figure


def size_and_quality(points: Mapping[str, tuple[float, float]], exact: float) -> Any:
    """Two bars for each scheme: the increase of perplexity in percent, and megabytes on disk.

    Args:
        points: name -> (megabytes, perplexity). exact: perplexity in float32.
    """
    figure = new_figure(7.5, 3.5)
    left, right = figure.subplots(1, 2, sharey=True)
    names = list(points)
    left.barh(names, [100 * (value / exact - 1) for _, value in points.values()])
    left.axvline(0, color="black", linewidth=1)
    left.set_xlabel("increase of perplexity (%)")
    right.barh(names, [size for size, _ in points.values()], color="tab:grey")
    right.set_xlabel("MB on disk")
    left.invert_yaxis()
    return figure
