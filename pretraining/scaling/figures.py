"""One picture of scaling laws: the frontier, losses at equal compute, and the best size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.show.pictures import new_figure
from pretraining.powerlaw import PUBLISHED, Law, compute_optimal
from pretraining.scaling.estimates import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(runs: Runs, law: Law, draws: list[Law]) -> Figure:
    """Three panels; bands hold 90 % of the bootstrap's laws."""
    canvas = new_figure(13.5, 4.4)
    panels = canvas.subplots(1, 3)
    frontier_panel(panels[0], runs, law, draws)
    isoflop_panel(panels[1], runs)
    best_size_panel(panels[2], runs, law, draws)
    for axes in panels:
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    return canvas


def frontier_panel(axes: Any, runs: Runs, law: Law, draws: list[Law]) -> None:
    """Loss against compute: a line for each size through the means of its repeats, and the least
    loss that the law predicts.
    """
    for n in sorted(set(runs.n.tolist())):
        here = runs.only(runs.n == n)
        means = [here.loss[here.compute == budget].mean() for budget in here.budgets]
        (line,) = axes.plot(here.budgets, means, linewidth=0.9, label=_si(n))
        axes.plot(here.compute, here.loss, "o", color=line.get_color(), markersize=3)
    if law.falls:
        compute = _range(runs)
        lines = [other(*compute_optimal(other, compute)) for other in draws if other.falls]
        axes.plot(compute, law(*compute_optimal(law, compute)), "k", label="L(N_opt, D_opt)")
        axes.fill_between(compute, *np.quantile(lines, [0.05, 0.95], axis=0), color="k", alpha=0.15)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = np.arange(1.0, 5.0, 0.2)
    ticks = ticks[(ticks > 0.9 * runs.loss.min()) & (ticks < 1.05 * runs.loss.max())]
    axes.set_yticks(ticks, [f"{tick:.1f}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("compute C = 6 N D (FLOPs)")
    axes.set_ylabel("validation loss (nats per character)")
    axes.set_title("each size by itself, and the frontier", fontsize=9)


def isoflop_panel(axes: Any, runs: Runs) -> None:
    """Loss against size at equal compute, with the parabolas and their lowest points."""
    lowest = {budget: (n, loss) for budget, n, loss in runs.minima()}
    for budget in runs.budgets:
        here = runs.only(runs.compute == budget)
        (line,) = axes.plot(here.n, here.loss, "o", markersize=4, label=f"{budget:.2g} FLOPs")
        log_n = np.log(here.n)
        curve = np.polynomial.Polynomial.fit(log_n, here.loss, 2)
        fine = np.linspace(log_n.min(), log_n.max(), 50)
        axes.plot(np.exp(fine), curve(fine), color=line.get_color(), linewidth=0.9)
        if budget in lowest:
            axes.plot(*lowest[budget], "*", color=line.get_color(), markersize=11)
    sizes = sorted(set(runs.n.tolist()))
    axes.set_xscale("log")
    axes.set_xticks(sizes, [_si(n) for n in sizes], fontsize=7, rotation=45)
    axes.minorticks_off()
    axes.set_xlabel("parameters N")
    axes.set_title("equal compute: the best size is a minimum", fontsize=9)


def best_size_panel(axes: Any, runs: Runs, law: Law, draws: list[Law]) -> None:
    """N_opt against C: minima of the parabolas; the law, if it has a best size; and the two
    published slopes through its middle.
    """
    minima = np.array(list(runs.minima()))
    if len(minima):
        axes.plot(minima[:, 0], minima[:, 1], "*", markersize=11, label="minima of the parabolas")
    if law.falls:
        compute = _range(runs)
        best = compute_optimal(law, compute)[0]
        lines = [compute_optimal(other, compute)[0] for other in draws if other.falls]
        alpha, beta = law.exponents
        axes.plot(compute, best, "k", label=f"law: C^{beta / (alpha + beta):.2f}")
        axes.fill_between(compute, *np.quantile(lines, [0.05, 0.95], axis=0), color="k", alpha=0.15)
        for name, key in (("Kaplan", "kaplan_N_opt"), ("Hoffmann", "chinchilla_N_opt")):
            middle = len(compute) // 2
            through = best[middle] * (compute / compute[middle]) ** PUBLISHED[key]
            axes.plot(
                compute, through, "--", linewidth=0.9, label=f"{name}: C^{PUBLISHED[key]:.2f}"
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("compute C (FLOPs)")
    axes.set_ylabel("best N")
    axes.set_title("how the best size grows", fontsize=9)


def _range(runs: Runs) -> np.ndarray:
    """Compute from the smallest budget to three times the largest."""
    return np.geomspace(runs.budgets[0], 3 * runs.budgets[-1], 60)


def _si(n: float) -> str:
    """8224 -> `8.2k`."""
    return f"{n / 1e6:.2g}M" if n >= 1e6 else f"{n / 1e3:.3g}k"
