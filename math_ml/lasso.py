"""The lasso: least squares with an L1 penalty, which makes most weights exactly 0.

    P(w) = 1/(2N) ‖y - x w - b‖² + α ‖w‖₁         (scikit-learn's scale; b is not penalised)

Two methods: one coordinate at a time, each to its minimum (Friedman, Hastie, Tibshirani 2010,
"Regularization Paths for Generalized Linear Models via Coordinate Descent", section 2: covariance
updates, active set, warm starts), and proximal gradient (Beck and Teboulle 2009, "A Fast Iterative
Shrinkage-Thresholding Algorithm", sections 1 and 4). Both stop at a proven distance from the
optimum: the duality gap.

After the first pass over the rows, everything is computed from G = xᵀx/N and c = xᵀy/N. Only
those rows of G are computed whose columns were ever in the working set. Letters: N rows, D columns,
A columns in the working set.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from labkit import exercise
from math_ml import checks, linear
from math_ml.model import LinearModel

Array = np.ndarray


@dataclass(frozen=True)
class LassoFit(LinearModel):
    """A lasso fit, with the duality gap at which it stopped and the sweeps or steps it took."""

    gap: float
    iterations: int


@exercise(minutes=5)
def soft_threshold(z: Array, threshold: float) -> Array:
    """The proximal map of threshold · ‖·‖₁: every entry moves towards 0 by `threshold`, at most
    to 0.

        S(z, t) = sign(z) max(|z| - t, 0)

    Args:
        z: any shape; not changed.
        threshold: t, 0 or more.
    Returns:
        S(z, t), of the shape of z; exact zeros where |z| <= t. float32 stays float32; whole numbers
        become float64, since t need not be whole.
    """
    return np.sign(z) * np.maximum(np.abs(z) - threshold, 0.0)


@exercise(minutes=20)
def coordinate_sweep(w: Array, g: Array, gram: Array, alpha: float) -> None:
    """One pass of coordinate descent for ½ wᵀGw - cᵀw + α ‖w‖₁, in place.

    For j = 0, 1, ... in order, w_j moves to where P is least with all other weights fixed:

        z = g_j + G_jj w_j        w_j ← sign(z) max(|z| - α, 0) / G_jj

    where g = c - G w is minus the gradient of the smooth part. Keep g up to date: after each move
    by δ = w_j(new) - w_j(old), g ← g - δ G[j]. This "covariance update" costs A operations;
    computing the gradient again would cost A² (or a pass over all the rows).

    Args:
        w: weights, (A,) float64; changed in place.
        g: c - G w for the w given, (A,) float64; changed in place to c - G w for the new w.
        gram: G, (A, A), symmetric; not changed. A column whose G_jj is 0 is left alone.
        alpha: α, 0 or more.
    """
    diagonal = gram.diagonal().tolist()  # Python floats: single numbers are slow in NumPy
    for j, old in enumerate(w.tolist()):
        scale = diagonal[j]
        if scale <= 0:
            continue
        z = g.item(j) + scale * old
        size = abs(z) - alpha
        new = math.copysign(size, z) / scale if size > 0 else 0.0
        if new != old:
            g -= (new - old) * gram[j]
            w[j] = new


def duality_gap(yy: float, w: Array, c: Array, g: Array, alpha: float) -> float:
    """An upper bound on how far P(w) is above its minimum: P(w) minus the value of a dual point.

    The residual r = y - x w, shrunk by s until no column correlates with it more than α, is a dual
    point, and its value s rᵀy/N - s² rᵀr/(2N) lies below every P. All of it follows from
    yy = yᵀy/N, c = xᵀy/N and g = xᵀr/N over the same columns as w.
    """
    fitted = float(w @ c)  # wᵀxᵀy/N
    rr = max(yy - fitted - float(w @ g), 0.0)  # rᵀr/N
    largest = float(np.abs(g).max())
    s = min(1.0, alpha / largest) if largest > 0 else 1.0
    primal = 0.5 * rr + alpha * float(np.abs(w).sum())
    return primal - (s * (yy - fitted) - 0.5 * s * s * rr)


def alpha_max(x: Array, y: Array) -> float:
    """The smallest α at which every weight is 0: max_j |x_jᵀy|/N of the centred columns."""
    x, y, _, _ = linear.centred(x, y)
    return float(np.abs(x.T @ y).max()) / len(x)


class Covariances:
    """The centred table as the lasso uses it: c, and those rows of G that were asked for.

    Centring a copy of x would take a fifth of the time of a whole fit. So the means are subtracted
    from the products instead, xᵀx/N - mᵀm, unless some column's mean is more than ten times its
    deviation: that difference would lose digits.

    Raises ValueError for a bad table, and for numbers whose squares overflow or vanish.
    """

    def __init__(self, x: Array, y: Array) -> None:
        x, y = checks.table(x, y)
        self.rows, self.columns = x.shape
        self.x_mean, self.y_mean = x.mean(axis=0), float(y.mean())
        y = y - self.y_mean
        some = x[:: max(1, self.rows // 256)]
        far = bool((self.x_mean**2 > 100 * some.var(axis=0)).any())
        self.x = x - self.x_mean if far else x
        self.offset = np.zeros(self.columns) if far else self.x_mean
        self.yy = float(y @ y) / self.rows
        self.c = self.x.T @ y / self.rows  # (D,); y has mean 0, so that x need not
        _in_range(y, np.array([self.yy]))
        self.gram = np.empty((self.columns, self.columns))
        self.known = np.zeros(self.columns, dtype=bool)

    def of(self, active: Array) -> Array:
        """Rows `active` (A,) of G, (A, D); those not yet known are computed, by one product."""
        new = active[~self.known[active]]
        if len(new) > self.columns / 4:  # xᵀx by symmetry costs half: from here on all is cheaper
            np.matmul(self.x.T, self.x, out=self.gram)
            self.gram /= self.rows
            self.gram -= np.outer(self.offset, self.offset)
            self.known[:] = True
            _in_range(self.x, self.gram)
        elif len(new):
            rows = self.x[:, new].T @ self.x / self.rows
            self.gram[new] = rows - np.outer(self.offset[new], self.offset)
            self.known[new] = True
            _in_range(self.x[:, new], self.gram[new])
        return self.gram[active]

    def correlations(self, w: Array) -> Array:
        """g = xᵀ(y - x w)/N, (D,)."""
        support = np.flatnonzero(w)
        return self.c - w[support] @ self.of(support) if len(support) else self.c.copy()

    def model(self, w: Array, gap: float, iterations: int) -> LassoFit:
        return LassoFit(w, self.y_mean - float(self.x_mean @ w), gap, iterations)


def _in_range(numbers: Array, products: Array) -> None:
    """Raises ValueError when products of such numbers overflowed, or all underflowed to 0."""
    if not np.isfinite(products).all() or (not products.any() and numbers.any()):
        raise ValueError(
            f"the squares of numbers as large as {np.abs(numbers).max():.1e} are beyond floating "
            "point: divide the columns and the target by their size"
        )


def _solve_active(
    table: Covariances, w: Array, active: Array, alpha: float, target: float, sweeps: int
) -> int:
    """Sweep over the columns `active` until the gap of the problem on them alone is at the target.

    w (D,) is changed in place. Returns the number of sweeps, `sweeps` at most.
    """
    gram = np.ascontiguousarray(table.of(active)[:, active])
    c, inner = table.c[active], w[active]
    g = c - gram @ inner
    count = 0
    while count < sweeps:
        coordinate_sweep(inner, g, gram, alpha)
        count += 1
        if duality_gap(table.yy, inner, c, g, alpha) <= target:
            break
    w[active] = inner
    return count


def _descend(
    table: Covariances, alpha: float, tol: float, max_sweeps: int, start: Array | None = None
) -> LassoFit:
    """Coordinate descent over a working set that doubles until the gap over all columns is small.

    It begins with the columns that correlate with the target by more than alpha (the whole support
    if no columns were correlated with each other), and always holds those whose weight is not 0.
    """
    w = np.zeros(table.columns) if start is None else start.copy()
    target, sweeps = tol * table.yy, 0
    while True:
        g = table.correlations(w)
        gap = duality_gap(table.yy, w, table.c, g, alpha)
        if gap <= target or sweeps >= max_sweeps:
            break
        size = int(2 * np.count_nonzero(w) or np.count_nonzero(np.abs(g) > alpha))
        size = min(table.columns, max(16, size))
        rank = np.where(w != 0, np.inf, np.abs(g))
        active = np.sort(np.argpartition(-rank, size - 1)[:size])
        goal = max(0.3 * target, 0.03 * gap) if size < table.columns else 0.5 * target
        sweeps += _solve_active(table, w, active, alpha, goal, max_sweeps - sweeps)
    if not gap <= target:  # NaN too
        _warn_unfinished(gap, target, f"{sweeps} sweeps", "max_sweeps", level=4)
    return table.model(w, gap, sweeps)


def _warn_unfinished(gap: float, target: float, effort: str, setting: str, level: int) -> None:
    warnings.warn(
        f"after {effort} the duality gap is {gap:.2e}, above the {target:.2e} asked for: raise "
        f"{setting} or tol, or scale the columns to one size",
        checks.ConvergenceWarning,
        stacklevel=level,
    )


def _check(alpha: float, tol: float) -> None:
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha must be above 0, got {alpha}; for alpha = 0 use linear.fit_qr")
    if not tol > 0:
        raise ValueError(f"tol must be above 0, got {tol}; it is a share of the mean square of y")


def fit_lasso(
    x: Array, y: Array, alpha: float, tol: float = 1e-6, max_sweeps: int = 10_000
) -> LassoFit:
    """The lasso by coordinate descent: covariance updates on a working set.

    Args:
        x: (N, D).
        y: (N,).
        alpha: above 0, see `alpha_max`.
        tol: stops when the duality gap is at most tol · ‖y - mean(y)‖²/N, scikit-learn's rule.
        max_sweeps: passes over the working set at most; warns with ConvergenceWarning when they
            are used up.
    Raises ValueError for a bad table, alpha or tol. A constant column gets the weight 0.
    """
    _check(alpha, tol)
    return _descend(Covariances(x, y), alpha, tol, max_sweeps)


def lasso_path(
    x: Array, y: Array, alphas: Array, tol: float = 1e-6, max_sweeps: int = 10_000
) -> list[LassoFit]:
    """The lasso for each of `alphas`; from large to small, each solution starts from the last."""
    table, fits = Covariances(x, y), {}
    start: Array | None = None
    for alpha in sorted({float(a) for a in np.asarray(alphas)}, reverse=True):
        _check(alpha, tol)
        fits[alpha] = _descend(table, alpha, tol, max_sweeps, start)
        start = fits[alpha].coef
    return [fits[float(a)] for a in np.asarray(alphas)]


def fit_proximal(
    x: Array,
    y: Array,
    alpha: float,
    tol: float = 1e-6,
    max_steps: int = 100_000,
    accelerate: bool = True,
) -> LassoFit:
    """The lasso by proximal gradient: ISTA, or FISTA with `accelerate`.

        w ← S(v + g(v)/L, α/L)         L the largest eigenvalue of G, g = c - G v
        ISTA: v = w                    FISTA: v = w + (t - 1)/t' (w - w_before),
                                              t' = (1 + √(1 + 4t²))/2

    The momentum restarts (t = 1) when it points uphill (O'Donoghue and Candès 2015, section 3.2).
    Stops, warns and raises as `fit_lasso` does.
    """
    _check(alpha, tol)
    table = Covariances(x, y)
    gram = table.of(np.arange(table.columns))
    lipschitz = float(np.linalg.eigvalsh(gram)[-1]) or 1.0
    w = v = np.zeros(table.columns)
    t, steps, target = 1.0, 0, tol * table.yy
    while True:
        g = table.c - gram @ w
        gap = duality_gap(table.yy, w, table.c, g, alpha)
        if gap <= target or steps >= max_steps:
            break
        before = w
        w = soft_threshold(v + (table.c - gram @ v) / lipschitz, alpha / lipschitz)
        if accelerate:
            t = 1.0 if (v - w) @ (w - before) > 0 else t
            t_next = (1 + math.sqrt(1 + 4 * t * t)) / 2
            v, t = w + (t - 1) / t_next * (w - before), t_next
        else:
            v = w
        steps += 1
    if not gap <= target:  # NaN too
        _warn_unfinished(gap, target, f"{steps} steps", "max_steps", level=3)
    return table.model(w, gap, steps)
