"""What is known of a full size: configs/<program>/full.json, made by `lab plan WEEK --rehearse`.

It holds counts, which are the same on every machine. Time and cost are computed from them and from
the price table whenever they are shown.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit import files, paths
from labkit.errors import UsageError
from labkit.plan.gpus import FITS, GPU, prices

FILE = "full.json"

CONTEXT_MB = 600.0
"""Memory that CUDA and its libraries take on a card before the first tensor."""

SPARE = 1.25
"""What the backward pass needs for a moment, and what PyTorch's allocator holds besides, both as a
factor on the tensors that are alive."""

FREE = (
    "seed", "device", "fallback", "logger", "checkpoint_seconds", "max_steps", "detect_anomaly",
    "bug", "resume", "log_every", "processes",
)  # fmt: skip


def is_free(setting: str) -> bool:
    """Whether a setting changes nothing in what a step of one process needs."""
    return setting in FREE or setting.startswith("remote.")


@dataclass(frozen=True)
class How:
    """How a full size is rehearsed where its whole batch would take too long."""

    scale: tuple[str, ...] = ()
    """Settings that are made smaller: work grows with them in proportion, apart from a constant
    part, which two rehearsals show."""
    of: int = 16
    """The rehearsals take 1/of and 2/of of these settings."""
    parts: int = 1
    """Micro-batches of a step, one after the other: memory grows with one of them only."""
    words: tuple[str, ...] = ()
    """Other overrides, for what a step's work does not depend on, and for how much there is of what
    the full size takes whole."""


@dataclass(frozen=True)
class Full:
    """One program's full size; flops, bytes and kernels are of one step."""

    config: Mapping[str, Any]
    """The settings that were rehearsed."""
    gpu: bool
    """Whether a GPU makes it faster; NumPy and small networks do not gain."""
    how: How
    steps: int
    parameters: int | None
    flops: float
    bytes: float
    kernels: float
    memory_mb: float
    """Of all tensors that are alive at the peak of a step."""
    checkpoint_mb: float
    data: tuple[str, ...] = ()
    """Datasets that it needs, and models of the hub."""
    host_seconds: float = field(default=0.0, init=False)

    @property
    def asked_precision(self) -> str:
        return str(self.config["precision"])

    @property
    def card_mb(self) -> float:
        """Memory that it takes on a card."""
        return CONTEXT_MB + SPARE * self.memory_mb

    def fits(self, gpu: GPU) -> bool:
        return self.card_mb <= FITS * gpu.memory_gb * 1000

    def seconds(self, gpu: GPU) -> float:
        """Estimated time of all steps."""
        return self.steps * gpu.step(self)[0]

    def cost(self, gpu: GPU) -> float:
        """In US dollars."""
        return self.seconds(gpu) / 3600 * gpu.usd_per_hour

    def cheapest(self) -> GPU | None:
        """The card of the table that it fits on and on which it costs least."""
        fitting = [gpu for gpu in prices().gpus if self.fits(gpu)]
        return min(fitting, key=self.cost, default=None)

    def stale(self, now: Mapping[str, Any]) -> list[str]:
        """Names of the settings that have another value now."""
        names = sorted(n for n in self.config.keys() | now.keys() if not is_free(n))
        missing = object()
        return [n for n in names if self.config.get(n, missing) != now.get(n, missing)]


def path_of(program: str) -> Path:
    return paths.CONFIGS / program / FILE


def read(program: str) -> Full | None:
    """None when the program was not rehearsed. Raises UsageError for a damaged file."""
    file = path_of(program)
    if not file.is_file():
        return None
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        saved = raw.pop("how")
        saved |= {key: tuple(saved[key]) for key in ("scale", "words")}
        how = How(**saved)
        return Full(how=how, data=tuple(raw.pop("data")), **raw)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{file} cannot be read ({error}); type: lab plan {program} --rehearse"
        ) from error


def write(program: str, full: Full) -> Path:
    """Keep it; returns the file."""
    values = dataclasses.asdict(full)
    values.pop("host_seconds")
    files.write_json(path_of(program), values)
    return path_of(program)
