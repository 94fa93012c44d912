"""LARS: each layer's step is proportional to its weights' norm (You, Gitman, Ginsburg 2017)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from labkit import exercise


@exercise(minutes=20)
def trust_ratio(weight: Tensor, update: Tensor, trust: float) -> Tensor:
    """trust |w| / |u|: how long the step may be, for a layer's weight w and its update u.

    Where either norm is 0 the ratio is 1: with |w| = 0 the layer could never move, and |u| = 0
    would divide by 0. Equation 6 of the paper, u = gradient + weight decay * w.

    Args:
        weight, update: of one layer, of any shape.
    Returns:
        0-d tensor of their dtype.
    """
    w, u = weight.norm(), update.norm()
    return torch.where((w > 0) & (u > 0), trust * w / u, 1.0)


class LARS(Optimizer):
    """SGD with momentum in which each layer's update is scaled by its trust ratio.

    SimCLR trains large batches with it (Chen et al. 2020, section 2.2). Biases and the weights of
    normalisation layers, all of one dimension, are neither scaled nor decayed. Raises ValueError
    for an lr or a trust that is not positive.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust: float = 1e-3,
    ) -> None:
        if lr <= 0 or trust <= 0:
            raise ValueError(f"lr and trust must be > 0, got lr={lr} and trust={trust}")
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                update = w.grad
                if w.ndim > 1:
                    update = update + group["weight_decay"] * w
                    update = update * trust_ratio(w, update, group["trust"])
                state = self.state[w]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(w)
                state["momentum"].mul_(group["momentum"]).add_(update, alpha=group["lr"])
                w.sub_(state["momentum"])
