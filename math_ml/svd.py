"""Randomised SVD: the leading singular triplets from a few products with random vectors.

Halko, Martinsson and Tropp 2011, "Finding structure with randomness", algorithms 4.4 (randomised
subspace iteration) and 5.1 (direct SVD). Shapes: A (M, N), k the rank, l = k + oversampling.

    Y = A Ω          Ω Gaussian (N, l): Y spans nearly the space of A's leading k left vectors U
    Y ← A Aᵀ Y       q times: shrinks a small σ_j relative to a large σ_i by (σ_j/σ_i)² each time
    A ≈ Q Qᵀ A       Q an orthonormal basis of Y; the SVD of the small matrix QᵀA gives A's

2 q + 2 products of A with l columns replace the cubic work of a whole SVD. Ω misses a direction
only with small probability, and oversampling makes this probability tiny.
"""

from __future__ import annotations

import numpy as np

from labkit import exercise
from math_ml.operators import as_matrix

Array = np.ndarray


@exercise(minutes=25)
def randomized_svd(
    a: Array, rank: int, oversampling: int = 10, power_iterations: int = 4, seed: int = 0
) -> tuple[Array, Array, Array]:
    """The `rank` largest singular values and their vectors: A ≈ U diag(s) Vᵀ.

        Ω: (N, l) standard normal, l = rank + oversampling, at most min(M, N)
        Q = orth(A Ω)
        power_iterations times:  Q ← orth(Aᵀ Q),  Q ← orth(A Q)
        Ũ, s, Vᵀ = svd(Qᵀ A)         U = Q Ũ         keep `rank` of all three

    orth(Y) is Q of np.linalg.qr(Y): without it every column of Y turns towards the first singular
    vector, and those with σ below eps^(1/(2q+1)) σ₁ are lost to rounding.
    np.linalg.svd of the small matrix, full_matrices=False, is allowed.

    Args:
        a: (M, N), float32 or float64; results have its dtype. Not changed.
        rank: k.
        power_iterations: q; 4 is enough even for singular values that fall as slowly as 1/√i,
            0 is enough where they fall fast.
        seed: of np.random.default_rng.
    Returns:
        U (M, k), s (k,) descending, Vᵀ (k, N).
    Raises:
        ValueError for an a that is not a finite matrix (`as_matrix` checks it); for a rank below 1
        or above min(M, N), oversampling or power_iterations below 0 (`_check`); and for a rank
        above A's own: s_k <= max(M, N) eps s_1 (`_check_values`).
    """
    a = as_matrix(a)
    _check(a, rank, oversampling, power_iterations)
    size = min(rank + oversampling, *a.shape)
    omega = np.random.default_rng(seed).standard_normal((a.shape[1], size), dtype=a.dtype)
    q, _ = np.linalg.qr(a @ omega)
    for _ in range(power_iterations):
        q, _ = np.linalg.qr(a.T @ q)
        q, _ = np.linalg.qr(a @ q)
    u, s, vt = np.linalg.svd(q.T @ a, full_matrices=False)
    _check_values(a, s, rank)
    return q @ u[:, :rank], s[:rank], vt[:rank]


def _check(a: Array, rank: int, oversampling: int, power_iterations: int) -> None:
    if rank != int(rank) or not 1 <= rank <= min(a.shape):
        raise ValueError(
            f"rank must be a whole number from 1 to {min(a.shape)} for a matrix of shape "
            f"{a.shape}, got {rank}"
        )
    if oversampling < 0 or power_iterations < 0:
        raise ValueError(
            "oversampling and power_iterations must be 0 or more, "
            f"got {oversampling} and {power_iterations}"
        )


def _check_values(a: Array, s: Array, rank: int) -> None:
    """Raises ValueError when s (descending) shows that A has a rank below this."""
    true = int((s > max(a.shape) * np.finfo(a.dtype).eps * s[0]).sum())
    if true < rank:
        raise ValueError(
            f"rank is {rank}, but the matrix has rank {true} to rounding: singular vectors beyond "
            f"that are arbitrary; ask for at most {true}"
        )


def approximation_error(a: Array, u: Array, s: Array, vt: Array) -> tuple[float, float]:
    """‖A - U diag(s) Vᵀ‖ in the spectral and in the Frobenius norm, computed densely."""
    rest = a - (u * s) @ vt
    size = float(np.abs(rest).max()) or 1.0  # so that no square overflows or vanishes
    rest = rest / size
    gram = rest.T @ rest if rest.shape[0] > rest.shape[1] else rest @ rest.T
    return size * float(np.linalg.eigvalsh(gram)[-1] ** 0.5), size * float(np.linalg.norm(rest))
