"""Pictures of a run, from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit.show.pictures import new_figure, to_uint8


def rankings(queries: Sequence[str], pictures: Any, right: np.ndarray) -> Any:
    """The best pictures for each caption, from left to right; the right one in a green frame.

    Args:
        queries: Q captions.
        pictures: uint8 (Q, K, 3, S, S).
        right: bool (Q, K).
    """
    rows, columns = right.shape
    figure = new_figure(2.6 + columns, 1.08 * rows)
    figure.set_layout_engine("none")
    share, height = 2.6 / (2.6 + columns), 1 / rows
    for i, query in enumerate(queries):
        top = 1 - (i + 1) * height
        words = query.split()
        half = (len(words) + 1) // 2 if len(query) > 28 else len(words)
        lines = " ".join(words[:half]) + "\n" + " ".join(words[half:])
        figure.text(0.01, top + height / 2, lines.strip(), fontsize=9, va="center")
        for j in range(columns):
            width = (1 - share) / columns
            axes = figure.add_axes((share + j * width, top + 0.01, width * 0.94, height * 0.92))
            axes.imshow(to_uint8(pictures[i][j]), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(color="limegreen" if right[i, j] else "0.6", lw=3 if right[i, j] else 0.5)
    return figure


def similarities(cosines: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Any:
    """Cosines (R, C) of pictures (rows) and captions (columns) as a heat map."""
    figure = new_figure(2.2 + 0.3 * len(columns), 1.6 + 0.3 * len(rows))
    axes = figure.add_subplot()
    image = axes.imshow(cosines, cmap="viridis")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set(xlabel="caption", ylabel="picture")
    figure.colorbar(image, label="cosine", shrink=0.8)
    return figure
