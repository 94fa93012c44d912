"""Batch normalisation by hand (Ioffe & Szegedy 2015), forward and backward.

    xhat = (x - mean) / sqrt(var + eps)        y = weight * xhat + bias

mean and var are taken over the batch and all positions, for each channel separately. The variance
for normalising divides by n (biased); the one stored for evaluation divides by n - 1. That is
PyTorch's convention, and so is momentum as the weight of the *new* value.

Letters: B batch, C channels, n = B * positions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from labkit import exercise


def over_batch(x: Tensor) -> tuple[int, ...]:
    """Every axis of (B, C, ...) except the channels."""
    return (0, *range(2, x.ndim))


def per_channel(v: Tensor, x: Tensor) -> Tensor:
    """(C,) shaped to broadcast against (B, C, ...)."""
    return v.view(1, -1, *(1,) * (x.ndim - 2))


@exercise(minutes=35)
def backward(grad: Tensor, xhat: Tensor, std: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Gradients of y = weight * xhat + bias, xhat = (x - mean(x)) / std, where std depends on x.

    std = sqrt(var + eps) with the biased variance. The mean and the variance depend on every x of
    the channel, so every dL/dy reaches every dL/dx; derive dL/dx in one expression from the batch
    means of g and of g * xhat, where g = dL/dy * weight (Ioffe & Szegedy 2015, section 3, give it
    in six steps).

    Args:
        grad: dL/dy, (B, C, ...).
        xhat: (B, C, ...).
        std, weight: (C,).
    Returns:
        dL/dx (B, C, ...), dL/dweight (C,), dL/dbias (C,).
    """
    axes = (0, *range(2, grad.ndim))
    shape = (1, -1, *(1,) * (grad.ndim - 2))
    g = grad * weight.view(shape)
    centred = g - g.mean(axes, keepdim=True)
    dx = (centred - xhat * (g * xhat).mean(axes, keepdim=True)) / std.view(shape)
    return dx, (grad * xhat).sum(axes), grad.sum(axes)


@exercise(minutes=10)
def update_running(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, n: int, momentum: float
) -> None:
    """Move the statistics for evaluation towards those of a batch, in place.

    With torch's conventions: running <- (1 - momentum) * running + momentum * new, and the new
    variance is the unbiased one, while `var` is the biased one (it divided by n).

    Args: four tensors (C,); n > 1, how many numbers of each channel the batch had.
    """
    running_mean.mul_(1 - momentum).add_(momentum * mean)
    running_var.mul_(1 - momentum).add_(momentum * var * n / (n - 1))


class BatchNormFunction(torch.autograd.Function):
    """Normalisation by the batch's own statistics, with the backward pass derived above.

    `once_differentiable`: xhat and std were saved as plain numbers, though they depend on x, so a
    second derivative through `backward` would be silently wrong. It is refused instead.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
    ) -> Tensor:
        std = torch.sqrt(var + eps)
        xhat = (x - per_channel(mean, x)) / per_channel(std, x)
        ctx.save_for_backward(xhat, std, weight)
        return per_channel(weight, x) * xhat + per_channel(bias, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        xhat, std, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        dx, dweight, dbias = backward(grad, xhat, std, weight)
        return dx, dweight, dbias, None, None, None


class BatchNorm(nn.Module):
    """Stands in for torch.nn.BatchNorm1d and BatchNorm2d: input (B, C), (B, C, L) or (B, C, H, W).

    In train mode it normalises by the batch and updates the running statistics; in eval mode it
    normalises by those, so that the answer for one example does not depend on the others.

    Raises ValueError for an input without C channels, and in train mode when a channel has only one
    number (its variance would be 0).
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.channels, self.eps, self.momentum = channels, eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise ValueError(f"expected (B, {self.channels}, ...), got {tuple(x.shape)}")
        if not self.training:
            xhat = (x - per_channel(self.running_mean, x)) / per_channel(
                torch.sqrt(self.running_var + self.eps), x
            )
            return per_channel(self.weight, x) * xhat + per_channel(self.bias, x)
        n = x.numel() // self.channels
        if n < 2:
            raise ValueError(
                "in train mode a channel needs more than one number; batch of 1? eval()"
            )
        with torch.no_grad():
            var, mean = torch.var_mean(x, over_batch(x), correction=0)
            update_running(self.running_mean, self.running_var, mean, var, n, self.momentum)
            self.num_batches_tracked += 1
        y: Tensor = BatchNormFunction.apply(x, self.weight, self.bias, mean, var, self.eps)
        return y
