"""Arguments of the week's linear algebra: matrices, vectors, and operators v -> A v; all checked.

An iterative method only multiplies by A, so A may be an array or a function.
float32 stays float32; whole numbers become float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Apply = Callable[[Array], Array]
Operator = Array | Apply
"""A as an array (D, D), or as the function v (D,) -> A v (D,)."""


def _finite(a: Array, name: str) -> Array:
    a = np.asarray(a)
    if a.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, got {a.dtype}")
    if a.dtype not in (np.float32, np.float64):
        a = a.astype(np.float64)
    if not np.isfinite(a).all():
        index = tuple(np.argwhere(~np.isfinite(a))[0].tolist())
        where = ", ".join(map(str, index))
        raise ValueError(f"{name}[{where}] is {a[index]}: every entry must be finite")
    return a


def as_matrix(a: Array, name: str = "a") -> Array:
    """a (M, N) as float32 or float64, not copied when it already has that type.

    Raises ValueError for another number of axes, no entries, NaN or infinity, and says where.
    """
    a = np.asarray(a)
    if a.ndim != 2 or a.size == 0:
        raise ValueError(
            f"{name} must be a matrix (rows, columns) with at least one of each, "
            f"got shape {a.shape}; a single column is {name}[:, None]"
        )
    return _finite(a, name)


def as_symmetric(a: Array, name: str = "a") -> Array:
    """a (D, D), checked as by `as_matrix`. Raises ValueError unless it equals its transpose.

    Rounding may differ: entries are compared to 100 units of rounding of the largest.
    """
    a = as_matrix(a, name)
    if a.shape[0] != a.shape[1]:
        raise ValueError(f"{name} must be square, got shape {a.shape}")
    gap = np.abs(a - a.T)
    if gap.max() > 100 * np.finfo(a.dtype).eps * np.abs(a).max():
        i, j = np.unravel_index(gap.argmax(), gap.shape)
        raise ValueError(
            f"{name} must be symmetric, but {name}[{i}, {j}] is {a[i, j]:.6g} and "
            f"{name}[{j}, {i}] is {a[j, i]:.6g}"
        )
    return a


def as_vector(b: Array, name: str = "b") -> Array:
    """b (D,) as float32 or float64. Raises ValueError for another shape, NaN or infinity."""
    b = np.asarray(b)
    if b.ndim != 1 or b.size == 0:
        raise ValueError(f"{name} must be a vector of at least one number, got shape {b.shape}")
    return _finite(b, name)


def as_columns(b: Array, rows: int, name: str = "b") -> Array:
    """b (rows,) or (rows, P) as float32 or float64. Raises ValueError as `as_vector`."""
    b = np.asarray(b)
    if b.ndim not in (1, 2) or len(b) != rows or b.size == 0:
        raise ValueError(
            f"{name} must be ({rows},) or ({rows}, P), one row for each of the matrix's, "
            f"got shape {b.shape}"
        )
    return _finite(b, name)


def unit_vector(start: Array, name: str = "start") -> Array:
    """start / ‖start‖. Raises ValueError for 0, and as `as_vector`."""
    start = as_vector(start, name)
    if not start.any():
        raise ValueError(f"{name} is 0 and has no direction: take a random vector")
    start = start / np.abs(start).max()  # first, because a norm below the smallest float is rounded
    return start / np.linalg.norm(start)


def norm(v: Array) -> float:
    """‖v‖ of v (D,), D of 1 or more.

    Unlike np.linalg.norm its squares neither overflow nor vanish where v itself does not: in
    float32 numbers near 1e-23 and 1e19 are already too small and too large to be squared.
    """
    return float(column_norms(v.astype(np.float64)))


def column_norms(a: Array) -> Array:
    """‖a_j‖ of each column of a (M, N): (N,); as exact as `norm`, in the dtype of a."""
    size = np.abs(a).max(axis=0)
    size = np.where((size > 0) & (size < np.inf), size, 1).astype(a.dtype)
    return size * np.linalg.norm(a / size, axis=0)


def as_operator(a: Operator, size: int) -> Apply:
    """The function v (size,) -> A v; an array must be symmetric and (size, size).

    A function is assumed to be linear and symmetric: that cannot be checked cheaply. Its result A v
    is checked each time. Raises ValueError for another shape, NaN or infinity.
    """
    if callable(a):
        return lambda v: _fits(as_vector(a(v), "a(v)"), size)
    matrix = as_symmetric(a)
    if len(matrix) != size:
        raise ValueError(f"a has shape {matrix.shape}, but the vector has {size} numbers")
    return lambda v: as_vector(matrix @ v, "a(v)")


def _fits(v: Array, size: int) -> Array:
    if len(v) != size:
        raise ValueError(f"a(v) has {len(v)} numbers, but v has {size}")
    return v
