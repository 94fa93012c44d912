"""Why gradient descent zig-zags: f(w) = ½ wᵀA w - bᵀw, and the condition number κ of A.

The gradient is steep across a narrow valley and flat along it, but one step size must serve both.
With the best fixed step size, the distance to the minimum shrinks by (κ - 1)/(κ + 1) a step. With
Polyak's momentum (1964) it shrinks by (√κ - 1)/(√κ + 1), and so does conjugate gradient, which
chooses step size and momentum anew in each step. So the steps needed grow like κ without momentum
and like √κ with it. Least squares is such an f with A = xᵀx/N: that is why columns are
standardised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from math_ml.conjugate_gradient import conjugate_gradient
from math_ml.operators import as_symmetric, as_vector

Array = np.ndarray
Method = Literal["gradient descent", "momentum", "conjugate gradient"]


@dataclass(frozen=True)
class Quadratic:
    """f(w) = ½ wᵀA w - bᵀw, A (D, D) symmetric positive definite, b (D,)."""

    a: Array
    b: Array

    def __call__(self, w: Array) -> Array:
        """f at w (D,), or at each of w (..., D)."""
        return 0.5 * ((w @ self.a) * w).sum(axis=-1) - w @ self.b

    def gradient(self, w: Array) -> Array:
        """A w - b."""
        return self.a @ w - self.b

    def minimum(self) -> Array:
        """Where the gradient is 0: A w = b."""
        return np.linalg.solve(self.a, self.b)


def least_squares(x: Array, y: Array) -> Quadratic:
    """‖y - x w‖²/(2N) without its constant term: A = xᵀx/N, b = xᵀy/N. x (N, D), y (N,)."""
    return Quadratic(x.T @ x / len(x), x.T @ y / len(x))


def extreme_eigenvalues(a: Array) -> tuple[float, float]:
    """μ and L, the smallest and the largest eigenvalue. Raises ValueError unless μ > 0 (to
    rounding).
    """
    values = np.linalg.eigvalsh(as_symmetric(a))
    low, high = float(values[0]), float(values[-1])
    if not low > len(a) * np.finfo(values.dtype).eps * high:
        raise ValueError(
            f"the smallest eigenvalue is {low:.3g}, the largest {high:.3g}: f has no single "
            "minimum; leave out dependent columns, or add a ridge to the diagonal of a"
        )
    return low, high


def condition_number(a: Array) -> float:
    """κ = L/μ of a symmetric positive definite A, 1 or more."""
    low, high = extreme_eigenvalues(a)
    return high / low


def best_rates(low: float, high: float, method: Method = "gradient descent") -> tuple[float, float]:
    """Step size and momentum that shrink the error fastest when A's eigenvalues are in [μ, L].

    η = 2/(μ + L), no momentum; or η = 4/(√μ + √L)², β = ((√κ - 1)/(√κ + 1))² (Polyak 1964).
    """
    if method == "gradient descent":
        return 2 / (low + high), 0.0
    root_low, root_high = low**0.5, high**0.5
    return 4 / (root_low + root_high) ** 2, ((root_high - root_low) / (root_high + root_low)) ** 2


def gradient_descent(
    f: Quadratic, start: Array, steps: int, rate: float, momentum: float = 0.0
) -> Array:
    """The path w₀ ... w_steps, (steps + 1, D), of w ← w - η ∇f(w) + β (w - w_before).

    Without momentum it converges for 0 < rate < 2/L. Raises ValueError when it overflows.
    """
    path = np.empty((steps + 1, len(start)))
    path[0] = before = as_vector(start, "start")
    for step in range(steps):
        w = path[step]
        with np.errstate(over="ignore", invalid="ignore"):
            path[step + 1] = w - rate * f.gradient(w) + momentum * (w - before)
        before = w
        if not np.isfinite(path[step + 1]).all():
            limit = 2 * (1 + momentum) / np.linalg.eigvalsh(f.a)[-1]
            raise ValueError(
                f"diverged at step {step + 1}: rate is {rate:.3g} and must be below 2 (1 + β)/L = "
                f"{limit:.3g}, β below 1"
            )
    return path


def conjugate_gradient_path(f: Quadratic, start: Array, tol: float = 1e-8) -> Array:
    """The path of conjugate gradient, (steps + 1, D): at most D steps, apart from rounding."""
    path = [np.array(start, dtype=float)]
    conjugate_gradient(f.a, f.b, path[0], tol=tol, callback=path.append)
    return np.array(path)


def contraction(condition: float, method: Method = "gradient descent") -> float:
    """The share of the error that a step leaves, with the best rates: worst case, many steps."""
    return 1 - 2 / (_rooted(condition, method) + 1)


def _rooted(condition: float, method: Method) -> float:
    """√κ for the methods whose number of steps grows like √κ, else κ."""
    return condition if method == "gradient descent" else condition**0.5


def predicted_steps(condition: float, reduction: float, method: Method) -> float:
    """n with contraction(κ)ⁿ = reduction: near ½ κ ln(1/reduction), or ½ √κ ln(1/reduction)."""
    share = 2 / (_rooted(condition, method) + 1)  # what a step takes off: log1p keeps its digits
    if share >= 1:
        return 1.0
    return float(np.log(reduction) / np.log1p(-share)) if share > 0 else np.inf


def steps_needed(eigenvalues: Array, reduction: float, method: Method) -> int:
    """Steps measured until √(eᵀAe), e = w - w*, is at most `reduction` of its first value.

    A is diagonal, so that steps are cheap; a rotation would not change the counts. The start is 0,
    and w* is
    1/√λ along each eigenvector, so that each holds an equal share of the loss.

    Raises ValueError unless all eigenvalues and the reduction are above 0.
    """
    values = as_vector(np.asarray(eigenvalues, dtype=float), "eigenvalues")
    if not (values > 0).all() or not reduction > 0:
        raise ValueError(
            "eigenvalues and reduction must be above 0, got a smallest eigenvalue of "
            f"{values.min():.3g} and reduction={reduction}"
        )
    best, count = 1 / np.sqrt(values), 0
    low, high = float(values.min()), float(values.max())

    def far(w: Array) -> bool:
        return float(values @ (w - best) ** 2) > reduction**2 * len(values)

    if method == "conjugate gradient":
        path: list[bool] = []
        tol = reduction * (low / high) ** 0.5  # on the residual, enough for the error's norm
        a, b = (lambda v: values * v), values * best
        conjugate_gradient(a, b, tol=tol, callback=lambda w: path.append(far(w)))
        return 1 + sum(path)
    rate, momentum = best_rates(low, high, method)
    w = before = 0 * best
    while far(w):
        w, before = w - rate * values * (w - best) + momentum * (w - before), w
        count += 1
    return count
