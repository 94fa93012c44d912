"""Nonlinearities whose derivative follows from their output, so only the output must be stored.

    relu          a = max(z, 0)              da/dz = 1 where a > 0, else 0
    scaled_tanh   a = A tanh(S z)            da/dz = S (A - a²/A),   A = 1.7159, S = 2/3

LeCun et al. 1998 use the second (Appendix A): A and S are chosen so that f(±1) = ±1 and the
curvature is greatest there; targets of ±1 then keep the units out of saturation.
Shapes: N examples, H units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

A, S = 1.7159, 2 / 3


@dataclass(frozen=True)
class Activation:
    """The function and its chain rule, both in place on arrays (N, H)."""

    apply: Callable[[Array], Array]
    """Writes a = f(z) over z."""
    backprop: Callable[[Array, Array], Array]
    """Writes ∂L/∂z over ∂L/∂a (first argument), given a (second argument)."""
    gain: float
    """Weights drawn with deviation gain/√fan_in keep the size of the signal from layer to layer."""


def _relu(z: Array) -> Array:
    np.maximum(z, 0, out=z)
    return z


def _relu_backprop(grad: Array, a: Array) -> Array:
    grad *= a > 0
    return grad


def _scaled_tanh(z: Array) -> Array:
    z *= S
    np.tanh(z, out=z)
    z *= A
    return z


def _scaled_tanh_backprop(grad: Array, a: Array) -> Array:
    grad *= S * A - (S / A) * a**2
    return grad


relu = Activation(_relu, _relu_backprop, gain=2**0.5)  # He et al. 2015, eq. 10: half of it is 0
scaled_tanh = Activation(_scaled_tanh, _scaled_tanh_backprop, gain=1.0)  # Efficient BackProp, §4.6
