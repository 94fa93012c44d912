"""Attention, RMSNorm, squared ReLU and GELU with backward passes by hand, to save time.

On a CPU in bf16 PyTorch's fused attention spends most of its time in its backward pass, RMSNorm and
x² use the general power function, and GELU uses tanh. Written as a few matrix products and passes
over memory they take a fraction of that; `python -m pretraining.speed` measures it on your machine.

Letters: N batch times heads, T positions, d dimensions of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 128
"""Queries in a block: a causal block skips the keys after its last query, which is half of all keys
on average, and its table of weights is small enough for the cache of a core."""


def fast_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = True, dropout: float = 0.0
) -> Tensor:
    """softmax(q kᵀ / √d) v, over past and present keys only if causal; all are (B, H, T, d).

    Uses PyTorch's own kernels on accelerators, and whenever dropout is applied to the weights.
    """
    if q.device.type != "cpu" or dropout:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
    q3, k3, v3 = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
    out: Tensor = _Attention.apply(q3, k3, v3, causal)
    return out.view(q.shape)


class _Attention(torch.autograd.Function):
    """Attention of (N, T, d) in blocks of queries; keeps the weights P for the backward pass."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        length, scale = q.shape[1], q.shape[2] ** -0.5
        ends = [(a, min(a + ROWS, length)) for a in range(0, length, ROWS)]
        blocks = [(a, b, b if causal else length) for a, b in ends]  # queries a to b, keys to c
        future = torch.full((ROWS, ROWS), -torch.inf, dtype=q.dtype).triu(1)
        out, weights = [], []
        for a, b, c in blocks:
            scores = torch.bmm(q[:, a:b], k[:, :c].transpose(1, 2)).mul_(scale)
            if causal:
                scores[:, :, a:].add_(future[: b - a, : b - a])
            weights.append(scores.softmax(dim=-1))
            out.append(torch.bmm(weights[-1], v[:, :c]))
        ctx.save_for_backward(q, k, v, *weights)
        ctx.blocks = blocks
        return out[0] if len(out) == 1 else torch.cat(out, dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        """dV = Pᵀ dO, dP = dO Vᵀ, dS = P ∘ (dP - rowsum(P ∘ dP)) / √d, dQ = dS K, dK = dSᵀ Q."""
        q, k, v, *weights = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (a, b, c), p in zip(ctx.blocks, weights, strict=True):
            do = grad[:, a:b]
            dp = torch.bmm(do, v[:, :c].transpose(1, 2))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype).mul_(q.shape[2] ** -0.5)
            dq[:, a:b] = torch.bmm(ds, k[:, :c])
            dk[:, :c] += torch.bmm(ds.transpose(1, 2), q[:, a:b])
            dv[:, :c] += torch.bmm(p.transpose(1, 2), do)
        return dq, dk, dv, None


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / √(mean of x² + eps) over the last dimension, in the dtype of the computation.

    Under autocast that is autocast's dtype: the result goes into a matrix product.
    """
    kind = x.device.type
    autocast = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if autocast else x.dtype
    if not torch.is_grad_enabled():  # generation token by token, where every call costs time
        return F.rms_norm(x.float(), x.shape[-1:], eps=eps).to(dtype)
    out: Tensor = _RMSNorm.apply(x, eps, dtype)
    return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_()
        inverse = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        y = (x * inverse).to(dtype)
        ctx.save_for_backward(y, inverse)
        ctx.dtype = x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """dx = (dy - y mean(y ∘ dy)) / rms."""
        y, inverse = ctx.saved_tensors
        mean = (grad * y).sum(dim=-1, keepdim=True, dtype=torch.float32).div_(y.shape[-1])
        dx = torch.addcmul(grad.float(), y, mean, value=-1).mul_(inverse)
        return dx.to(ctx.dtype), None, None


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)² (So et al. 2021, Primer)."""
    if not torch.is_grad_enabled():
        positive = F.relu(x)
        return positive * positive
    out: Tensor = _ReLUSquared.apply(x)
    return out


class _ReLUSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (positive,) = ctx.saved_tensors
        return (grad * positive).mul_(2)


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form (Hendrycks and Gimpel 2016, section 2), which GPT-2 uses.

    x/2 (1 + tanh u) with u = √(2/π) (x + 0.044715 x³) is x σ(2u), and σ is the faster one.
    """
    out: Tensor = _GELU.apply(x) if x.device.type == "cpu" else F.gelu(x, approximate="tanh")
    return out


class _GELU(torch.autograd.Function):
    """y = x σ(z) with z = x (α + β x²), so dy/dx = σ + y (1 - σ) (α + 3 β x²)."""

    ALPHA = (8 / math.pi) ** 0.5
    BETA = 0.044715 * ALPHA

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        alpha = x.new_tensor(_GELU.ALPHA)
        sigma = torch.addcmul(alpha, x, x, value=_GELU.BETA).mul_(x).sigmoid_()
        y = x * sigma
        ctx.save_for_backward(x, y, sigma)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, y, sigma = ctx.saved_tensors
        alpha = x.new_tensor(_GELU.ALPHA)
        slope = torch.addcmul(alpha, x, x, value=3 * _GELU.BETA).mul_(y)
        slope = torch.addcmul(slope, slope, sigma, value=-1).add_(sigma)
        return slope.mul_(grad)
