"""Conjugate gradient for A x = b with A symmetric positive definite; preconditioners; its bound.

Hestenes and Stiefel 1952; Saad, Iterative Methods for Sparse Linear Systems, sections 6.7, 9.2 and
10.3. Every step finds the best x in the Krylov space of r, A r, A² r, ... and costs one product
with A. Each direction p is conjugate to all earlier ones (pᵀ A p' = 0), so no step undoes another.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labkit import exercise
from math_ml.checks import ConvergenceWarning
from math_ml.operators import Apply, Operator, as_operator, as_symmetric, as_vector, norm
from math_ml.qr import solve_triangular

Array = np.ndarray


@dataclass(frozen=True)
class Solution:
    """x (D,), the norms ‖r‖ before the first step and after each, and whether the rule was met."""

    x: Array
    residuals: Array
    """(steps + 1,), of the r in the recursion; b - A x itself may be slightly larger at the end."""
    converged: bool


@exercise(minutes=25)
def conjugate_gradient(
    a: Operator,
    b: Array,
    x0: Array | None = None,
    precondition: Apply | None = None,
    tol: float = 1e-8,
    max_steps: int | None = None,
    callback: Callable[[Array], None] | None = None,
) -> Solution:
    """Solve A x = b by conjugate gradient.

        x = x0,  r = b - A x,  z = M⁻¹ r,  p = z;  until ‖r‖ <= tol ‖b‖:
        α = rᵀz / pᵀAp        x ← x + α p        r ← r - α A p
        z' = M⁻¹ r            β = r'ᵀz' / rᵀz (new over old)            p ← z' + β p

    Carry r and p divided by s, the largest |r_i| at the start (1 if r = 0), and put s back into
    x ← x + α s p and ‖r‖: so rᵀz neither overflows nor vanishes, however large or small b is.

    Args:
        a: (D, D), or the function v -> A v; `as_operator(a, D)` makes a function of either.
        b: (D,). Not changed.
        x0: (D,), 0 where not given. Not changed.
        precondition: r -> M⁻¹ r, M symmetric positive definite and near A; r itself if not given.
        tol: on ‖r‖/‖b‖, like `rtol` of scipy.sparse.linalg.cg with atol=0; also for x0 near x. Take
            `norm` of math_ml.operators for ‖b‖.
        max_steps: 10 D where not given.
        callback: called with x after each step; x is a new array each time.
    Returns:
        Solution: x in the dtype of b and x0; ‖r‖ before the first step and after every step; and
        whether the rule was met.
    Raises:
        ValueError for a b or x0 that is not a finite vector (`as_vector` checks it); and when
        pᵀAp <= 0 (or NaN): A is then not positive definite, or not symmetric; the same for rᵀz <= 0
        and M. `_positive` raises it.
    Warns:
        ConvergenceWarning when the rule is not met after max_steps steps. `_finish` gives it, and
        makes the Solution.
    """
    b = as_vector(b)
    apply = as_operator(a, len(b))
    x = np.zeros_like(b) if x0 is None else as_vector(x0, "x0")
    r = b - apply(x) if x0 is not None else b
    size = float(np.abs(r).max()) or 1.0
    r = r / size
    p, rho, norms = np.zeros_like(b), 1.0, [size * norm(r)]
    limit = tol * norm(b)
    for _ in range(10 * len(b) if max_steps is None else max_steps):
        if norms[-1] <= limit:
            break
        z = precondition(r) if precondition else r
        before, rho = rho, _positive(r @ z, "rᵀ M⁻¹ r", "the preconditioner")
        p = z + rho / before * p  # p = 0 before the first step
        ap = apply(p)
        step_size = rho / _positive(p @ ap, "pᵀ A p", "a")
        x = x + (step_size * size) * p
        r = r - step_size * ap
        norms.append(size * norm(r))
        if callback:
            callback(x)
    return _finish(x, np.array(norms), limit)


def _positive(value: float | Array, formula: str, what: str) -> float:
    """The value as a float. Raises ValueError, naming formula and `what`, unless it is above 0."""
    value = float(value)
    if not 0 < value < np.inf:
        raise ValueError(
            f"{formula} is {value:.3g}, and must be above 0 and finite: {what} is not symmetric "
            "positive definite; solve AᵀA x = Aᵀb, or add a ridge to the diagonal"
        )
    return value


def _finish(x: Array, residuals: Array, limit: float) -> Solution:
    """The Solution; warns with ConvergenceWarning when the last residual is above the limit."""
    converged = bool(residuals[-1] <= limit)
    if not converged:
        warnings.warn(
            f"after {len(residuals) - 1} steps the residual is {residuals[-1]:.1e}, not "
            f"{limit:.1e}: take more steps, precondition, or ask for less",
            ConvergenceWarning,
            stacklevel=3,
        )
    return Solution(x, residuals, converged)


def chebyshev_bound(condition: float, steps: int) -> float:
    """2 ((√κ - 1)/(√κ + 1))ⁿ: the largest share of the first error, in the norm √(eᵀAe), that
    n steps of conjugate gradient leave (Saad, section 6.11.3). κ of 1 or more.
    """
    return 2 * (1 - 2 / (condition**0.5 + 1)) ** steps  # also for κ = ∞


def jacobi(a: Array) -> Apply:
    """r -> r / diagonal of A: corrects for columns in different units. ValueError unless the
    diagonal is above 0.
    """
    diagonal = as_symmetric(a).diagonal().copy()
    if not (diagonal > 0).all():
        k = int(np.argmin(diagonal))
        raise ValueError(f"a[{k}, {k}] is {diagonal[k]:.3g}: a is not positive definite")
    return lambda r: r / diagonal


def incomplete_cholesky(a: Array) -> Apply:
    """r -> (L Lᵀ)⁻¹ r, where L is Cholesky's factor with an entry only where A has one (IC(0)).

    L is stored densely here, for simple code; the gain is fewer steps. Raises ValueError when a
    pivot is not positive, which can happen for a positive definite A too: then add to its diagonal.
    """
    lower = np.tril(as_symmetric(a))
    filled = lower != 0
    for k in range(len(lower)):
        if not lower[k, k] > 0:
            raise ValueError(f"pivot {k} is {lower[k, k]:.3g}: add a ridge to the diagonal of a")
        lower[k:, k] /= np.sqrt(lower[k, k])
        below = lower[k + 1 :, k]
        lower[k + 1 :, k + 1 :] -= np.outer(below, below) * filled[k + 1 :, k + 1 :]
    return lambda r: solve_triangular(lower.T, solve_triangular(lower, r, lower=True))
