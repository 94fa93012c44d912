"""Pipeline parallelism in small: GPipe (Huang et al. 2019, section 2.3).

The layers are divided among processes, and a batch into m micro-batches. Each process passes the
activations of one micro-batch on and begins with the next; then the gradients come back the same
way. Filling and emptying the pipe leaves processes idle: the bubble.

Letters: p processes (stages of the pipe), m micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def bubble(stages: int, micro_batches: int) -> float:
    """Share of the time that each process is idle: (p - 1) / (m + p - 1)."""
    return (stages - 1) / (micro_batches + stages - 1)


def gpipe_step(
    part: nn.Module, rank: int, ranks: int, x: Tensor, y: Tensor, micro_batches: int,
    width: int, loss_of: Callable[[Tensor, Tensor], Tensor],
) -> float | None:  # fmt: skip
    """Gradients of the whole batch's mean loss, in the parameters of this process's part.

    Args:
        part: (rows, width) -> (rows, width); the first takes x itself, the last gives what
            `loss_of` takes.
        x, y: the batch, in all processes; rows are divided evenly among micro-batches.
        width: of the activations between parts.
    Returns:
        The mean loss in the last process, None in others.
    """
    losses, kept = [], []
    for xs, ys in zip(x.chunk(micro_batches), y.chunk(micro_batches), strict=True):
        if rank == 0:
            inputs = xs
        else:
            inputs = torch.empty(len(xs), width)
            dist.recv(inputs, rank - 1)
            inputs.requires_grad_()
        out = part(inputs)
        if rank + 1 < ranks:
            dist.send(out.detach(), rank + 1)
        else:
            out = loss_of(out, ys) / micro_batches
            losses.append(float(out))
        kept.append((inputs, out))
    for inputs, out in kept:
        if rank + 1 < ranks:
            gradient = torch.empty_like(out)
            dist.recv(gradient, rank + 1)
            out.backward(gradient)
        else:
            out.backward()
        if rank > 0:
            assert inputs.grad is not None
            dist.send(inputs.grad, rank - 1)
    return sum(losses) if losses else None
