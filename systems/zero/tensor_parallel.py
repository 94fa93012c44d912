"""Tensor parallelism in small: Megatron's MLP (Shoeybi et al. 2019, section 3).

    Y = GELU(X A) B       A is cut by columns, B by rows: each process computes GELU(X A_r) B_r

No message is needed between the two products, since GELU is applied to each column by itself. The
outputs are summed over processes (g); going back, the gradients of X are (f). f and g are each
other's mirror: where one does nothing, the other sums.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class _CopyIn(torch.autograd.Function):
    """f: the same X for all going forward, the sum of its gradients going back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        total = grad.clone()
        dist.all_reduce(total)
        return total


class _SumOut(torch.autograd.Function):
    """g: the sum over processes going forward, the same gradient for all going back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


class ParallelMLP(nn.Module):
    """This process's part of an MLP: (..., C) -> (..., C), the same result in every process."""

    def __init__(self, up: nn.Linear, down: nn.Linear, rank: int, ranks: int) -> None:
        """Cuts up the whole MLP's matrices; ranks must divide its hidden width. The bias of `down`
        is added once, after the sum. Raises ValueError when the width cannot be divided."""
        super().__init__()
        if up.out_features % ranks:
            raise ValueError(f"{ranks} processes cannot divide a hidden width of {up.out_features}")
        self.up_weight = nn.Parameter(up.weight.detach().chunk(ranks)[rank].clone())
        self.up_bias = nn.Parameter(up.bias.detach().chunk(ranks)[rank].clone())
        self.down_weight = nn.Parameter(down.weight.detach().chunk(ranks, dim=1)[rank].clone())
        self.down_bias = nn.Parameter(down.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(F.linear(_CopyIn.apply(x), self.up_weight, self.up_bias))
        y: Tensor = _SumOut.apply(F.linear(hidden, self.down_weight)) + self.down_bias
        return y
