"""A network of two layers: initialisation, forward pass, backward pass.

    z = x W1 + b1       h = f(z)       logits = h W2 + b2

LeCun et al. 1998, section III.C: the one-hidden-layer fully connected network, 784-300-10. The
parameters are a plain dict of arrays, which is all that optimiser and checkpoint need.
Shapes: N examples, D inputs, H hidden units, K classes.
"""

from __future__ import annotations

import numpy as np

from labkit import exercise
from neural_networks.activations import Activation, relu

Array = np.ndarray
Params = dict[str, Array]
"""W1 (D, H), b1 (H,), W2 (H, K), b2 (K,); gradients have the same names and shapes."""


def init(
    inputs: int,
    hidden: int,
    classes: int,
    seed: int,
    activation: Activation = relu,
) -> Params:
    """Random float32 parameters: W ~ N(0, (gain / √fan_in)²), biases 0.

    The last layer has gain 1: no activation follows it.
    """
    rng = np.random.default_rng(seed)

    def weights(fan_in: int, fan_out: int, gain: float) -> Array:
        draw = rng.standard_normal((fan_in, fan_out), dtype=np.float32)
        return draw * np.float32(gain / fan_in**0.5)

    return {
        "W1": weights(inputs, hidden, activation.gain),
        "b1": np.zeros(hidden, np.float32),
        "W2": weights(hidden, classes, 1.0),
        "b2": np.zeros(classes, np.float32),
    }


@exercise(minutes=10)
def forward(params: Params, x: Array, activation: Activation = relu) -> tuple[Array, Array]:
    """Logits of a batch, and the hidden layer that the backward pass will need.

        h = f(x W1 + b1)        logits = h W2 + b2

    Args:
        x: (N, D), in the dtype of the parameters. Neither x nor a parameter is changed.
        activation: f; `activation.apply(z)` writes f(z) into z.
    Returns:
        logits (N, K) and h (N, H).
    """
    hidden = x @ params["W1"]
    hidden += params["b1"]
    activation.apply(hidden)
    return hidden @ params["W2"] + params["b2"], hidden


@exercise(minutes=25)
def backward(
    params: Params, x: Array, hidden: Array, dlogits: Array, activation: Activation = relu
) -> Params:
    """Gradients of the loss L by the chain rule, from the last layer to the first.

        ∂L/∂W2 = hᵀ ∂L/∂logits       ∂L/∂b2 = Σ_n ∂L/∂logits_n
        ∂L/∂h  = ∂L/∂logits W2ᵀ      ∂L/∂z  = ∂L/∂h f'(z)
        ∂L/∂W1 = xᵀ ∂L/∂z            ∂L/∂b1 = Σ_n ∂L/∂z_n

    Args:
        x, hidden: what `forward` was given and returned, (N, D) and (N, H). Not changed.
        dlogits: ∂L/∂logits, (N, K), already divided by N if L is a mean. Not changed.
        activation: f; `activation.backprop(grad, h)` turns ∂L/∂h, in place, into ∂L/∂z.
    Returns:
        A gradient for every parameter, of its shape and dtype.
    """
    grads = {"W2": hidden.T @ dlogits, "b2": dlogits.sum(axis=0)}
    dz = activation.backprop(dlogits @ params["W2"].T, hidden)
    return {"W1": x.T @ dz, "b1": dz.sum(axis=0)} | grads
