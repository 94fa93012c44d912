"""Binary logistic regression by Newton's method and by gradient descent, and its calibration.

    p = σ(x w + b)        P(w, b) = Σ_n [log(1 + e^z_n) - y_n z_n] + λ/2 ‖w‖²        z = x w + b

The loss is a sum over rows and the intercept is not penalised: λ is 1/C of scikit-learn's
LogisticRegression. Newton's step solves a least-squares problem with weights p(1 - p), hence its
other name, iteratively reweighted least squares (Hastie, Tibshirani, Friedman, The Elements of
Statistical Learning, section 4.4.1). Letters: N rows, D columns, E = D + 1 with the intercept.
"""

from __future__ import annotations

import warnings

import numpy as np

from labkit import exercise
from math_ml import checks
from math_ml.model import LogisticModel, sigmoid
from math_ml.operators import norm

Array = np.ndarray


def log_loss(z: Array, y: Array) -> float:
    """Mean of log(1 + e^z) - y z, logits z (N,), labels y (N,), 0 or 1; exact for any z."""
    return float(np.mean(np.logaddexp(0.0, np.where(y == 1, -z, z))))


@exercise(minutes=25)
def newton_direction(a: Array, y: Array, theta: Array, penalty: Array) -> tuple[Array, Array]:
    """Gradient of P at θ, and the direction d of Newton's step θ + d.

        P(θ) = Σ_n [log(1 + e^z_n) - y_n z_n] + ½ Σ_j λ_j θ_j²          z = A θ, p = 1/(1 + e^-z)
        ∇ = Aᵀ(p - y) + λ ⊙ θ        H = Aᵀ diag(p (1 - p)) A + diag(λ)        H d = -∇

    Solve the system, do not invert H. Logits of any size must give finite numbers, though e^-z
    overflows, and p must be exact for z = -200 too: `sigmoid` does both.

    Args:
        a: A, rows with a last column of ones for the intercept, (N, E) float64.
        y: labels 0 or 1, (N,).
        theta: θ, (E,).
        penalty: λ_j of each weight, (E,); 0 for the intercept.
    Returns:
        ∇ (E,) and d (E,). No argument is changed.
    Raises:
        np.linalg.LinAlgError for a singular H, as np.linalg.solve does.
    """
    p = sigmoid(a @ theta)  # (N,)
    gradient = a.T @ (p - y) + penalty * theta
    hessian = a.T @ (a * (p * (1.0 - p))[:, None]) + np.diag(penalty)
    return gradient, np.linalg.solve(hessian, -gradient)


def _design(x: Array, y: Array, l2: float) -> tuple[Array, Array, Array]:
    """Checked A (N, E) with its column of ones, y (N,) and the penalty (E,)."""
    checks.not_negative("l2", l2)
    x, y = checks.table(x, y)
    checks.binary(y)
    penalty = np.full(x.shape[1] + 1, float(l2))
    penalty[-1] = 0.0
    return np.hstack([x, np.ones((len(x), 1))]), y, penalty


def _objective(a: Array, y: Array, theta: Array, penalty: Array) -> float:
    return len(y) * log_loss(a @ theta, y) + 0.5 * float(penalty @ theta**2)


def _refuse_separation(a: Array, y: Array, theta: Array, penalty: Array) -> None:
    """Without a penalty there is no minimum if a plane separates the classes: raise ValueError."""
    if not penalty.any() and ((a @ theta) * (2 * y - 1) > 0).all():
        raise ValueError(
            "a plane parts the two classes without a mistake: without a penalty larger weights "
            "always fit better and there are no best ones; set l2 above 0"
        )


def fit_newton(
    x: Array, y: Array, l2: float = 1.0, tol: float = 1e-9, max_steps: int = 50
) -> LogisticModel:
    """Logistic regression by Newton's method with step halving.

    Args:
        x: (N, D).
        y: 0 or 1, (N,).
        l2: λ, scikit-learn's 1/C; 0 for no penalty.
        tol: stops when half the squared Newton decrement, which near the optimum is the distance of
            P from its minimum, is at most tol · (1 + P).
        max_steps: Newton steps at most; warns with ConvergenceWarning when they are used up.
    Raises ValueError for a bad table or labels, and for l2 = 0 when a plane separates the classes
    (there is no minimum) or when columns depend on each other (there are many minima).
    Warns with SeparationWarning when l2 = 0 and some fitted probability is 0 or 1 to rounding.
    """
    a, y, penalty = _design(x, y, l2)
    theta = np.zeros(a.shape[1])
    values, decrement = [_objective(a, y, theta, penalty)], np.inf
    for _ in range(max_steps):
        try:
            gradient, direction = newton_direction(a, y, theta, penalty)
        except np.linalg.LinAlgError:
            raise ValueError(
                "the Hessian is singular: columns are constant or depend on each other, or the "
                "classes can be parted; leave columns out, or set l2 above 0"
            ) from None
        decrement = -0.5 * float(gradient @ direction)
        if decrement <= tol * (1 + values[-1]):
            break
        step, value = _halved(a, y, theta, direction, penalty, values[-1], decrement)
        theta = theta + step * direction
        values.append(value)
        _refuse_separation(a, y, theta, penalty)
    if not decrement <= tol * (1 + values[-1]):
        _warn_unfinished(f"Newton's method after {max_steps} steps: decrement {decrement:.1e}")
    _warn_certain(a @ theta, l2)
    return LogisticModel(theta[:-1], float(theta[-1]), tuple(values))


