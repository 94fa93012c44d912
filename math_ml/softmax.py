"""Softmax regression: logistic regression with K classes instead of two.

    z = x W + b        p_k = e^z_k / Σ_j e^z_j        L = -(1/N) Σ_n log p_n(label) + λ/2 ‖W‖²

(The Elements of Statistical Learning, section 4.4.) Shapes: N rows, D columns, K classes.
"""

from __future__ import annotations

import numpy as np

from labkit import exercise
from math_ml import checks
from math_ml.model import Params, init

Array = np.ndarray


@exercise(minutes=25)
def loss_and_gradient(
    params: Params, x: Array, labels: Array, l2: float = 0.0
) -> tuple[float, Params]:
    """L and its gradient by W and b.

        z = x W + b          log p = z - max z - log Σ_k e^(z_k - max z)      (each row by itself)
        L = -mean_n log p_n(label) + λ/2 Σ W²
        ∂L/∂W = xᵀ(p - onehot)/N + λ W              ∂L/∂b = Σ_n (p - onehot)/N

    Subtracting the row's maximum leaves the result as it is and keeps e^z from overflowing. b is
    not penalised. Nothing becomes NaN however large finite logits and weights are: with λ = 0 the
    penalty is 0 even if Σ W² is infinite, and L is infinite only where log p, or the penalty, is
    beyond the dtype.

    Args:
        params: "W" (D, K) and "b" (K,), of one float dtype; not changed.
        x: (N, D) of the same dtype, not changed.
        labels: classes 0..K-1, integers, (N,).
        l2: λ.
    Returns:
        L as a float, and the gradients under "W" and "b", in the dtype of the parameters.
    """
    w, rows = params["W"], np.arange(len(x))
    z = x @ w + params["b"]  # (N, K)
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z)
    total = p.sum(axis=1, keepdims=True)
    loss = float((np.log(total[:, 0]) - z[rows, labels]).mean())
    p /= total
    p[rows, labels] -= 1  # p - onehot
    p /= len(x)
    if l2:  # 0 · ∞ would be NaN
        loss += 0.5 * l2 * float((w * w).sum())
    return loss, {"W": x.T @ p + l2 * w, "b": p.sum(axis=0)}


def momentum_step(
    params: Params, velocity: Params, grads: Params, lr: float, momentum: float
) -> None:
    """v ← μ v + g, w ← w - η v, in place (Polyak 1964)."""
    for name, w in params.items():
        v = velocity[name]
        v *= momentum
        v += grads[name]
        w -= lr * v


def fit_softmax(
    x: Array, labels: Array, classes: int, l2: float = 1e-3, steps: int = 2000, tol: float = 1e-7
) -> tuple[Params, float]:
    """All rows at once, by Nesterov's accelerated gradient with restarts, in float64.

    For small tables: it ends at the optimum and has no learning rate to choose. Returns the
    parameters and L. Stops when no entry of the gradient is above tol; warns with
    ConvergenceWarning when `steps` were not enough. Raises ValueError for a bad table or labels.
    """
    import warnings

    x, _ = checks.table(x)
    labels = np.asarray(labels)
    if labels.shape != (len(x),):
        raise ValueError(f"one label for each of the {len(x)} rows, got shape {labels.shape}")
    checks.classes(labels, classes)
    w = init(x.shape[1], classes, np.float64)
    # The Hessian of log Σ e^z is at most 1/2; with b's column of ones the bound is ‖[x 1]‖²/2N.
    bound = (np.linalg.norm(x, 2) ** 2 + len(x)) / (2 * len(x)) + l2
    ahead, t, largest = {k: v.copy() for k, v in w.items()}, 1.0, np.inf
    for _ in range(steps):
        _, grads = loss_and_gradient(ahead, x, labels, l2)
        largest = max(float(np.abs(g).max()) for g in grads.values())
        if largest <= tol:
            break
        new = {k: ahead[k] - grads[k] / bound for k in w}
        if sum(float(((ahead[k] - new[k]) * (new[k] - w[k])).sum()) for k in w) > 0:
            t = 1.0  # the momentum points uphill: restart it
        t_next = (1 + (1 + 4 * t * t) ** 0.5) / 2
        ahead = {k: new[k] + (t - 1) / t_next * (new[k] - w[k]) for k in w}
        w, t = new, t_next
    if largest > tol:
        warnings.warn(
            f"after {steps} steps the largest slope is {largest:.1e}, above tol={tol:.0e}: "
            "standardise the columns, take more steps or a larger l2",
            checks.ConvergenceWarning,
            stacklevel=2,
        )
    return ahead, loss_and_gradient(ahead, x, labels, l2)[0]
