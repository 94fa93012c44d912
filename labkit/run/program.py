"""What a week runs: the frozen description of it that a run needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from labkit.config.schema import LabConfig

Backend = Literal["torch", "numpy"]


@dataclass(frozen=True)
class Program:
    """A week's `train(cfg, run)`, its settings and what it needs.

    `week` is the package's name, `backend` what it computes with, `needs_gpu` whether its full size
    is refused on a machine without GPU, and `distributed` whether torchrun may start it in several
    processes.
    """

    week: str
    config: type[LabConfig]
    train: Callable[[Any, Any], None]
    backend: Backend
    needs_gpu: bool
    distributed: bool
