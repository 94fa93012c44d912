"""Accuracy against tokens spent on a question, beside accuracy against computation in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rlhf.inference.measure import Point

METHODS = ("any right (pass@n)", "weighted vote", "verifier", "tree search", "majority vote",
           "likelihood")  # fmt: skip


def figure(
    points: Sequence[Point], curve: Sequence[tuple[float, float]], questions: float
) -> Figure:
    """Two panels with one axis of accuracy.

    Args:
        points: of all ways to answer, `greedy` among them.
        curve: (operations of further training, accuracy of greedy answers after them).
        questions: the right panel shows the operations for so many questions.
    """
    from labkit.show.pictures import new_figure

    chart = new_figure(11, 4.4)
    left, middle = chart.subplots(1, 2, sharey=True)
    for i, name in enumerate(METHODS):
        found = [point for point in points if point.method == name]
        style = {"ls": "--", "color": "0.5"} if i == 0 else {"color": f"C{i}"}
        left.plot([p.tokens for p in found], [p.accuracy for p in found], "o-", ms=4, label=name,
                  **style)  # fmt: skip
        if i:  # nobody has a perfect judge to choose by
            total = [questions * p.flops for p in found]
            middle.plot(total, [p.accuracy for p in found], "o-", ms=4, **style)
    for greedy in (point for point in points if point.method == "greedy"):
        left.plot(greedy.tokens, greedy.accuracy, "k*", ms=12, label="greedy")
        middle.plot(questions * greedy.flops, greedy.accuracy, "k*", ms=12)
    middle.plot(*zip(*curve, strict=True), "k-", lw=2, label="more training, greedy answers")
    left.set(xscale="log", xlabel="tokens drawn for a question", ylabel="right answers (%)")
    middle.set(xscale="log")
    middle.set_xlabel(f"operations: training, or {questions:,.0f} questions")
    for axes in (left, middle):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return chart
