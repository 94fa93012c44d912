"""Muon for all weeks: `torch.optim.Muon`, batched, and in a dtype that the hardware has.

PyTorch's version computes each matrix separately and always in bf16, which most processors only
emulate, a hundred times slower than fp32. Here matrices of equal shape are batched, and the dtype
is bf16 only where the device multiplies it in hardware. Settings and state are those of
`torch.optim.Muon`; either loads what the other saved. Week 7 explains the method and passes its own
`newton_schulz`.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim._muon import _adjust_lr

from labkit.machine.device import has_native_bf16

WIDE = 2
"""From this ratio of columns to rows on, all iterations are first combined into one factor."""


class Muon(torch.optim.Muon):
    """Muon for matrices (rows, columns), which is how nn.Linear keeps its weight."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        *,
        precision: str = "auto",
        orthogonalize: Callable[[Tensor, int], Tensor] | None = None,
        **settings: Any,
    ) -> None:
        """
        Args:
            precision: fp32, or bf16 where the hardware has it (auto, bf16).
            orthogonalize: (N, rows, columns), iterations -> the same shape; None is `msign`.
            settings: of torch.optim.Muon: weight_decay, momentum, nesterov, adjust_lr_fn, ...
        Raises:
            ValueError: a parameter is not a matrix, or a setting is out of range.
        """
        super().__init__(params, lr, **settings)
        self.precision, self.orthogonalize = precision, orthogonalize
        self._types: dict[tuple[str, torch.dtype], torch.dtype] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, from the gradients there are. Returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params: list[Tensor] = []
            grads: list[Tensor] = []
            buffers: list[Tensor] = []
            self._init_group(group, params, grads, buffers)
            places: dict[tuple[torch.Size, torch.device], list[int]] = {}
            for i, param in enumerate(params):
                places.setdefault((param.shape, param.device), []).append(i)
            for same in places.values():
                self._update(group, *([each[i] for i in same] for each in (params, grads, buffers)))
        return loss

    def _update(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], bufs: list[Tensor]
    ) -> None:
        """B ← μ B + (1 - μ) G, then W ← (1 - η λ) W - η' msign(M), M from B and G by Nesterov."""
        torch._foreach_lerp_(bufs, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, bufs, group["momentum"]) if group["nesterov"] else bufs
        dtype = self._dtype(params[0])
        stack = torch.stack([each.to(dtype) for each in ahead])
        if self.orthogonalize is not None:
            updates = self.orthogonalize(stack, group["ns_steps"])
        else:
            updates = msign(stack, group["ns_steps"], group["ns_coefficients"], group["eps"])
        rate = _adjust_lr(group["lr"], group["adjust_lr_fn"], params[0].shape)
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(params, list(updates.to(params[0].dtype)), alpha=-rate)

    def _dtype(self, param: Tensor) -> torch.dtype:
        """The type to compute in; found once, since to ask the processor takes as long as a product
        of small matrices.
        """
        kind = (str(param.device), param.dtype)
        if kind not in self._types:
            fast = self.precision != "fp32" and has_native_bf16(param.device)
            wide = torch.promote_types(param.dtype, torch.float32)
            self._types[kind] = torch.bfloat16 if fast else wide
        return self._types[kind]


def msign(
    stack: Tensor,
    steps: int = 5,
    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
    eps: float = 1e-7,
) -> Tensor:
    """U S' Vᵀ for each U S Vᵀ of (N, rows, columns), with all of S' near 1; in the same dtype.

    One iteration is X ← (a + b A + c A²) X with A = X Xᵀ. These factors commute, so for a wide X
    in fp32 they are first multiplied with each other, rows by rows, and with X once, at the end.
    bf16 has too few digits for that.
    """
    a, b, c = coefficients
    tall = stack.shape[-2] > stack.shape[-1]
    x = (stack.mT if tall else stack).contiguous()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    if x.dtype != torch.bfloat16 and x.shape[-1] >= WIDE * x.shape[-2]:
        x = _product(x @ x.mT, steps, coefficients) @ x
    else:
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _product(gram: Tensor, steps: int, coefficients: tuple[float, float, float]) -> Tensor:
    """The product of the factors of all iterations, from A = X Xᵀ, (N, rows, rows)."""
    a, b, c = coefficients
    product = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device).expand_as(gram)
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor @ product if step else factor
        if step < steps - 1:
            gram = factor @ gram @ factor
    return product


def others(model: torch.nn.Module, matrices: Iterable[Tensor]) -> list[torch.nn.Parameter]:
    """The model's parameters that are not among `matrices`, which Muon trains: those for AdamW."""
    inside = set(map(id, matrices))
    return [parameter for parameter in model.parameters() if id(parameter) not in inside]
