"""Softmax cross-entropy and its gradient, in a form that cannot overflow.

    log p_k = z_k - logsumexp(z)             L = -(1/N) Σ_n Σ_k q_nk log p_nk
    ∂L/∂z = (p - q) / N

q is the target: 1 for the label, or (1 - ε) for the label and ε/K spread over all K classes (label
smoothing, Szegedy et al. 2016, §7). Shapes: N examples, K classes.
"""

from __future__ import annotations

import numpy as np

from labkit import exercise

Array = np.ndarray


@exercise(minutes=15)
def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[float, Array]:
    """Mean cross-entropy of softmax(logits) against labels, and its gradient.

        log p = z - max z - log Σ exp(z - max z)     (the max keeps exp from overflowing)
        q = (1 - ε) onehot(label) + ε/K
        L = mean_n Σ_k -q log p                      ∂L/∂z = (p - q) / N

    The difference of two float32 logits may be beyond float32: log p is then -∞, p is 0, and L
    is ∞ if q is not 0. Where q is 0, q log p is 0: neither L nor its gradient is ever NaN.

    Args:
        logits: z, (N, K), any float dtype; finite, however large. Not changed.
        labels: classes 0..K-1, integers, (N,).
        smoothing: ε, from 0 to 1.
    Returns:
        L as a float, and ∂L/∂z, (N, K), in the dtype of the logits.
    """
    n, classes = logits.shape
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))  # (N, K)
    rows = np.arange(n)
    loss = 0.0
    if smoothing < 1:  # 0 · ∞ would be NaN
        loss -= (1 - smoothing) * float(log_p[rows, labels].mean())
    if smoothing > 0:
        loss -= smoothing * float(log_p.mean())
    grad = np.exp(log_p)
    grad -= smoothing / classes
    grad[rows, labels] -= 1 - smoothing
    grad /= n
    return loss, grad
