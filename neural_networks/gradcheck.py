"""The gradient by finite differences: a reference that needs no library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labkit import exercise

Array = np.ndarray


@exercise(minutes=15)
def numerical_gradient(loss: Callable[[], float], w: Array, eps: float = 1e-6) -> Array:
    """∂L/∂w by central differences, one entry of w at a time.

        ∂L/∂w_i ≈ (L(w + ε e_i) - L(w - ε e_i)) / 2ε       error O(ε²), rounding O(u/ε)

    Args:
        loss: computes L from the present values of the arrays, w among them.
        w: float64, any shape; every entry is changed and restored, so w is the same afterwards.
        eps: ε. Near the cube root of the rounding unit u both errors are small: 1e-6 for float64.
    Returns:
        The gradient, of w's shape.
    Raises:
        ValueError for other dtypes: in float32, L(w + ε) - L(w - ε) is mostly rounding.
    """
    if w.dtype != np.float64:
        raise ValueError(f"finite differences need float64, got {w.dtype}: use w.astype(float)")
    grad = np.empty_like(w)
    for index in np.ndindex(w.shape):
        kept = w[index]
        w[index] = kept + eps
        above = loss()
        w[index] = kept - eps
        below = loss()
        w[index] = kept
        grad[index] = (above - below) / (2 * eps)
    return grad


def relative_error(a: Array, b: Array) -> float:
    """‖a - b‖ / (‖a‖ + ‖b‖): 0 when equal, about 1e-8 for a correct gradient in float64.

    Computed in float64 from a and b divided by their largest entry, so that squares neither
    overflow nor vanish: gradients of 1e-25 in float32 would all seem equal. NaN for a NaN.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    size = max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))
    if size == 0:
        return 0.0
    a, b = a / size, b / size
    return float(np.linalg.norm(a - b) / (np.linalg.norm(a) + np.linalg.norm(b)))
