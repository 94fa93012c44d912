"""C: a linear controller, and a whole population of them at once.

    a = squash(W [z, h] + b)     Ha & Schmidhuber 2018, section 2.3, equation 1

Its few parameters are one row of a matrix, so that CMA-ES can search them, and all candidates act
in one batched matrix product.

Letters: P candidates, E episodes of each, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

ACTIONS = 3


def parameter_count(features: int) -> int:
    """Parameters of a controller of F features: a weight for each and a bias, for each action."""
    return ACTIONS * (features + 1)


def squash(raw: Tensor) -> Tensor:
    """Any numbers (..., 3) as actions: steer in [-1, 1], gas and brake in [0, 1].

    All zeros mean straight ahead at half gas. The brake needs a positive number, so that a random
    controller does not stand still.
    """
    steer, gas, brake = raw.tanh().unbind(dim=-1)
    return torch.stack([steer, (gas + 1) / 2, brake.clamp(min=0)], dim=-1)


def act(parameters: Tensor, features: Tensor) -> Tensor:
    """Actions of all candidates in all their episodes.

    Args:
        parameters: (P, 3 (F + 1)), for each action in turn F weights and then its bias.
        features: (P, E, F).
    Returns:
        (P, E, 3).
    """
    weights = parameters.unflatten(-1, (ACTIONS, -1))  # (P, 3, F + 1)
    raw = torch.baddbmm(weights[:, None, :, -1], features, weights[..., :-1].transpose(1, 2))
    return squash(raw)
