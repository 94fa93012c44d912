"""Eigenvalues of a symmetric A from products A v alone: power iteration and Lanczos.

Lanczos 1950; Golub and Van Loan, Matrix Computations (4th ed.), chapter 10; Paige 1972 on the
effects of rounding. Shapes: D the size of A, K the steps of Lanczos.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from labkit import exercise
from math_ml.checks import ConvergenceWarning
from math_ml.operators import Operator, as_operator, norm, unit_vector

Array = np.ndarray


def rayleigh_quotient(a: Operator, v: Array) -> float:
    """vᵀ A v / vᵀ v: the best estimate of the eigenvalue that belongs to v (D,).

    Raises ValueError for a v of 0 or not finite.
    """
    v = unit_vector(v, "v")
    return float(v @ as_operator(a, len(v))(v))


def _check_steps(steps: int, most: int | None = None) -> None:
    if steps < 1 or (most is not None and steps > most):
        limit = f"from 1 to {most}, the size of a" if most is not None else "1 or more"
        raise ValueError(f"steps must be {limit}, got {steps}")


@exercise(minutes=15)
def power_iteration(
    a: Operator, start: Array, tol: float = 1e-8, max_steps: int = 10_000
) -> tuple[float, Array, int]:
    """The eigenvalue of largest absolute value of a symmetric A, and its unit eigenvector.

        v ← start / ‖start‖;  repeat:  w = A v,  λ = vᵀ w,  stop if ‖w - λ v‖ <= tol |λ|,
                                       v ← w / ‖w‖

    Take `norm` of math_ml.operators for ‖·‖: A may be so large or so small that squares overflow or
    vanish. For a symmetric A some eigenvalue lies within ‖w - λ v‖ of λ. The error of v shrinks by
    |λ₂/λ₁| a step: slowly when the two largest are near each other, not at all when λ₂ = -λ₁.

    Args:
        a: (D, D), or the function v -> A v; `as_operator(a, D)` makes a function of either.
        start: (D,), not 0. Best random: it must not be orthogonal to the eigenvector. Not changed.
        tol, max_steps: the stopping rule, and how many products A v at most (1 or more).
    Returns:
        λ, of either sign; v (D,), with ‖v‖ = 1; the number of products A v.
    Raises:
        ValueError for a start of 0 or not finite: `unit_vector(start)` checks it, and divides;
        for max_steps below 1: `_check_steps(max_steps)`.
    Warns:
        ConvergenceWarning, naming max_steps, when the stopping rule is not met after so many
        products; λ and v are then the last ones.
    """
    _check_steps(max_steps)
    v = unit_vector(start)
    apply = as_operator(a, len(v))
    for step in range(1, max_steps + 1):
        w = apply(v)
        value = float(v @ w)
        residual = norm(w - value * v)
        if residual <= tol * abs(value):
            return value, v, step
        if step < max_steps:
            v = w / norm(w)
    warnings.warn(
        f"after {max_steps} steps ‖Av - λv‖ is {residual:.1e}, not {tol:.0e}|λ|: the two largest "
        "|λ| are near each other; take more steps, or lanczos",
        ConvergenceWarning,
        stacklevel=2,
    )
    return value, v, max_steps


@exercise(minutes=30)
def lanczos(
    a: Operator, start: Array, steps: int, reorthonormalise: bool = True
) -> tuple[Array, Array, Array]:
    """An orthonormal basis Q of start, A start, A² start, ... in which A is tridiagonal.

        q₀ = start / ‖start‖,  and for k = 0, 1, ...
        w = A q_k - β_{k-1} q_{k-1}        α_k = q_kᵀ w        w ← w - α_k q_k
        w ← w - Q Qᵀ w, twice, over all q₀ ... q_k so far (if reorthonormalise)
        β_k = ‖w‖ (by `norm` of math_ml.operators: no square overflows)    q_{k+1} = w / β_k

    Then QᵀAQ is T, with α on its diagonal and β beside it. The line with Q Qᵀ changes nothing in
    exact arithmetic, but without it rounding brings back directions that were already found.
    Stops early when β_k <= D eps s, where s is the largest |α| + β so far and eps is that of
    start's dtype: the q's then span an invariant subspace, and every eigenvalue of T is one of A.

    Args:
        a: (D, D) symmetric, or v -> A v; `as_operator(a, D)` makes a function of either.
        start: (D,), not 0. Not changed.
        steps: K, from 1 to D with re-orthonormalisation, any number from 1 without.
    Returns:
        α (K,); β (K,), whose last entry couples Q to the rest of the space (about 0 after an early
        stop); Q (D, K). K is smaller than `steps` after an early stop.
    Raises:
        ValueError for a start of 0 or not finite: `unit_vector(start)` checks it, and divides; for
        steps out of range: `_check_steps(steps, D or None)`.
    """
    q = unit_vector(start)
    apply = as_operator(a, len(q))
    _check_steps(steps, len(q) if reorthonormalise else None)
    basis = np.zeros((len(q), steps), q.dtype)
    alpha, beta = np.zeros(steps, q.dtype), np.zeros(steps, q.dtype)
    scale = 0.0
    for k in range(steps):
        basis[:, k] = q
        w = apply(q)
        if k:
            w = w - beta[k - 1] * basis[:, k - 1]
        alpha[k] = q @ w
        w = w - alpha[k] * q
        for _ in range(2 if reorthonormalise else 0):
            done = basis[:, : k + 1]
            w -= done @ (done.T @ w)
        beta[k] = norm(w)
        scale = max(scale, abs(alpha[k]) + beta[k])
        if beta[k] <= len(q) * np.finfo(q.dtype).eps * scale:
            return alpha[: k + 1], beta[: k + 1], basis[:, : k + 1]
        q = w / beta[k]
    return alpha, beta, basis


@dataclass(frozen=True)
class Ritz:
    """Eigenpairs of T, carried back to A: ascending values (K,), vectors (D, K)."""

    values: Array
    vectors: Array
    bounds: Array
    """(K,): ‖A y - θ y‖ = β |last entry of T's eigenvector|, so an eigenvalue of A is that near."""


