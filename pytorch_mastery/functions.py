"""Custom autograd functions: where the backward pass is not the derivative of the forward pass.

Three reasons to write one: the true derivative is useless (rounding: zero almost everywhere), the
gradient should be modified (clipped, reversed), or autograd's own gradient is not numerically
stable (softplus, log-sum-exp).

**Differentiating twice.** `backward` is itself recorded when `create_graph=True`. Its second
derivative is right if the tensors kept by `ctx.save_for_backward` are inputs or outputs of the
function, as in all functions below. An intermediate result of `forward` that is saved there is
treated as a constant, and the second derivative is silently wrong: mark such a backward with
`once_differentiable` (as in `batch_norm`), so that it raises instead.
"""

from typing import Any

import torch
from torch import Tensor


class Round(torch.autograd.Function):
    """Forward: nearest integer. Backward: as if it were the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


class Sign(torch.autograd.Function):
    """Forward: -1 or 1. Backward: as if it were x clipped to [-1, 1] (hard tanh)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


class ClipGradient(torch.autograd.Function):
    """Forward: the identity. Backward: every element of the gradient clipped to [-limit, limit]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float) -> Tensor:
        ctx.limit = limit
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad.clamp(-ctx.limit, ctx.limit), None


class ReverseGradient(torch.autograd.Function):
    """Forward: the identity. Backward: the gradient times -strength."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.strength * grad, None


class Softplus(torch.autograd.Function):
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), whose exponential cannot overflow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * torch.sigmoid(x)


class LogSumExp(torch.autograd.Function):
    """log sum e^x over one axis; the gradient is the softmax, e^(x - output)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        top = x.amax(dim, keepdim=True)
        top = torch.where(top.isfinite(), top, torch.zeros_like(top))
        y = (x - top).exp().sum(dim).log() + top.squeeze(dim)
        ctx.save_for_backward(x, y)  # an input and an output: a second derivative is right
        ctx.dim = dim
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        x, y = ctx.saved_tensors
        return grad.unsqueeze(ctx.dim) * (x - y.unsqueeze(ctx.dim)).exp(), None


def round_through(x: Tensor) -> Tensor:
    """x rounded, with the straight-through gradient (Bengio, Léonard & Courville 2013)."""
    y: Tensor = Round.apply(x)
    return y


def sign_through(x: Tensor) -> Tensor:
    """-1 or 1 (1 at 0), with a straight-through gradient where |x| <= 1 and none beyond."""
    y: Tensor = Sign.apply(x)
    return y


def clip_gradient(x: Tensor, limit: float) -> Tensor:
    """x, whose gradient will be clipped element by element. Raises ValueError if limit <= 0."""
    if limit <= 0:
        raise ValueError(f"limit must be > 0, got {limit}")
    y: Tensor = ClipGradient.apply(x, limit)
    return y


def reverse_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    """x, whose gradient will be multiplied by -strength (Ganin & Lempitsky 2015)."""
    y: Tensor = ReverseGradient.apply(x, strength)
    return y


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), right for any x."""
    y: Tensor = Softplus.apply(x)
    return y


def logsumexp(x: Tensor, dim: int = -1) -> Tensor:
    """log of the sum of e^x over `dim`, which is dropped."""
    y: Tensor = LogSumExp.apply(x, dim)
    return y
