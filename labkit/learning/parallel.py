"""Several processes, one model: each computes its rows of the batch, and gradients are averaged.

    python -m pretraining.train processes=8
    torchrun --nproc-per-node=8 -m pretraining.train             the same

Every process draws the same global batch and keeps every n-th row, so the losses are the same for
any number of processes.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from labkit.errors import UsageError
from labkit.machine.ranks import rank, world_size


class DataParallel:
    """Accelerate around one model; with a single process it does nothing."""

    def __init__(self, model: nn.Module, device: torch.device, batch_size: int) -> None:
        """Raises UsageError when the processes cannot share a batch evenly."""
        if batch_size % world_size():
            raise UsageError(
                f"batch_size={batch_size} cannot be shared by {world_size()} processes; "
                f"try batch_size={world_size() * max(1, batch_size // world_size())}"
            )
        self.processes = world_size()
        self.accelerator: Any = None
        self.model = model
        if self.processes > 1:
            from accelerate import Accelerator

            self.accelerator = Accelerator(cpu=device.type == "cpu")
            self.model = self.accelerator.prepare_model(model)

    @property
    def rows(self) -> slice:
        """This process's rows of a global batch."""
        return slice(rank(), None, self.processes)

    def micro_batches(self, x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
        """This process's rows of the global batch (B, T), cut into parts of at most `size`."""
        mine = (z[self.rows].split(size) for z in (x, y))
        return list(zip(*mine, strict=True))

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged only in the last micro-batch of a step."""
        if self.accelerator is None or last:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(self.model)  # type: ignore[no-any-return]

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.accelerator is None:
            return value
        return self.accelerator.reduce(value, "mean")  # type: ignore[no-any-return]