def ritz_pairs(alpha: Array, beta: Array, basis: Array) -> Ritz:
    """Lanczos's estimates of A's eigenvalues; the outermost converge first and are most exact."""
    tridiagonal = np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1)
    values, s = np.linalg.eigh(tridiagonal)
    return Ritz(values, basis @ s, beta[-1] * np.abs(s[-1]))


def largest_eigenpairs(
    a: Operator, start: Array, count: int, steps: int | None = None, tol: float = 1e-8
) -> tuple[Array, Array]:
    """The `count` algebraically largest eigenvalues, descending, and vectors (D, count).

    Lanczos finds a repeated eigenvalue of A only once: a start vector has only one direction in
    its eigenspace. `steps` is 2 count + 20 by default, and at most D.

    Raises ValueError for a count outside 1 to D, or when the start vector reaches fewer pairs.
    Warns with ConvergenceWarning when a residual is above tol times the largest |θ|.
    """
    size = len(start)
    if not 1 <= count <= size:
        raise ValueError(f"count must be from 1 to {size}, the size of a, got {count}")
    ritz = ritz_pairs(*lanczos(a, start, min(size, max(count, steps or 2 * count + 20))))
    if len(ritz.values) < count:
        raise ValueError(
            f"start reaches {len(ritz.values)} eigenvectors, fewer than {count}: a has repeated "
            "eigenvalues, or start lies in a small invariant subspace; ask for fewer"
        )
    worst = float(ritz.bounds[-count:].max())
    if worst > tol * np.abs(ritz.values).max():
        warnings.warn(
            f"an eigenpair has the residual {worst:.1e}: take more than {len(ritz.values)} steps",
            ConvergenceWarning,
            stacklevel=2,
        )
    return ritz.values[: -count - 1 : -1], ritz.vectors[:, : -count - 1 : -1]


def ghosts(values: Array, tol: float = 1e-6) -> int:
    """How many of the values repeat another one, to within tol times the largest |value|.

    In exact arithmetic Lanczos never finds an eigenvalue twice. A repeated one is called a ghost:
    it shows that the basis has lost its orthogonality.
    """
    gaps = np.diff(np.sort(values))
    return int((gaps <= tol * np.abs(values).max()).sum())
