"""The models that the week trains: what they predict from weights that a fit has found.

    linear      y ≈ x w + b
    logistic    P(y = 1 | x) = σ(x w + b)                   two classes
    softmax     z = x W + b,  p_k = e^z_k / Σ_j e^z_j       K classes

The fits are in the modules of those names, and in `lasso`. Softmax regression is trained step by
step, so its weights are a plain dict of arrays, which a checkpoint can hold. Letters: N rows,
D columns, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Params = dict[str, Array]
"""Of softmax regression: "W" (D, K) and "b" (K,); gradients have the same names and shapes."""


@dataclass(frozen=True)
class LinearModel:
    """Weights (D,) and intercept; what every linear fit of the week returns."""

    coef: Array
    intercept: float

    def __post_init__(self) -> None:
        """Raises ValueError for weights that are not finite: no fit ends in a silent NaN."""
        if not (np.isfinite(self.coef).all() and np.isfinite(self.intercept)):
            raise ValueError(
                "the weights overflowed: descent took too large a step (try half of it), or the "
                "squares of the table's numbers are beyond floating point (divide the columns by "
                "their size)"
            )

    def predict(self, x: Array) -> Array:
        """x (N, D) -> (N,)."""
        return np.asarray(x, dtype=np.float64) @ self.coef + self.intercept


@dataclass(frozen=True)
class LogisticModel(LinearModel):
    """Weights and intercept, with P after each step (P at 0 first)."""

    objective: tuple[float, ...]

    def probability(self, x: Array) -> Array:
        """P(y = 1 | x) of the rows x (N, D): (N,)."""
        return sigmoid(self.predict(x))


def sigmoid(z: Array) -> Array:
    """1/(1 + e^-z), of any shape, by e^-|z| alone: nothing overflows."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def init(columns: int, classes: int, dtype: type = np.float32) -> Params:
    """Zeros: W (D, K) and b (K,). The loss is convex, so any start is fine."""
    return {"W": np.zeros((columns, classes), dtype), "b": np.zeros(classes, dtype)}


def logits(params: Params, x: Array) -> Array:
    """z = x W + b of the rows x (N, D): (N, K)."""
    return x @ params["W"] + params["b"]


def accuracy(params: Params, x: Array, labels: Array) -> float:
    """Percentage of rows whose greatest logit is the label's."""
    return 100 * float((logits(params, x).argmax(axis=1) == labels).mean())
