"""Pictures of a run, from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit.show.pictures import new_figure

COLOURS = ("#4c72b0", "#dd8452", "#55a868")
"""Of the phases 0, 1 and 2."""


def attention_map(pattern: np.ndarray, tokens: Sequence[int], title: str) -> Any:
    """Attention of one head on one row, (T, T): queries downwards, keys to the right."""
    figure = new_figure(5.4, 5.0)
    axes = figure.add_subplot()
    axes.imshow(pattern, cmap="viridis", vmin=0, vmax=1)
    step = max(1, len(tokens) // 32)
    places = range(0, len(tokens), step)
    axes.set_xticks(places, [str(tokens[i]) for i in places], fontsize=6, rotation=90)
    axes.set_yticks(places, [str(tokens[i]) for i in places], fontsize=6)
    axes.set(xlabel="key", ylabel="query", title=title)
    return figure


def restoration(values: np.ndarray, source: int) -> Any:
    """Restored share for heads (layers, H) and positions (T): a row for each head."""
    layers, heads, length = values.shape
    figure = new_figure(7.2, 0.8 + 0.28 * layers * heads)
    axes = figure.add_subplot()
    image = axes.imshow(values.reshape(-1, length), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    names = [f"head {i}.{h}" for i in range(layers) for h in range(heads)]
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel(f"position patched (differs at {source - 1}, answer at {source})")
    axes.locator_params(axis="x", integer=True)
    figure.colorbar(image, ax=axes, label="restored")
    return figure


def bars(names: Sequence[str], values: Sequence[float], label: str, base: float = 0.0) -> Any:
    """One bar for each head, with a line at what the whole model has."""
    figure = new_figure(max(5.2, 0.5 * len(names)), 3.2)
    axes = figure.add_subplot()
    axes.bar(range(len(names)), values, color=COLOURS[0])
    axes.axhline(base, color="0.4", ls="--", lw=1)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_ylabel(label)
    return figure


def phases(
    trained: np.ndarray, theory: np.ndarray, density: Sequence[float], importance: Sequence[float],
    names: Sequence[str],
) -> Any:  # fmt: skip
    """Phase diagrams (cells, cells), densities downwards and importances to the right."""
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch

    figure = new_figure(8.4, 4.4)
    colours = ("0.85", *COLOURS)  # -1: neither feature
    cmap, norm = ListedColormap(colours), BoundaryNorm([-1.5, -0.5, 0.5, 1.5, 2.5], 4)
    marks = np.linspace(0, len(density) - 1, min(5, len(density))).round().astype(int)
    for place, (title, values) in enumerate((("trained", trained), ("theory", theory))):
        axes = figure.add_subplot(1, 2, place + 1)
        axes.imshow(values, cmap=cmap, norm=norm)
        axes.set_xticks(marks, [f"{importance[i]:.2g}" for i in marks])
        axes.set_yticks(marks, [f"{density[i]:.2g}" for i in marks])
        axes.set(title=title, xlabel="importance of the second feature", ylabel="density")
    handles = [Patch(color=c, label=n) for c, n in zip(COLOURS, names, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def geometry(weights: np.ndarray, density: Sequence[float], shares: np.ndarray) -> Any:
    """Directions of the features in two dimensions, a panel for each density.

    weights (D, 2, n), and the dimensionalities (D, n).
    """
    columns = min(5, len(density))
    rows = -(-len(density) // columns)
    figure = new_figure(1.9 * columns, 2.2 * rows)
    reach = 1.15 * max(1.0, float(np.abs(weights).max()))
    for i, directions in enumerate(weights):
        axes = figure.add_subplot(rows, columns, i + 1)
        for x, y in directions.T:
            axes.plot([0, x], [0, y], color=COLOURS[0], lw=1.5)
            axes.plot(x, y, "o", color=COLOURS[1], ms=4)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
        axes.set_title(f"density {density[i]:.2g}\nlargest share {shares[i].max():.2f}", fontsize=8)
    return figure


def cosines(trained: np.ndarray, untrained: np.ndarray) -> Any:
    """Histograms of each true feature's largest cosine, of a trained and a random dictionary."""
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    bins = np.linspace(0, 1, 41).tolist()
    axes.hist(untrained, bins=bins, color="0.7", label="random dictionary")
    axes.hist(trained, bins=bins, color=COLOURS[0], alpha=0.8, label="trained")
    axes.set(xlabel="largest cosine similarity with a direction", ylabel="true features")
    axes.legend(loc="upper left")
    return figure


def lens(losses: Sequence[float], label: str = "logit lens") -> Any:
    """Loss when the stream ends after 0, 1, ... layers."""
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    axes.plot(range(len(losses)), losses, marker="o", color=COLOURS[0], label=label)
    axes.set_xticks(range(len(losses)))
    axes.set(xlabel="layers read", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
