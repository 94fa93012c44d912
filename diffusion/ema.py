"""Exponential moving average of weights: samples come from an average of the last networks.

The weights after the last step are noisy. A diffusion loss averages over so many noise levels that
it does not show this; samples do.
"""

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from labkit import exercise

M = TypeVar("M", bound=nn.Module)


@exercise(minutes=10)
def ema_decay(updates: int, limit: float) -> float:
    """Weight of the old average after `updates` earlier updates.

    min(limit, (1 + updates) / (10 + updates)): during this warm-up a plain mean over roughly the
    last tenth, then the fixed limit. If it were the limit from the start, the random initial
    weights would still have weight limit^n after n updates: 0.9999^2000 is 82 %.
    """
    return min(limit, (1 + updates) / (10 + updates))


class EMA(Generic[M]):
    """Keeps `average`, a copy of a model whose weights follow it slowly. Buffers, such as the
    running statistics of BatchNorm, are copied unchanged: they are averages already.
    """

    def __init__(self, model: M, limit: float = 0.999) -> None:
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.limit, self.updates = limit, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """average <- d average + (1 - d) model, d from `ema_decay`; after every optimiser step."""
        decay = ema_decay(self.updates, self.limit)
        torch._foreach_lerp_(
            list(self.average.parameters()), list(model.parameters()), weight=1 - decay
        )
        for mine, newest in zip(self.average.buffers(), model.buffers(), strict=True):
            mine.copy_(newest)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state["average"])
        self.updates = state["updates"]