def _halved(
    a: Array,
    y: Array,
    theta: Array,
    direction: Array,
    penalty: Array,
    value: float,
    decrement: float,
) -> tuple[float, float]:
    """The first of 1, ½, ¼, ... that lowers P by a share of the predicted amount, and P there.

    Newton's full step can overshoot far from the optimum, where σ is flat (Armijo's rule; Boyd and
    Vandenberghe, Convex Optimization, section 9.5).
    """
    step = 1.0
    for _ in range(40):
        new = _objective(a, y, theta + step * direction, penalty)
        if new <= value - 1e-4 * step * decrement:
            return step, new
        step *= 0.5
    return 0.0, value


def _warn_unfinished(what: str) -> None:
    warnings.warn(
        f"{what}; the weights are not the optimum. Standardise the columns, allow more steps, or "
        "set a larger l2",
        checks.ConvergenceWarning,
        stacklevel=3,
    )


def _warn_certain(z: Array, l2: float) -> None:
    if l2 == 0 and np.abs(z).max() > 18.0:  # 1 - σ(18) = 1.5e-8
        warnings.warn(
            "some fitted probabilities are 0 or 1 to eight digits: a part of the rows may be "
            "separable, and its weights only as large as the iteration got; set l2 above 0",
            checks.SeparationWarning,
            stacklevel=3,
        )


def fit_gradient_descent(
    x: Array, y: Array, l2: float = 1.0, steps: int = 10_000, tol: float = 1e-6
) -> LogisticModel:
    """Logistic regression by gradient descent with the step 1/L, L = ‖A‖²/4 + λ.

    L bounds the Hessian, since p(1 - p) <= ¼, so P falls in every step. Stops when the gradient's
    norm is tol of its first norm; warns with ConvergenceWarning when `steps` were not enough. tol=0
    takes all the steps and gives no warning.
    Raises ValueError as `fit_newton` does, except for columns that depend on each other.
    """
    a, y, penalty = _design(x, y, l2)
    rate = 1.0 / (np.linalg.norm(a, 2) ** 2 / 4 + l2)
    theta = np.zeros(a.shape[1])
    values, first, size = [_objective(a, y, theta, penalty)], 0.0, np.inf
    for _ in range(steps):
        gradient = a.T @ (sigmoid(a @ theta) - y) + penalty * theta
        size = norm(gradient)
        first = first or size
        if size <= tol * first < np.inf:
            break
        theta = theta - rate * gradient
        values.append(_objective(a, y, theta, penalty))
    _refuse_separation(a, y, theta, penalty)
    if tol * first > 0 and not size <= tol * first < np.inf:
        _warn_unfinished(f"gradient descent after {steps} steps: gradient {size / first:.1e}")
    return LogisticModel(theta[:-1], float(theta[-1]), tuple(values))


def reliability(y: Array, p: Array, bins: int = 10) -> tuple[Array, Array, Array]:
    """Calibration curve: among the cases with predicted probability p, the share with y = 1.

    Args:
        y: the true label, 0 or 1, (N,).
        p: predicted probability of 1, (N,).
        bins: equal parts of [0, 1]; p = 1 belongs to the last, other borders to the part above.
    Returns:
        For each bin that has a case (B <= bins of them): mean p, share of y = 1, number of cases.
    Raises ValueError for no cases, a y that is not 0 or 1, a p that is not from 0 to 1.
    """
    y, p = np.asarray(y, dtype=float), np.asarray(p, dtype=float)
    if y.shape != p.shape or y.size == 0 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p must hold one probability from 0 to 1 for every label, at least one")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {np.unique(y)[:5].tolist()}")
    place = np.minimum((p * bins).astype(int), bins - 1)
    cases = np.bincount(place, minlength=bins)
    full = cases > 0
    mean_p = np.bincount(place, weights=p, minlength=bins)[full] / cases[full]
    share = np.bincount(place, weights=y, minlength=bins)[full] / cases[full]
    return mean_p, share, cases[full]


def expected_calibration_error(y: Array, p: Array, bins: int = 10) -> float:
    """Mean distance of `reliability` from the diagonal, bins weighted by their cases.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3, for P(y = 1).
    """
    mean_p, share, cases = reliability(y, p, bins)
    return float((cases / cases.sum()) @ np.abs(mean_p - share))
