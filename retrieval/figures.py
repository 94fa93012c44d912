"""Pictures of a search's quality and of what an index saves."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from labkit.show.pictures import new_figure


def bars(values: Mapping[str, float], label: str) -> Figure:
    """One bar for each name, with its number."""
    figure = new_figure(7, 0.6 + 0.5 * len(values))
    axes = figure.add_subplot()
    drawn = axes.barh(list(values), list(values.values()), color="#4477aa")
    axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(values.values(), default=1.0) or 1)
    axes.set_xlabel(label)
    return figure


def trade(curve: Sequence[tuple[float, float]], chosen: tuple[float, float]) -> Figure:
    """Recall of the inverted file against its comparisons, both in %; `chosen` is marked."""
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    axes.plot(*zip(*curve, strict=True), "o-", color="#4477aa", label="lists probed: 1, 2, 4, ...")
    axes.plot(*chosen, "s", color="#cc6677", markersize=10, label="chosen on validation")
    axes.set_xlabel("comparisons, % of exact search")
    axes.set_ylabel("recall@10 against exact search, %")
    axes.legend()
    return figure
