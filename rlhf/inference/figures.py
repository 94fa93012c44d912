"""Accuracy against tokens spent on a question, beside accuracy against computation in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
        curve: (operations of further training, accuracy of greedy answers after them); the first
            is before it.
        questions: the right panel shows the operations for so many questions.
    """
    from labkit.show.pictures import new_figure

    chart = new_figure(11, 4.4)
    left, right = chart.subplots(1, 2, sharey=True)
    for i, name in enumerate(METHODS):
        found = [point for point in points if point.method == name]
        reached = [point.accuracy for point in found]
        color, line = ("0.5", "--") if i == 0 else (f"C{i}", "-")
        style: dict[str, Any] = {"color": color, "ls": line, "marker": "o", "ms": 4}
        left.plot([point.tokens for point in found], reached, label=name, **style)
        if i:  # nobody has the perfect judge of the first one
            right.plot([questions * point.flops for point in found], reached, **style)
    for greedy in (point for point in points if point.method == "greedy"):
        left.plot(greedy.tokens, greedy.accuracy, "k*", ms=12, label="greedy")
        right.plot(questions * greedy.flops, greedy.accuracy, "k*", ms=12)
    right.plot(*zip(*curve[1:], strict=True), "k-", lw=2, label="more training, greedy answers")
    left.set(xscale="log", xlabel="tokens drawn for a question", ylabel="right answers (%)")
    right.set(xscale="log")
    right.set_xlabel(f"operations: training, or {questions:,.0f} questions")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return chart
