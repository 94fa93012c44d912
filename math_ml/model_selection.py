"""Choosing a model with an honest estimate: splits, folds, and scaling without leakage.

Everything that is learned from rows (means and deviations, which columns to keep, α) is learned
from training rows alone, and inside cross-validation from each fold's training part alone (The
Elements of Statistical Learning, section 7.10.2, "The Wrong and Right Way to Do Cross-validation").
Letters: N rows, D columns, K folds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from labkit import exercise
from math_ml import checks
from math_ml.operators import column_norms

Array = np.ndarray
Fold = tuple[Array, Array]
"""Indices of the training rows, and of the validation rows."""
Predictor = Callable[[Array], Array]
Fit = Callable[[Array, Array], Predictor]
"""Takes training rows and targets; returns a function that predicts for other rows."""


@dataclass
class Standardizer:
    """Columns to mean 0 and deviation 1, by the means and deviations of the rows it was fitted on.

    Deviations divide by N, as scikit-learn's StandardScaler does.
    """

    mean: Array
    std: Array

    @classmethod
    @exercise(minutes=10)
    def fit(cls, x: Array) -> Standardizer:
        """Mean and deviation of each column of x (N, D): cls(mean, std), both (D,) float64.

        The deviation is √(Σ (x - mean)²/N). A column with one value only gets the deviation 1, so
        that it becomes 0 and not NaN. One checks.ConstantColumnWarning names all such columns. Find
        them by max = min: the rounded deviation of such a column need not be 0.
        Sums and squares may overflow, or vanish, where x does not: divide a column by its largest
        |x| first, and multiply mean and deviation by it at the end.
        x is not changed; it may be float32 or integers, the computation is in float64.
        Raises ValueError for a value that is NaN or infinite (`checks.table(x)` does).
        """
        x, _ = checks.table(x)
        constant = x.max(axis=0) == x.min(axis=0)
        size = np.abs(x).max(axis=0)
        size = np.where(size > 0, size, 1.0)
        x = x / size
        if constant.any():
            warnings.warn(
                f"columns {np.flatnonzero(constant).tolist()} have one value only in these rows "
                "and become 0: they predict nothing",
                checks.ConstantColumnWarning,
                stacklevel=2,
            )
        return cls(size * x.mean(axis=0), np.where(constant, 1.0, size * x.std(axis=0)))

    def __call__(self, x: Array) -> Array:
        """(x - mean)/std of any rows (N, D)."""
        return (np.asarray(x, dtype=np.float64) - self.mean) / self.std


def train_valid_split(rows: int, share: float, seed: int = 0) -> Fold:
    """Shuffled indices of training and validation rows, `share` of them for validation."""
    valid = round(share * rows)
    if not 0 < valid < rows:
        raise ValueError(
            f"share={share} of {rows} rows leaves {valid} for validation; it must leave at least "
            "one on either side"
        )
    order = np.random.default_rng(seed).permutation(rows)
    return order[valid:], order[:valid]


@exercise(minutes=10)
def k_fold(rows: int, folds: int, seed: int = 0) -> list[Fold]:
    """K pairs (train, valid) of row indices: every row is in exactly one `valid`, and in each other
    pair's `train`.

    The rows are shuffled first, by np.random.default_rng(seed): tables are often sorted, and a fold
    with one kind of row only is a useless test. The sizes of the K `valid` differ by one row at
    most. The same seed gives the same pairs, and NumPy's global generator is not used.

    Raises ValueError unless 2 <= folds <= rows.
    """
    if not 2 <= folds <= rows:
        raise ValueError(f"folds must be from 2 to the {rows} rows there are, got {folds}")
    parts = np.array_split(np.random.default_rng(seed).permutation(rows), folds)
    return [(np.concatenate(parts[:i] + parts[i + 1 :]), parts[i]) for i in range(folds)]


def standardized(fit: Fit) -> Fit:
    """`fit` on standardised columns: the scaling is part of the model, so each fold has its own."""

    def scaled(x: Array, y: Array) -> Predictor:
        scale = Standardizer.fit(x)
        predict = fit(scale(x), y)
        return lambda rows: predict(scale(rows))

    return scaled


def out_of_fold(fit: Fit, x: Array, y: Array, folds: Sequence[Fold]) -> Array:
    """Prediction for each row (N,) by the model that was fitted without its fold."""
    predicted = np.full(len(y), np.nan)
    for train, valid in folds:
        predicted[valid] = fit(x[train], y[train])(x[valid])
    return predicted


def fold_errors(fits: Sequence[Fit], x: Array, y: Array, folds: Sequence[Fold]) -> Array:
    """Mean squared error on each fold's validation rows for each of the fits: (len(fits), K)."""
    errors = np.empty((len(fits), len(folds)))
    for i, fit in enumerate(fits):
        predicted = out_of_fold(fit, x, y, folds)
        errors[i] = [np.mean((predicted[valid] - y[valid]) ** 2) for _, valid in folds]
    return errors


def best_of(errors: Array, one_standard_error: bool = False) -> int:
    """Row of `fold_errors` to choose: the least mean, or the first within one standard error of it.

    For the second, fits go from the simplest to the most complex (ESL, section 7.10.1). A fit with
    an error that is NaN is never chosen.
    Raises ValueError when all are, and when the rule needs a standard error but has a single fold.
    """
    means = np.where(np.isnan(errors), np.inf, errors).mean(axis=1)
    best = int(means.argmin())
    if not np.isfinite(means[best]):
        raise ValueError("every fit has an error that is not finite: there is nothing to choose")
    if not one_standard_error:
        return best
    if errors.shape[1] < 2:
        raise ValueError("one fold has no standard error: take two folds or more")
    margin = errors[best].std(ddof=1) / np.sqrt(errors.shape[1])
    return int(np.argmax(means <= means[best] + margin))


def r2(y: Array, predicted: Array) -> float:
    """1 - Σ(y - ŷ)²/Σ(y - mean y)²: 1 is perfect, predicting the mean of y gets 0, < 0 is worse."""
    if y.max() == y.min():  # their rounded spread need not be 0
        raise ValueError("r2 needs targets that differ: all of them are equal")
    off = y - y.mean()
    size = np.abs(off).max()  # so that no square overflows or vanishes
    return 1 - float((((y - predicted) / size) ** 2).sum() / ((off / size) ** 2).sum())


def most_correlated(x: Array, y: Array, count: int) -> Array:
    """Indices (count,) of the columns with the greatest |correlation| with y.

    This selection uses y, so it belongs inside the folds. A column with one value only has the
    correlation 0.
    """
    xc, yc = x - x.mean(axis=0), y - y.mean()
    constant = x.max(axis=0) == x.min(axis=0)  # after centring they may be rounding errors, not 0
    length = np.where(constant, np.inf, column_norms(xc))
    score = np.abs((xc / length).T @ yc)
    return np.argsort(-score)[:count]
