"""QR by Householder reflections: A (M, N) = Q R, Q orthogonal, R upper triangular; K = min(M, N).

A reflection H = I - τ v vᵀ turns a column into a multiple of e₁; one after another they turn A into
R, and Q = H₁ H₂ ... H_K is never formed unless it is asked for (Golub and Van Loan, Matrix
Computations, chapter 5).

Signs are LAPACK's, and so numpy.linalg.qr's: r_kk has the sign opposite to that of the entry it
replaces, except where nothing lies below that entry: then H = I, and r_kk is the entry itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from labkit import exercise
from math_ml.operators import as_columns, as_matrix, column_norms

Array = np.ndarray


@exercise(minutes=20)
def reflector(x: Array) -> tuple[Array, float, float]:
    """The reflection H = I - τ v vᵀ with v₀ = 1 that turns x into β e₁ = (β, 0, ..., 0).

    Reflections keep lengths, so |β| = ‖x‖. Of both signs take the one opposite to x₀'s (+ counts
    as the sign of 0), for then x₀ - β adds two numbers of one sign and no digit is lost:

        β = -sign(x₀) ‖x‖        v = (x - β e₁) / (x₀ - β)        τ = (β - x₀) / β

    When x₁, x₂, ... are all 0 there is nothing to do: τ = 0, β = x₀, v = e₁. The squares in ‖x‖
    may overflow, or vanish, where x does not, and x₀ - β may too: divide x by its largest |x_i|
    first, which changes neither v nor τ, and multiply β by it.

    Args:
        x: (M,), M of 1 or more, float32 or float64. Not changed.
    Returns:
        v (M,) in x's dtype, τ and β.
    """
    v = np.zeros_like(x)
    v[0] = 1
    if not x[1:].any():
        return v, 0.0, x[0]
    scale = np.abs(x).max()
    x = x / scale
    beta = -np.copysign(np.linalg.norm(x), x[0])
    v[1:] = x[1:] / (x[0] - beta)
    return v, (beta - x[0]) / beta, scale * beta


@dataclass(frozen=True)
class Factors:
    """A = Q R with Q stored as its reflections."""

    vectors: Array
    """(M, K): column k holds v of the k-th reflection, 0 above its row k."""
    taus: Array
    """(K,)"""
    r: Array
    """(K, N), upper triangular, or trapezoidal when A is wide."""


def factor(a: Array) -> Factors:
    """The reflections and R of A (M, N): 2 N² (M - N/3) floating-point operations for M >= N.

    Raises ValueError for a matrix that is empty or has an entry that is not finite.
    """
    r = as_matrix(a).copy()
    rows, columns = r.shape
    count = min(rows, columns)
    vectors, taus = np.zeros((rows, count), r.dtype), np.zeros(count, r.dtype)
    for k in range(count):
        v, tau, beta = reflector(r[k:, k])
        r[k:, k + 1 :] -= np.outer(tau * v, v @ r[k:, k + 1 :])
        r[k, k], r[k + 1 :, k] = beta, 0
        vectors[k:, k], taus[k] = v, tau
    return Factors(vectors, taus, r[:count])


def _reflect(factors: Factors, b: Array, order: range) -> Array:
    """The reflections applied to b (M,) or (M, P), one after another in this order."""
    b = as_columns(b, len(factors.vectors))
    b = b.astype(np.result_type(b, factors.r))
    for k in order:
        v = factors.vectors[k:, k]
        b[k:] -= np.multiply.outer(factors.taus[k] * v, v @ b[k:])
    return b


def apply_q(factors: Factors, b: Array) -> Array:
    """Q b for b (M,) or (M, P), with the square Q (M, M) that is never formed."""
    return _reflect(factors, b, range(len(factors.taus) - 1, -1, -1))


def apply_qt(factors: Factors, b: Array) -> Array:
    """Qᵀ b for b (M,) or (M, P): the same reflections, the first one first."""
    return _reflect(factors, b, range(len(factors.taus)))


def householder_qr(a: Array, mode: Literal["reduced", "full"] = "reduced") -> tuple[Array, Array]:
    """Q and R with A = Q R and QᵀQ = I, also for columns that depend on each other.

    Args:
        a: (M, N), float32 or float64. Not changed.
        mode: "reduced" gives Q (M, K) and R (K, N), "full" gives Q (M, M) and R (M, N).
    Raises:
        ValueError for another mode, an empty matrix, or an entry that is not finite.
    """
    if mode not in ("reduced", "full"):
        raise ValueError(f"mode must be 'reduced' or 'full', got {mode!r}")
    factors = factor(a)
    rows, count = factors.vectors.shape
    width = rows if mode == "full" else count
    q = apply_q(factors, np.eye(rows, width, dtype=factors.r.dtype))
    r = np.pad(factors.r, ((0, width - count), (0, 0)))
    return q, r


def solve_triangular(r: Array, b: Array, lower: bool = False) -> Array:
    """x with R x = b by back substitution, or by forward substitution when R is lower triangular.

    Args:
        r: (D, D); the other triangle is not read.
        b: (D,) or (D, P).
    Raises:
        ValueError for shapes that do not fit, an entry that is not finite, or a 0 on the diagonal:
        it names the column.
    """
    r = as_matrix(r, "r")
    size = len(r)
    if r.shape != (size, size):
        raise ValueError(f"r must be square, got shape {r.shape}")
    b = as_columns(b, size)
    if not r.diagonal().all():
        k = int(np.argmin(np.abs(r.diagonal())))
        raise ValueError(f"r[{k}, {k}] is 0: column {k} depends on the others, r is singular")
    x = b.astype(np.result_type(b, r))
    for k in range(size) if lower else range(size - 1, -1, -1):
        known = slice(0, k) if lower else slice(k + 1, size)
        x[k] = (x[k] - r[k, known] @ x[known]) / r[k, k]
    return x


def least_squares(a: Array, b: Array) -> Array:
    """x (N,) or (N, P) that minimises ‖b - A x‖, by R x = Qᵀ b.

    |r_kk| is the distance of column k from the plane of the columns before it. If this distance is
    only rounding error compared with the column's length, the column depends on them.

    Raises ValueError when A (M, N) has fewer rows than columns, or for the first dependent column.
    """
    a, factors = as_matrix(a), factor(a)
    rows, columns = a.shape
    b = as_columns(b, rows)
    if rows < columns:
        raise ValueError(f"a has {columns} columns and only {rows} rows: x is not determined")
    lengths = column_norms(a)
    distances = np.abs(factors.r.diagonal())
    dependent = distances <= 10 * rows * np.finfo(a.dtype).eps * lengths
    if dependent.any():
        k = int(dependent.argmax())
        why = "follows from the columns before it" if lengths[k] else "is all 0"
        raise ValueError(f"column {k} {why}, so that x is not determined: leave it out")
    return solve_triangular(factors.r, apply_qt(factors, b)[:columns])
