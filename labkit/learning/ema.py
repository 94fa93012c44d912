"""Exponential moving average of a model's weights, at a decay that each week states."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Averaged(Generic[M]):
    """Keeps `average`, a copy of a model whose weights follow it slowly. Buffers, such as the
    running statistics of BatchNorm, are copied unchanged: they are averages already.
    """

    def __init__(self, model: M, decay: Callable[[int], float]) -> None:
        """`decay(updates)` is the weight of the old average after that many earlier updates."""
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """average <- d average + (1 - d) model, d from `decay`; after every optimiser step."""
        torch._foreach_lerp_(
            list(self.average.parameters()),
            list(model.parameters()),
            weight=1 - self.decay(self.updates),
        )
        for mine, newest in zip(self.average.buffers(), model.buffers(), strict=True):
            mine.copy_(newest)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state["average"])
        self.updates = state["updates"]
