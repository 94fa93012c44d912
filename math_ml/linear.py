"""Linear regression five ways, and ridge: y ≈ x w + b, N rows, D columns.

    least squares   min Σ (y - x w - b)²                     sklearn.linear_model.LinearRegression
    ridge           min Σ (y - x w - b)² + α ‖w‖²             sklearn.linear_model.Ridge

The intercept is never penalised. With columns and target centred it drops out of the problem, and
b = mean(y) - mean(x) w puts it back; so every function here centres first.

Which one to use: QR. The normal equations square the condition number. The SVD costs more, and is
for columns that depend on each other. Gradient descent is for data that does not fit in memory, and
for losses other than least squares (Golub and Van Loan, Matrix Computations, chapter 5).
"""

from __future__ import annotations

import warnings

import numpy as np

from labkit import exercise
from math_ml import checks, cholesky, qr
from math_ml.model import LinearModel
from math_ml.operators import column_norms, norm

Array = np.ndarray


def centred(x: Array, y: Array) -> tuple[Array, Array, Array, float]:
    """x and y minus their means, and the means (D,) and (); checked, see `checks.table`."""
    x, y = checks.table(x, y)
    x_mean, y_mean = x.mean(axis=0), float(y.mean())
    return x - x_mean, y - y_mean, x_mean, y_mean


def with_intercept(coef: Array, x_mean: Array, y_mean: float) -> LinearModel:
    """The model whose plane goes through the point of means."""
    return LinearModel(coef, y_mean - float(x_mean @ coef))


def _dependent(what: str) -> ValueError:
    return ValueError(
        f"{what}: some columns are constant or follow from others (or there are fewer rows than "
        "columns + 1), so that the weights are not determined; leave columns out, take fit_svd for "
        "the smallest weights that fit, or fit_ridge"
    )


def _refuse_constant(x: Array) -> None:
    """Check before centring, because centring turns a constant column into rounding errors."""
    constant = np.flatnonzero(x.max(axis=0) == x.min(axis=0))
    if len(constant):
        raise _dependent(f"column {constant[0]} has one value only, like the intercept's")


def fit_normal(x: Array, y: Array) -> LinearModel:
    """Least squares by the normal equations xᵀx w = xᵀy, solved by Cholesky.

    The fastest way, and the least exact: cond(xᵀx) = cond(x)². Raises ValueError when xᵀx is
    singular to rounding, which happens when cond(x) is above about 10⁷.
    """
    xc, yc, x_mean, y_mean = centred(x, y)
    _refuse_constant(np.asarray(x))
    scale = column_norms(xc)
    unit = xc / scale  # columns of length 1: units of measurement must not decide what is singular
    try:
        lower = cholesky.cholesky(unit.T @ unit)
    except ValueError as error:
        raise _dependent(f"xᵀx is singular, {error}") from None
    if lower.diagonal().min() ** 2 < 10 * len(lower) * np.finfo(float).eps:
        raise _dependent("xᵀx is singular to rounding")
    return with_intercept(cholesky.cholesky_solve(lower, unit.T @ yc) / scale, x_mean, y_mean)


def fit_qr(x: Array, y: Array) -> LinearModel:
    """Least squares by Householder QR: x = QR, R w = Qᵀy. Raises ValueError when x is of
    deficient rank, and names the first column that follows from those before it.
    """
    xc, yc, x_mean, y_mean = centred(x, y)
    _refuse_constant(np.asarray(x))
    if len(xc) <= xc.shape[1]:
        raise _dependent("R is singular")
    try:
        coef = qr.least_squares(xc, yc)
    except ValueError as error:
        raise _dependent(str(error)) from None
    return with_intercept(coef, x_mean, y_mean)


def fit_svd(x: Array, y: Array, rcond: float | None = None) -> LinearModel:
    """Least squares by the SVD; of several solutions, the weights of smallest norm.

    x = U diag(s) Vᵀ, and w = V diag(1/s) Uᵀy over the singular values above rcond · s_max
    (max(N, D) times the machine's epsilon). Warns with CollinearWarning when some are below it.
    """
    x, y, x_mean, y_mean = centred(x, y)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    if rcond is None:
        rcond = max(x.shape) * float(np.finfo(float).eps)
    kept = s > rcond * s[0]
    if kept.sum() < x.shape[1]:
        warnings.warn(
            f"{x.shape[1]} columns have rank {kept.sum()}: of the many weights that fit equally "
            "well these are the smallest; do not read a meaning into single ones",
            checks.CollinearWarning,
            stacklevel=2,
        )
    coef = vt[kept].T @ ((u[:, kept].T @ y) / s[kept])
    return with_intercept(coef, x_mean, y_mean)


