"""Two figures for `gradient_descent`: the paths over the loss surface, and steps against κ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labkit.show.pictures import new_figure
from math_ml.gradient_descent import (
    Method,
    Quadratic,
    best_rates,
    condition_number,
    conjugate_gradient_path,
    extreme_eigenvalues,
    gradient_descent,
    predicted_steps,
    steps_needed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray
STYLES: dict[Method, tuple[str, str]] = {
    "gradient descent": ("tab:red", "o"),
    "momentum": ("tab:orange", "s"),
    "conjugate gradient": ("tab:blue", "D"),
}


def paths(f: Quadratic, start: Array, steps: int) -> dict[Method, Array]:
    """Each method's path (steps + 1, D) with its best rates from one start; the last is short."""
    low, high = extreme_eigenvalues(f.a)
    walked: dict[Method, Array] = {}
    for method in ("gradient descent", "momentum"):
        rate, momentum = best_rates(low, high, method)
        walked[method] = gradient_descent(f, start, steps, rate, momentum)
    return walked | {"conjugate gradient": conjugate_gradient_path(f, start)}


def surface(
    f: Quadratic, start: Array, steps: int = 40, names: tuple[str, str] = ("$w_0$", "$w_1$")
) -> Figure:
    """Left: contours of f over two weights, with the three paths. Right: the remaining loss."""
    walked, best = paths(f, start, steps), f.minimum()
    figure = new_figure(11, 4.8)
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
    _contours(left, f, np.concatenate(list(walked.values())))
    first = f(start) - f(best)
    for method, path in walked.items():
        color, marker = STYLES[method]
        left.plot(*path.T, color=color, marker=marker, ms=3.5, lw=1.3, label=method)
        left_over = np.maximum((f(path) - f(best)) / first, 1e-16)
        right.plot(left_over, color=color, marker=marker, ms=3.5, lw=1.3, label=method)
    left.plot(*best, marker="*", ms=14, color="black", mec="white", ls="", zorder=5)
    left.set(xlabel=names[0], ylabel=names[1], aspect="equal")
    left.set_title(f"condition number {condition_number(f.a):,.0f}", fontsize=10)
    right.set(yscale="log", xlabel="step", ylabel="loss above the least, of the first")
    right.set_ylim(bottom=1e-12)
    right.grid(alpha=0.3)
    right.legend()
    return figure


def _contours(axes: Axes, f: Quadratic, points: Array) -> None:
    """Contours of f, denser near its minimum, around all the points (n, 2)."""
    low, high = points.min(axis=0), points.max(axis=0)
    pad = 0.12 * (high - low) + 1e-9
    x, y = (np.linspace(a, b, 200) for a, b in zip(low - pad, high + pad, strict=True))
    z = f(np.stack(np.meshgrid(x, y), axis=-1)) - f(f.minimum())
    levels = z.max() * np.linspace(0.03, 1, 16) ** 2
    axes.contourf(x, y, z, levels=[0, *levels], cmap="Greys", alpha=0.35)
    axes.contour(x, y, z, levels=levels, colors="grey", linewidths=0.6)


def spectrum(condition: float, size: int = 1000) -> Array:
    """Eigenvalues from 1 to κ, (size,), crowded towards both ends like Chebyshev's points.

    Evenly spread ones would make conjugate gradient look too good: it removes the outermost first.
    """
    middle, half = (condition + 1) / 2, (condition - 1) / 2
    return middle - half * np.cos(np.linspace(0, np.pi, size))


def steps_against_condition(
    conditions: tuple[float, ...] = (3, 10, 30, 100, 300, 1000, 3000), reduction: float = 1e-6
) -> Figure:
    """Steps until `reduction` of the first error is left: measured (marks), predicted (lines)."""
    figure = new_figure(6.8, 4.8)
    axes = figure.add_subplot()
    line = np.geomspace(conditions[0], conditions[-1], 50)
    for method, (color, marker) in STYLES.items():
        counts = [steps_needed(spectrum(k), reduction, method) for k in conditions]
        axes.plot(conditions, counts, color=color, marker=marker, ls="", ms=7, label=method)
        if method != "momentum":
            theory = [predicted_steps(k, reduction, method) for k in line]
            axes.plot(line, theory, color=color, lw=1.2)
    axes.set(xscale="log", yscale="log", xlabel="condition number κ")
    axes.set_ylabel(f"steps until {reduction:g} of the error is left")
    axes.set_title("lines: predicted, about ½ κ ln(1/ε) and ½ √κ ln(1/ε)", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure
