"""The time of a training step's parts, and its speed compared with the machine's maximum.

    python -m pretraining.speed        the week's kernels beside PyTorch's own, on this machine

MFU, model FLOPs utilisation, is the arithmetic that the model needs, divided by what the machine
could have done in the same time (Chowdhery et al. 2022, PaLM, appendix B). The machine's maximum is
measured with a large matrix product, since no table of peak numbers lists every machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.machine.ranks import rank, world_size
from pretraining.kernels import fast_attention, gelu, relu_squared, rms_norm
from pretraining.model import Shape


def flops_per_token(shape: Shape) -> int:
    """Floating-point operations of forward and backward for one token (PaLM, appendix B).

    6 for each weight that multiplies (the layers' and the head's; a look-up is free), and
    12 · layers · width · context for attention, counted in full although half of it is masked.
    """
    weights = 12 * shape.layers * shape.width**2 + shape.vocabulary * shape.width
    return 6 * weights + 12 * shape.layers * shape.width * shape.context


def steps_for(teraflops: float, shape: Shape, tokens_per_step: int) -> int:
    """Optimiser steps for a training compute of `teraflops` · 10¹² operations."""
    return max(1, round(teraflops * 1e12 / (flops_per_token(shape) * tokens_per_step)))


def matmul_flops(device: torch.device, dtype: torch.dtype, size: int = 1024) -> float:
    """Floating-point operations a second of a product of two large matrices: the best of five."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = min(_seconds(lambda: a @ a, device) for _ in range(5))
    return 2 * size**3 / best


class Meter:
    """Writes tokens per second and MFU to the run's speed.csv: times differ from run to run, so
    they do not belong to the metrics that a resumed run must repeat."""

    def __init__(self, shape: Shape, device: torch.device, precision: str, folder: Path) -> None:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.per_token, self.device = flops_per_token(shape), device
        self.peak = matmul_flops(device, dtype) * world_size()
        self.file = folder / "speed.csv" if rank() == 0 else None
        if self.file is not None and not self.file.exists():
            self.file.write_text("step,tokens_per_second,mfu_percent\n")
        self.restart()

    def restart(self) -> None:
        """Restart the count: the time before it was not training."""
        self.since, self.tokens = time.perf_counter(), 0

    def look(self, step: int) -> None:
        """Write the mean since the last look."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        rate = self.tokens / (time.perf_counter() - self.since)
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(f"{step},{rate:.0f},{100 * rate * self.per_token / self.peak:.2f}\n")
        self.restart()


def _seconds(f: Callable[[], object], device: torch.device) -> float:
    begun = time.perf_counter()
    f()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _forward_backward(f: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], None]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    gradient = torch.ones_like(f(*leaves))

    def once() -> None:
        f(*leaves).backward(gradient)

    return once


def main() -> None:
    """Print milliseconds, forward and backward, of each kernel and of PyTorch's own."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch, heads, length, dim = 16, 4, 128, 48
    for dtype in (torch.float32, torch.bfloat16):
        q = torch.randn(batch, heads, length, dim, device=device, dtype=dtype)
        x = torch.randn(batch, length, heads * dim, device=device, dtype=dtype)
        wide = torch.randn(batch, length, 4 * heads * dim, device=device, dtype=dtype)
        rows: list[tuple[str, Callable[..., Tensor], Callable[..., Tensor], tuple[Tensor, ...]]] = [
            ("attention", fast_attention, _torch_attention, (q, q, q)),
            ("RMSNorm", lambda x: rms_norm(x, 1e-6), _torch_rms_norm, (x,)),
            ("squared ReLU", relu_squared, lambda x: F.relu(x).square(), (wide,)),
            ("GELU", gelu, lambda x: F.gelu(x, approximate="tanh"), (wide,)),
        ]
        for name, ours, theirs, inputs in rows:
            times = []
            for f in (ours, theirs):
                once = _forward_backward(f, *inputs)
                times.append(1e3 * min(_seconds(once, device) for _ in range(20)))
            kind: Literal["fp32", "bf16"] = "fp32" if dtype == torch.float32 else "bf16"
            print(f"{kind}  {name:13} {times[0]:7.2f} ms   PyTorch {times[1]:7.2f} ms")


def _torch_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _torch_rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


if __name__ == "__main__":
    main()
