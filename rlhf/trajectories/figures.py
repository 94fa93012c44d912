"""Pictures of a learned reward: its agreement with the hidden one, and where the cart is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rlhf.trajectories.evaluate import Agreement


def figure(found: Agreement | None, positions: dict[str, np.ndarray]) -> Figure:
    """Two panels.

    Args:
        found: sums of held-out segments; None where no reward was learned.
        positions: the cart's positions under named policies.
    """
    from labkit.show.pictures import new_figure

    chart = new_figure(9, 3.8)
    left, right = chart.subplots(1, 2)
    if found is not None:
        left.scatter(found.true, found.learned, s=4, alpha=0.3)
        left.set(
            xlabel="hidden reward of a segment", ylabel="learned reward",
            title=f"held-out segments: rank correlation {found.rank_correlation:.2f}",
        )  # fmt: skip
    for name, x in positions.items():
        right.hist(x, bins=np.linspace(-2.4, 2.4, 49).tolist(), density=True, alpha=0.6, label=name)
    right.set(xlabel="position of the cart", title="where the time is spent")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return chart
