"""The table of ways to answer, and the metrics of the run.

start_accuracy       greedy answers of the model as it came (%)
majority_accuracy    majority vote over all answers drawn (%)
verifier_accuracy    the answer that the learned verifier scores highest (%)
weighted_accuracy    votes weighted by the verifier (%)
tree_accuracy        tree search with the largest budget (%)
pass_accuracy        some answer is right (%): what perfect choosing would reach
trained_accuracy     greedy answers after further training (%)
break_even           questions after which further training, up to the accuracy of the weighted
                     vote, costs less than the vote; 0 when training did not reach it
"""

from __future__ import annotations

from collections.abc import Sequence

from labkit import Run
from labkit.show.console import say
from rlhf.inference.figures import figure
from rlhf.inference.measure import Point, training_needed

NAMES = {
    "majority_accuracy": "majority vote",
    "verifier_accuracy": "verifier",
    "weighted_accuracy": "weighted vote",
    "likelihood_accuracy": "likelihood",
    "tree_accuracy": "tree search",
    "pass_accuracy": "any right (pass@n)",
}


def report(
    run: Run, points: Sequence[Point], curve: Sequence[tuple[float, float]], verifying: float
) -> dict[str, float]:
    """The run's metrics; draws samples/inference.png and writes samples/inference.txt.

    `verifying` counts the operations of the verifier's training.
    """
    greedy = next(point for point in points if point.method == "greedy")
    best = {key: [p for p in points if p.method == name][-1] for key, name in NAMES.items()}
    vote = best["weighted_accuracy"]
    needed = training_needed(list(curve), vote.accuracy)
    extra = vote.flops - greedy.flops
    questions = needed / extra if needed is not None and extra > 0 else 0.0
    text = table(points, curve)
    text += f"\n\n{'the verifier was trained with':32}{verifying:13.3g}"
    say(text)
    if run.writes:
        folder = run.dir / "samples"
        folder.mkdir(exist_ok=True)
        (folder / "inference.txt").write_text(text + "\n", encoding="utf-8")
    run.figure("inference", figure(points, curve, max(1.0, round(questions))))
    return {
        "weighted_accuracy": vote.accuracy,
        **{key: point.accuracy for key, point in best.items()},
        "start_accuracy": greedy.accuracy,
        "trained_accuracy": curve[-1][1],
        "break_even": questions,
    }


def table(points: Sequence[Point], curve: Sequence[tuple[float, float]]) -> str:
    """All points, then the training curve, in columns."""
    lines = [f"{'way to answer':20} {'n':>4} {'tokens':>8} {'operations':>11} {'right':>7}"]
    for p in sorted(points, key=lambda p: (p.method, p.n)):
        lines.append(f"{p.method:20} {p.n:4} {p.tokens:8.1f} {p.flops:11.3g} {p.accuracy:6.1f} %")
    lines += ["", f"{'further training':20} {'operations':>25} {'right':>7}"]
    lines += [f"{'':20} {flops:25.3g} {reached:6.1f} %" for flops, reached in curve]
    return "\n".join(lines)
