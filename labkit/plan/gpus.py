"""Rented GPUs: their prices, and how long a step would take on one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

UTILISATION = 0.35
"""Share of a card's peak that training reaches in dense layers of some size."""

BANDWIDTH_SHARE = 0.7
"""Share of the memory bandwidth that plain element-wise kernels reach."""

LAUNCH_SECONDS = 8e-6
"""Time for the host to launch one kernel from PyTorch without compilation."""

FITS = 0.9
"""Share of a card's memory that a run may fill."""


class Work(Protocol):
    """What one step does, as `Measured` and `Full` have it."""

    @property
    def asked_precision(self) -> str: ...
    @property
    def flops(self) -> float: ...
    @property
    def bytes(self) -> float: ...
    @property
    def kernels(self) -> float: ...
    @property
    def host_seconds(self) -> float: ...


@dataclass(frozen=True)
class GPU:
    """One row of prices.yaml."""

    name: str
    usd_per_hour: float
    memory_gb: float
    bandwidth_gbs: float
    tflops_half: float
    tflops_fp32: float
    bf16: bool

    def step(self, probe: Work) -> tuple[float, str]:
        """Estimated seconds for one step, and which of the four limits it."""
        half = self.bf16 and probe.asked_precision != "fp32"
        peak = 1e12 * (self.tflops_half if half else self.tflops_fp32)
        limits = {
            "arithmetic": probe.flops / (UTILISATION * peak),
            "memory": probe.bytes / (BANDWIDTH_SHARE * self.bandwidth_gbs * 1e9),
            "launches": probe.kernels * LAUNCH_SECONDS,
            "Python": probe.host_seconds,
        }
        slowest = max(limits, key=lambda name: limits[name])
        return limits[slowest], slowest


@dataclass(frozen=True)
class Prices:
    """The price table and where it is from."""

    date: str
    source: str
    gpus: tuple[GPU, ...]


@cache
def prices() -> Prices:
    """Read prices.yaml."""
    import yaml

    raw = yaml.safe_load(Path(__file__).with_name("prices.yaml").read_text(encoding="utf-8"))
    return Prices(str(raw["date"]), raw["source"], tuple(GPU(**gpu) for gpu in raw["gpus"]))
