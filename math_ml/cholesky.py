"""Cholesky: A = L Lᵀ for a symmetric positive definite A (D, D); half the work of elimination.

It is also the cheapest test of positive definiteness: it succeeds if and only if A is positive
definite (to rounding). Golub and Van Loan, Matrix Computations, chapter 4.
"""

from __future__ import annotations

import numpy as np

from math_ml.operators import as_symmetric
from math_ml.qr import solve_triangular

Array = np.ndarray


def cholesky(a: Array) -> Array:
    """L (D, D), lower triangular with a positive diagonal, such that A = L Lᵀ; column by column.

        l_kk = √(a_kk - Σ_j l_kj²)        l_ik = (a_ik - Σ_j l_ij l_kj) / l_kk,  j < k < i

    Raises ValueError for an A that is not symmetric or not finite, and for the first k at which
    the value under the root is not above rounding error: A is then not positive definite.
    """
    a = as_symmetric(a)
    lower = np.zeros_like(a)
    rounding = len(a) * np.finfo(a.dtype).eps
    for k in range(len(a)):
        done = lower[k:, :k]
        column = a[k:, k] - done @ done[0]
        if not column[0] > rounding * a[k, k]:
            raise ValueError(
                f"a is not positive definite (to rounding): the pivot of column {k} is "
                f"{column[0]:.3g}, where a[{k}, {k}] is {a[k, k]:.3g}; add a ridge to its "
                "diagonal, or leave out columns that depend on others"
            )
        lower[k:, k] = column / np.sqrt(column[0])
    return lower


def cholesky_solve(lower: Array, b: Array) -> Array:
    """x with L Lᵀ x = b, for b (D,) or (D, P): forward with L, then backward with Lᵀ."""
    return solve_triangular(lower.T, solve_triangular(lower, b, lower=True))
