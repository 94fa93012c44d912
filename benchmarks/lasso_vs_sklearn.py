"""Week 1's lasso against scikit-learn's: seconds to the same duality gap.

    python benchmarks/lasso_vs_sklearn.py [--turns 7] [--rows 10000] [--columns 500] [--threads 1]

Equal on both sides: the table (float64, C order), α, the tolerance (gap ≤ tol · ‖y - mean y‖²/N),
the intercept, and the number of BLAS threads. scikit-learn runs with its defaults, and once more
with `precompute=True`; the faster of the two is what ours is held against, case by case. The gap of
both is computed anew here, from the rows, and printed. Sides are run in turns, ours first every
other time. Designs: independent columns, and neighbours correlated by 0.9; 50 true weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from sklearn.linear_model import Lasso
from threadpoolctl import threadpool_limits

from math_ml.lasso import alpha_max, fit_lasso

Fit = Callable[[], tuple[np.ndarray, float]]
"""Weights and intercept."""


def design(rows: int, columns: int, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """Columns where neighbours correlate, 50 of them with a weight, noise of deviation 2."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, columns))
    for j in range(1, columns):
        x[:, j] = correlation * x[:, j - 1] + (1 - correlation**2) ** 0.5 * x[:, j]
    weights = np.zeros(columns)
    weights[rng.choice(columns, min(50, columns), replace=False)] = rng.standard_normal(
        min(50, columns)
    )
    return x, x @ weights + 2 * rng.standard_normal(rows)


def gap(x: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: float, alpha: float) -> float:
    """Duality gap over ‖y - mean y‖²/N, from the residuals themselves."""
    r, n = y - x @ coef - intercept, len(y)
    shrink = min(1.0, alpha * n / np.abs((x - x.mean(axis=0)).T @ r).max())
    primal = r @ r / 2 + alpha * n * np.abs(coef).sum()
    dual = shrink * (r @ (y - y.mean())) - shrink**2 * (r @ r) / 2
    return float((primal - dual) / ((y - y.mean()) @ (y - y.mean())))


def theirs(x: np.ndarray, y: np.ndarray, alpha: float, tol: float, precompute: bool) -> Fit:
    def fit() -> tuple[np.ndarray, float]:
        peer = Lasso(alpha, tol=tol, precompute=precompute, max_iter=100_000).fit(x, y)
        return peer.coef_, float(peer.intercept_)

    return fit


def ours(x: np.ndarray, y: np.ndarray, alpha: float, tol: float) -> Fit:
    def fit() -> tuple[np.ndarray, float]:
        model = fit_lasso(x, y, alpha, tol)
        return model.coef, model.intercept

    return fit


def race(fits: dict[str, Fit], turns: int) -> dict[str, list[float]]:
    """Seconds of each side in each turn; one run of each beforehand is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in fits}
    for turn in range(-1, turns):
        for name in list(fits)[:: 1 if turn % 2 == 0 else -1]:
            begun = time.perf_counter()
            fits[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("turns", 7), ("rows", 10_000), ("columns", 500), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tol", type=float, default=1e-6)
    args = parser.parse_args()
    threadpool_limits(args.threads)
    print(f"{args.rows} x {args.columns}, tol {args.tol:g}, {args.threads} thread(s)")
    for correlation in (0.0, 0.9):
        x, y = design(args.rows, args.columns, correlation)
        for share in (0.1, 0.01):
            alpha = share * alpha_max(x, y)
            fits = {
                "ours": ours(x, y, alpha, args.tol),
                "scikit-learn": theirs(x, y, alpha, args.tol, precompute=False),
                "precompute=True": theirs(x, y, alpha, args.tol, precompute=True),
            }
            seconds = race(fits, args.turns)
            print(f"\ncorrelation {correlation}, alpha {share:g} of the largest")
            for name, fit in fits.items():
                coef, intercept = fit()
                print(
                    f"  {name:16} {spread(seconds[name], 3)} s   gap "
                    f"{gap(x, y, coef, intercept, alpha):.1e}   {np.count_nonzero(coef)} weights",
                    flush=True,
                )
            peers = ("scikit-learn", "precompute=True")
            best = min(peers, key=lambda name: statistics.median(seconds[name]))
            for peer in dict.fromkeys(("scikit-learn", best)):
                pairs = zip(seconds["ours"], seconds[peer], strict=True)
                ratio = spread([own / other for own, other in pairs], 2)
                print(f"  ours takes {ratio} times as long as {peer}: median and range")


if __name__ == "__main__":
    main()
