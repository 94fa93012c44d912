"""Pictures of a run, from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cross_frontiers.folding.evaluate import top_pairs
from labkit.show.pictures import new_figure


def contact_maps(maps: Mapping[str, np.ndarray], contacts: np.ndarray | None) -> Any:
    """One map (L, L) a panel: below the diagonal the scores, above it the L best pairs, and in grey
    the true contacts, where they are known.
    """
    figure = new_figure(3.1 * len(maps), 3.4)
    for panel, (title, scores) in enumerate(maps.items(), 1):
        axes = figure.add_subplot(1, len(maps), panel)
        length = len(scores)
        rank = scores.ravel().argsort().argsort().reshape(scores.shape) / scores.size
        lower = np.tril(np.ones((length, length), bool), -1)
        axes.imshow(np.where(lower, rank**4, np.nan), cmap="Blues", vmin=0, vmax=1)
        size = max(0.5, 90 / length)
        if contacts is not None:
            first, second = np.nonzero(np.triu(contacts, 1))
            axes.plot(second, first, "s", color="0.75", ms=1.4 * size, mew=0)
        pairs = sorted(top_pairs(scores))
        right = [contacts is None or bool(contacts[pair]) for pair in pairs]
        for good, colour in ((True, "tab:green"), (False, "tab:red")):
            chosen = [pair for pair, fits in zip(pairs, right, strict=True) if fits == good]
            if chosen:
                rows, columns = zip(*chosen, strict=True)
                axes.plot(columns, rows, "o", color=colour, ms=0.8 * size, mew=0)
        axes.set_title(title, fontsize=9)
        axes.set(xticks=[], yticks=[])
    return figure


def traces(structures: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Any:
    """CA traces, one panel each: title, predicted and true points (L, 3), already superposed. Seen
    along the direction in which the true structure is thinnest.
    """
    figure = new_figure(3.4 * len(structures), 3.7)
    for panel, (title, predicted, true) in enumerate(structures, 1):
        axes = figure.add_subplot(1, len(structures), panel)
        centre = true.mean(axis=0)
        view = np.linalg.svd(true - centre, full_matrices=False)[2][:2].T
        for points, style in ((true, {"color": "0.7", "lw": 4}), (predicted, {"lw": 1.2})):
            x, y = ((points - centre) @ view).T
            label = "true" if points is true else "predicted"
            axes.plot(x, y, label=label, solid_joinstyle="round", **style)
        axes.set_title(title, fontsize=9)
        axes.set_aspect("equal")
        axes.axis("off")
        if panel == 1:
            axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    return figure
