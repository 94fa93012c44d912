"""SGD with momentum, Adam, and a learning-rate schedule; by hand and in place.

The conventions are PyTorch's, so torch.optim can be the reference: weight decay is added to the
gradient in SGD (L2), and subtracted from the weights in Adam (AdamW, Loshchilov and Hutter 2019).
Arrays are updated in place and keep their dtype, with one scratch buffer per parameter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit import exercise

Array = np.ndarray
Params = dict[str, Array]


class SGD:
    """Stochastic gradient descent with momentum (Polyak 1964), optionally in Nesterov's form.

    v ← μ v + (g + λ w)        w ← w - η v             Nesterov: w ← w - η (g + λ w + μ v)
    """

    def __init__(
        self,
        params: Params,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.params, self.momentum = params, momentum
        self.weight_decay, self.nesterov = weight_decay, nesterov
        self.state: dict[str, Any] = {"v": {k: np.zeros_like(w) for k, w in params.items()}}
        self._scratch = {k: np.empty_like(w) for k, w in params.items()}

    @exercise(minutes=10)
    def step(self, grads: Params, lr: float) -> None:
        """One update of all parameters, in place.

            g ← g + λ w        v ← μ v + g        w ← w - η v      (Nesterov: w ← w - η (g + μ v))

        Args:
            grads: g by name, each of its parameter's shape; they may be overwritten.
            lr: η, the learning rate of this step.
        Uses self.params (w), self.state["v"] (v), self.momentum (μ), self.weight_decay (λ) and
        self.nesterov; the arrays w and v are changed in place (a checkpoint refers to them).
        self._scratch has a free array per parameter.
        """
        for name, w in self.params.items():
            g, v, scratch = grads[name], self.state["v"][name], self._scratch[name]
            if self.weight_decay:
                g += np.multiply(w, self.weight_decay, out=scratch)
            v *= self.momentum
            v += g
            if self.nesterov:
                g += np.multiply(v, self.momentum, out=scratch)
                w -= np.multiply(g, lr, out=scratch)
            else:
                w -= np.multiply(v, lr, out=scratch)


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1), with decoupled weight decay when λ > 0.

    m ← β1 m + (1 - β1) g        m̂ = m / (1 - β1^t)
    v ← β2 v + (1 - β2) g²       v̂ = v / (1 - β2^t)        w ← w - η (m̂ / (√v̂ + ε) + λ w)
    """

    def __init__(
        self,
        params: Params,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.params, self.betas, self.eps, self.weight_decay = params, betas, eps, weight_decay
        self.state: dict[str, Any] = {
            "t": 0,
            "m": {k: np.zeros_like(w) for k, w in params.items()},
            "v": {k: np.zeros_like(w) for k, w in params.items()},
        }
        self._scratch = {k: np.empty_like(w) for k, w in params.items()}

    @exercise(minutes=20)
    def step(self, grads: Params, lr: float) -> None:
        """One update of all parameters, in place.

            t ← t + 1
            m ← β1 m + (1 - β1) g        v ← β2 v + (1 - β2) g²
            w ← w - η λ w - η (m / (1 - β1^t)) / (√(v / (1 - β2^t)) + ε)

        Args:
            grads: g by name, each of its parameter's shape; they may be overwritten.
            lr: η, the learning rate of this step.
        Uses self.params (w), self.betas (β1, β2), self.eps (ε), self.weight_decay (λ) and
        self.state ("t", "m", "v"); the arrays w, m and v are changed in place (a checkpoint refers
        to them). self._scratch has a free array per parameter.
        """
        beta1, beta2 = self.betas
        self.state["t"] += 1
        correction1 = 1 - beta1 ** self.state["t"]
        correction2 = 1 - beta2 ** self.state["t"]
        for name, w in self.params.items():
            g, scratch = grads[name], self._scratch[name]
            m, v = self.state["m"][name], self.state["v"][name]
            if self.weight_decay:
                w *= 1 - lr * self.weight_decay
            m *= beta1
            m += np.multiply(g, 1 - beta1, out=scratch)
            v *= beta2
            g *= g
            v += np.multiply(g, 1 - beta2, out=scratch)
            np.sqrt(v, out=scratch)
            scratch /= correction2**0.5
            scratch += self.eps
            np.divide(m, scratch, out=scratch)
            w -= np.multiply(scratch, lr / correction1, out=scratch)


def warmup_linear(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: up from 1/(warmup + 1) over `warmup` steps, then down to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (steps - step) / max(1, steps - warmup)