@exercise(minutes=15)
def ridge(x: Array, y: Array, alpha: float) -> tuple[Array, float]:
    """Weights and intercept that minimise Σ_n (y_n - x_n w - b)² + α Σ_j w_j².

    b is not penalised: w comes from the centred columns and target, x̃ = x - mean(x) and
    ỹ = y - mean(y) (means over the rows), and b follows from w:

        (x̃ᵀx̃ + α I) w = x̃ᵀỹ            b = mean(y) - mean(x) w

    The matrix is symmetric and, for α > 0, positive definite; solve the system (for instance with
    np.linalg.solve), do not invert the matrix.

    Args:
        x: (N, D) float64. Not changed.
        y: (N,) float64. Not changed.
        alpha: α, above 0.
    Returns:
        w (D,), and b as a float.
    """
    x_mean, y_mean = x.mean(axis=0), y.mean()
    xc, yc = x - x_mean, y - y_mean
    penalty = alpha * np.eye(x.shape[1])
    coef = np.linalg.solve(xc.T @ xc + penalty, xc.T @ yc)
    return coef, float(y_mean - x_mean @ coef)


def fit_ridge(x: Array, y: Array, alpha: float) -> LinearModel:
    """Ridge regression with scikit-learn's α; α = 0 is least squares by QR.

    Raises ValueError for α below 0 or a bad table.
    """
    checks.not_negative("alpha", alpha)
    x, y = checks.table(x, y)
    return LinearModel(*ridge(x, y, alpha)) if alpha > 0 else fit_qr(x, y)


def ridge_path(x: Array, y: Array, alphas: Array) -> Array:
    """Ridge weights (len(alphas), D) for many α from one SVD: w = V diag(s/(s² + α)) Uᵀy.

    α of 0 or more; at 0 they are the smallest weights of least squares.
    """
    x, y, _, _ = centred(x, y)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    at_0, s = s == 0, np.where(s == 0, 1.0, s)
    shrunk = np.where(at_0, 0.0, 1 / (s + np.asarray(alphas)[:, None] / s))  # (A, R); no s²
    return (shrunk * (u.T @ y)) @ vt


def fit_gradient_descent(
    x: Array, y: Array, steps: int = 10_000, step_size: float = 1.0, tol: float = 1e-10
) -> LinearModel:
    """Least squares by gradient descent from 0 on ½‖y - x w‖²/N, with η = step_size/L.

    L is the largest eigenvalue of xᵀx/N: the loss falls for any step_size below 2 and grows
    without bound above it. Stops when the gradient's norm is tol of its first norm. Warns with
    ConvergenceWarning when `steps` were not enough: then standardise the columns.
    """
    x, y, x_mean, y_mean = centred(x, y)
    unit = float(np.abs(x).max()) or 1.0  # squares of x may overflow or vanish, those of x/unit not
    x = x / unit
    gram, corr = x.T @ x / len(x), x.T @ y / len(x)
    rate = step_size / np.linalg.eigvalsh(gram)[-1]
    w, first = np.zeros(x.shape[1]), norm(corr)
    for _ in range(steps):
        grad = gram @ w - corr
        if norm(grad) <= tol * first:
            break
        w -= rate * grad
    else:
        warnings.warn(
            f"after {steps} steps the gradient is {norm(grad) / first:.1e} of its first "
            f"norm, not {tol:.0e}: standardise the columns, take more steps, or use fit_qr",
            checks.ConvergenceWarning,
            stacklevel=2,
        )
    return with_intercept(w / unit, x_mean, y_mean)


def fit_sgd(
    x: Array,
    y: Array,
    epochs: int = 100,
    batch_size: int = 32,
    step_size: float = 0.5,
    seed: int = 0,
) -> LinearModel:
    """Least squares by stochastic gradient descent, with a rate that falls to 0 linearly.

    The first rate is step_size over the largest squared length of a centred row, so that no single
    row can make it diverge for step_size below 2. Each step takes the next batch of a shuffled
    epoch. The result is near the solution but never exactly at it, unless the residuals are 0.
    """
    x, y, x_mean, y_mean = centred(x, y)
    unit = float(np.abs(x).max()) or 1.0
    x = x / unit
    rng, rows = np.random.default_rng(seed), len(x)
    batch_size = min(batch_size, rows)
    per_epoch, w = rows // batch_size, np.zeros(x.shape[1])
    longest = float((x * x).sum(axis=1).max())
    rate = step_size / longest if longest > 0 else 0.0
    for epoch in range(epochs):
        order = rng.permutation(rows)
        for i in range(per_epoch):
            batch = order[i * batch_size : (i + 1) * batch_size]
            left = 1 - (epoch * per_epoch + i) / (epochs * per_epoch)
            w -= rate * left * (x[batch].T @ (x[batch] @ w - y[batch]) / batch_size)
    return with_intercept(w / unit, x_mean, y_mean)
