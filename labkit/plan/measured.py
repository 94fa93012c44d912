"""What a probe saw of a run's steps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

STATE_BYTES = 12
"""Gradient and Adam's two moments, for each parameter."""


@dataclass(frozen=True)
class Measured:
    """What a probe saw. Of one step: seconds, FLOPs, bytes, kernels, seconds outside kernels."""

    steps: int
    device: str
    precision: str
    asked_precision: str
    batch_size: int | None
    probed_batch_size: int | None
    parameters: int | None
    setup_memory_mb: float
    peak_memory_mb: float
    seconds: float
    timed: int
    kernels: int
    flops: int
    bytes: int
    host_seconds: float
    uses_torch: bool

    def scaled_to(self, batch_size: int) -> Measured:
        """As with a batch that large: all in proportion except kernels, parameters and Python."""
        factor = batch_size / (self.probed_batch_size or batch_size)
        states = STATE_BYTES * (self.parameters or 0) / 1e6
        activations = max(0.0, self.peak_memory_mb - self.setup_memory_mb - states)
        return dataclasses.replace(
            self,
            batch_size=batch_size,
            peak_memory_mb=self.setup_memory_mb + states + activations * factor,
            seconds=self.seconds * factor,
            flops=round(self.flops * factor),
            bytes=round(self.bytes * factor),
        )
