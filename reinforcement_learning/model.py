"""What is trained this week: small multilayer perceptrons, for policies and values; and a table."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn


def mlp(
    inputs: int, hidden: int, outputs: int, gain: float, activation: type[nn.Module]
) -> nn.Sequential:
    """Two hidden layers; (B, inputs) -> (B, outputs).

    Weights are orthogonal, as in the reference implementation of PPO; `gain` is that of the last
    layer: 0.01 makes a policy start out nearly uniform.
    """
    sizes = [inputs, hidden, hidden, outputs]
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        linear = nn.Linear(a, b)
        nn.init.orthogonal_(linear.weight, gain if i == 2 else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


class QTable:
    """Action values (S, A)."""

    def __init__(self, q: np.ndarray) -> None:
        self.q = q

    def state_dict(self) -> dict[str, np.ndarray]:
        return {"q": self.q}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        self.q[:] = state["q"]


def sample(logits: Tensor) -> Tensor:
    """Draw actions (B,) with probability softmax(logits), (B, A), by the Gumbel-max trick.

    argmax(logits + g), with g = -log(e) and e ~ Exponential(1), is a draw from the softmax, and
    cheaper than torch.multinomial.
    """
    return (logits - torch.empty_like(logits).exponential_().log_()).argmax(dim=-1)


def log_probability(logits: Tensor, action: Tensor) -> Tensor:
    """log pi(action | obs), (B,), from logits (B, A) and actions (B,)."""
    return logits.log_softmax(dim=-1).gather(-1, action[:, None]).squeeze(-1)
