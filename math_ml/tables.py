"""The week's studies of tables: each takes data and returns numbers and the data of its figures.

Every choice (α, λ, which columns) is made on training rows, by cross-validation with the scaling
inside each fold; test rows are used once, by the last line of a study. Letters: N rows, D columns,
A candidates of a penalty, K folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from labkit.data import TableData
from math_ml import lasso, linear, logistic, model_selection
from math_ml.model import LinearModel, sigmoid
from math_ml.model_selection import Fit, Predictor, Standardizer

Array = np.ndarray


@dataclass(frozen=True)
class Path:
    """One kind of penalty: weights (A, D) and fold errors (A, K) for each of `alphas` (A,)."""

    alphas: Array
    coefs: Array
    errors: Array
    chosen: int


@dataclass(frozen=True)
class Regression:
    """Ridge and lasso on one table, α of each chosen by cross-validation."""

    ridge: Path
    lasso: Path
    features: tuple[str, ...]
    r2: dict[str, float]
    """On test rows, by method."""
    nonzeros: int


def regression(data: TableData, folds: int, seed: int) -> Regression:
    """Choose α for ridge and lasso on the training rows; test both, and least squares, on the
    test rows.
    """
    scale = Standardizer.fit(data.x_train)
    x, y = scale(data.x_train), data.y_train
    parts = model_selection.k_fold(len(y), folds, seed)
    strengths = np.geomspace(10 * len(y), 1e-3 * len(y), 33)  # from strong to weak
    prices = np.geomspace(1.0, 1e-3, 33) * lasso.alpha_max(x, y)
    ridge_errors = model_selection.fold_errors(
        [_ridge(a) for a in strengths], data.x_train, y, parts
    )
    lasso_errors = model_selection.fold_errors([_lasso(a) for a in prices], data.x_train, y, parts)
    fits = lasso.lasso_path(x, y, prices)
    paths = {
        "ridge": _path(strengths, linear.ridge_path(x, y, strengths), ridge_errors),
        "lasso": _path(prices, np.array([fit.coef for fit in fits]), lasso_errors),
    }
    best = fits[paths["lasso"].chosen]
    models: dict[str, LinearModel] = {
        "least squares": linear.fit_qr(x, y),
        "ridge": linear.fit_ridge(x, y, strengths[paths["ridge"].chosen]),
        "lasso": best,
    }
    x_test = scale(data.x_test)  # looked at here, once
    scores = {k: model_selection.r2(data.y_test, m.predict(x_test)) for k, m in models.items()}
    return Regression(
        paths["ridge"], paths["lasso"], data.features, scores, int(np.count_nonzero(best.coef))
    )


def _path(alphas: Array, coefs: Array, errors: Array) -> Path:
    return Path(alphas, coefs, errors, model_selection.best_of(errors))


def _ridge(alpha: float) -> Fit:
    return model_selection.standardized(lambda x, y: linear.fit_ridge(x, y, alpha).predict)


def _lasso(alpha: float) -> Fit:
    return model_selection.standardized(lambda x, y: lasso.fit_lasso(x, y, alpha).predict)


@dataclass(frozen=True)
class Classification:
    """Logistic regression on one table: λ chosen by cross-validation, Newton against descent."""

    l2: float
    newton: Array
    """(P - minimum of P) / rows before each step of Newton's method."""
    descent: Array
    """The same for gradient descent with the step 1/L."""
    labels: Array
    probability: Array
    """Of the test rows."""
    accuracy: float
    ece: float
    log_loss: float


def classification(data: TableData, folds: int, seed: int, steps: int) -> Classification:
    """Choose λ by the log-loss of held-out folds; fit by Newton's method and, to compare, by
    `steps` steps of gradient descent.
    """
    y = data.y_train
    parts = model_selection.k_fold(len(y), folds, seed)
    strengths = np.geomspace(100, 0.01, 13)
    losses = []
    for l2 in strengths:
        z = model_selection.out_of_fold(_logistic(l2), data.x_train, y, parts)
        losses.append(logistic.log_loss(z, y))
    l2 = float(strengths[int(np.argmin(losses))])
    scale = Standardizer.fit(data.x_train)
    model = logistic.fit_newton(scale(data.x_train), y, l2)
    slow = logistic.fit_gradient_descent(scale(data.x_train), y, l2, steps, tol=0.0)
    best = model.objective[-1]
    z = model.predict(scale(data.x_test))  # looked at here, once
    p = sigmoid(z)
    return Classification(
        l2=l2,
        newton=(np.array(model.objective) - best) / len(y),
        descent=(np.array(slow.objective) - best) / len(y),
        labels=data.y_test,
        probability=p,
        accuracy=100 * float(((p > 0.5) == (data.y_test == 1)).mean()),
        ece=logistic.expected_calibration_error(data.y_test, p),
        log_loss=logistic.log_loss(z, data.y_test),
    )


def _logistic(l2: float) -> Fit:
    return model_selection.standardized(lambda x, y: logistic.fit_newton(x, y, l2).predict)


def descent_excess(
    data: TableData, columns: Literal["standardized", "raw"], steps: int, step_size: float
) -> tuple[Array, float]:
    """Least squares by gradient descent with the step step_size/L on training rows.

    Returns the loss above the minimum, in percent of the minimum, before each step and at the end
    (steps + 1,), and the condition number of xᵀx/N, which decides how many steps are needed.
    """
    x = data.x_train
    if columns == "standardized":
        x = Standardizer.fit(x)(x)
    best = linear.fit_qr(x, data.y_train)
    x, y, _, _ = linear.centred(x, data.y_train)
    gram, corr = x.T @ x / len(y), x.T @ y / len(y)
    values = np.linalg.eigvalsh(gram)
    least = float(np.mean((y - x @ best.coef) ** 2))
    w, excess = np.zeros(x.shape[1]), np.empty(steps + 1)
    for step in range(steps + 1):
        off = w - best.coef
        excess[step] = 100 * float(off @ gram @ off) / least  # exact: P is a quadratic
        w = w - step_size / values[-1] * (gram @ w - corr)
    return excess, float(values[-1] / values[0])


def noise_r2(seed: int, draws: int = 10) -> float:
    """Cross-validated R² of predicting pure noise from pure noise, mean of a few draws of it.

    50 rows, 5,000 columns. The 10 that correlate most with the target are kept, chosen inside each
    fold from its training rows (ESL, section 7.10.2, with as many rows and columns).
    """
    rng = np.random.default_rng((seed, 7102))
    scores = []
    for _ in range(draws):
        x, y = rng.standard_normal((50, 5000)), rng.standard_normal(50)
        parts = model_selection.k_fold(len(y), 10, seed)
        scores.append(model_selection.r2(y, model_selection.out_of_fold(_select, x, y, parts)))
    return float(np.mean(scores))


def _select(x: Array, y: Array) -> Predictor:
    kept = model_selection.most_correlated(x, y, 10)
    model = linear.fit_ridge(x[:, kept], y, alpha=1.0)
    return lambda rows: model.predict(rows[:, kept])
