"""From validation losses to exponents with intervals, a table and a picture.

The intervals leave out 5 % of a residual bootstrap on each side: they show how far the noise of the
runs moves an exponent, not whether the law holds elsewhere.
"""

from collections.abc import Sequence

import numpy as np

from labkit import Run
from labkit.show.console import say
from pretraining.powerlaw import PUBLISHED, Law, compute_optimal, interval, resample
from pretraining.scaling.estimates import Runs, estimates, extrapolation_error
from pretraining.scaling.figures import figure
from pretraining.scaling.ladder import Training

ROWS = {
    "alpha": ("α of E + A/N^α + B/D^β", f"{PUBLISHED['alpha']} Hoffmann"),
    "beta": ("β of E + A/N^α + B/D^β", f"{PUBLISHED['beta']} Hoffmann"),
    "irreducible": ("E, nats per character", ""),
    "n_opt_law": ("a of N_opt ~ C^a, from the law", "0.46 Hoffmann, approach 3"),
    "n_opt_parabola": ("a of N_opt ~ C^a, from parabolas",
                       f"{PUBLISHED['kaplan_N_opt']} Kaplan, 0.49 Hoffmann, approach 2"),
    "slope_n": ("slope of L(N) in the middle", f"{PUBLISHED['alpha_N']} Kaplan"),
    "slope_d": ("slope of L(D) in the middle", f"{PUBLISHED['alpha_D']} Kaplan"),
    "slope_c": ("slope of L(C) along the minima", f"{PUBLISHED['alpha_C']:.3f} Kaplan"),
}  # fmt: skip
"""Each estimate in words, and what was published for large models on other text."""


def report(
    run: Run, trainings: Sequence[Training], losses: Sequence[float], draws: int
) -> dict[str, float]:
    """The run's metrics; draws samples/scaling.png and writes samples/scaling.txt.

    A ladder that was cut short (debug=default) has no law: then only the number of trainings.
    """
    runs = Runs(
        np.array([t.parameters for t in trainings], float),
        np.array([t.tokens for t in trainings], float),
        np.array([t.compute for t in trainings], float),
        np.array(losses, float),
    )
    metrics = {"trainings": float(len(losses))}
    if len(runs.budgets) < 3:
        return metrics
    law, found = estimates(runs)
    fitted = law(runs.n, runs.d)
    other = [
        estimates(Runs(runs.n, runs.d, runs.compute, loss), start=law)
        for loss in resample(runs.loss, fitted, 5, draws, run.seed)
    ]
    drawn = {key: [e[key] for _, e in other if key in e] for key in found}
    found = {key: value for key, value in found.items() if len(drawn[key]) > draws / 2}
    intervals = {key: interval(drawn[key]) for key in found}
    metrics |= found
    for key, (low, high) in intervals.items():
        metrics |= {f"{key}_low": low, f"{key}_high": high}
    metrics["extrapolation_error"] = extrapolation_error(runs)
    metrics["fit_error"] = float(np.abs(fitted - runs.loss).mean())
    text = table(runs, law, found, intervals, metrics)
    say(text)
    if run.writes:
        folder = run.dir / "samples"
        folder.mkdir(exist_ok=True)
        (folder / "scaling.txt").write_text(text + "\n", encoding="utf-8")
    run.figure("scaling", figure(runs, law, [other_law for other_law, _ in other]))
    return metrics


def table(
    runs: Runs,
    law: Law,
    found: dict[str, float],
    intervals: dict[str, tuple[float, float]],
    metrics: dict[str, float],
) -> str:
    """Runs and exponents, in columns."""
    lines = [f"{'budget C':>9} {'N':>10} {'D':>12} {'D/N':>7} {'loss':>8} {'law':>8}"]
    rows = zip(runs.compute, runs.n, runs.d, runs.loss, law(runs.n, runs.d), strict=True)
    for compute, n, d, loss, fitted in rows:
        lines.append(f"{compute:9.2g} {n:10,.0f} {d:12,.0f} {d / n:7.1f} {loss:8.4f} {fitted:8.4f}")
    lines += ["", f"{'':36} {'here':>7}  {'90 % of draws':16} published"]
    for key, (title, published) in ROWS.items():
        if key in found:
            low, high = intervals[key]
            span = f"{low:.3f} to {high:.3f}"
            lines.append(f"{title:36} {found[key]:7.3f}  {span:16} {published}".rstrip())
        else:
            lines.append(f"{title:36} no minimum, or in too few of the draws")
    if law.falls:
        lines += frontier_table(law, runs.budgets)
    lines += [
        "",
        f"largest budget, predicted from the others: off by "
        f"{metrics['extrapolation_error']:.4f} nats; fit to all: {metrics['fit_error']:.4f}",
    ]
    return "\n".join(lines)


def frontier_table(law: Law, budgets: list[float]) -> list[str]:
    """The best size for each budget, and for ten times the largest."""
    lines = ["", f"{'C':>9} {'best N (law)':>13} {'best D':>12} {'D/N':>7} {'loss':>8}"]
    for compute in (*budgets, 10 * budgets[-1]):
        n, d = compute_optimal(law, compute)
        row = f"{compute:9.2g} {n:13,.0f} {d:12,.0f} {d / n:7.1f} {float(law(n, d)):8.4f}"
        lines.append(row + ("   (extrapolated)" if compute > budgets[-1] else ""))
    return lines
