"""Checks of the data that every fit of the week makes, and the warnings that it may give.

A NaN, wrong labels or a constant column is reported in words before the fit begins: none of them
may turn into a silent NaN in the result.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


class ConvergenceWarning(UserWarning):
    """An iteration reached its limit of steps before its stopping rule was met."""


class CollinearWarning(UserWarning):
    """Columns depend on each other: the least-squares weights are one choice among many."""


class ConstantColumnWarning(UserWarning):
    """A column has one value only: it cannot be scaled to deviation 1, and predicts nothing."""


class SeparationWarning(UserWarning):
    """Some fitted probabilities are 0 or 1 to rounding: weights may be growing without bound."""


def table(x: Array, y: Array | None = None) -> tuple[Array, Array]:
    """x (N, D) and y (N,) as float64, checked; y is all zeros where none is given.

    Raises ValueError for other shapes, no rows, or a value that is NaN or infinite, and says where.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"x must be a table (rows, columns) with at least one of each, got shape {x.shape}; "
            "a single column is x[:, None]"
        )
    y = np.zeros(len(x)) if y is None else np.asarray(y, dtype=np.float64)
    if y.shape != (len(x),):
        raise ValueError(f"y must have one number for each of the {len(x)} rows, got {y.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        total = x.sum()  # nearly always enough, in a quarter of the time of checking each value
    if not np.isfinite(total) and not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(
            f"x[{row}, {column}] is {x[row, column]}: leave such rows out, or fill the gap with "
            "a value computed from training rows alone"
        )
    if not np.isfinite(y).all():
        row = int(np.argmax(~np.isfinite(y)))
        raise ValueError(f"y[{row}] is {y[row]}: a row without its target cannot be learned from")
    return x, y


def binary(y: Array) -> None:
    """Raises ValueError unless y (N,) holds only 0 and 1, and both of them."""
    values = np.unique(y)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"labels must be 0 or 1, got {values[:5].tolist()}; make them so, for instance with "
            "(y == positive).astype(float); more than two classes are for math_ml.softmax"
        )
    if len(values) < 2:
        raise ValueError(
            f"every label is {values[0]:.0f}: both classes are needed to tell them apart; "
            "was the table sorted by class before it was split?"
        )


def classes(labels: Array, count: int) -> None:
    """Raises ValueError unless labels (N,) are integers in 0..count - 1, of two classes or more."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be integers (N,), got {labels.dtype} of shape {labels.shape}; "
            "use labels.astype(int), or argmax(axis=1) of a one-hot table"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= count:
        raise ValueError(f"labels must be from 0 to {count - 1}, got {low} to {high}")
    if low == high:
        raise ValueError(f"every label is {low}: two classes or more are needed")


def not_negative(name: str, value: float) -> None:
    """Raises ValueError unless 0 <= value < inf."""
    if not 0 <= value < np.inf:
        raise ValueError(f"{name} must be 0 or more, got {value}")
