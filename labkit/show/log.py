"""What a loop logs: kept in memory, and written about once a second.

So logging forces no device sync in the loop, and metrics.jsonl is never written within a
step.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labkit.errors import RunFailed
from labkit.show import tracking


class Log:
    """Metrics on their way to metrics.jsonl, other trackers and the console."""

    def __init__(
        self,
        file: Path | None,
        keep_bytes: int = 0,
        extra: Callable[[], list[tracking.Tracker]] = list,
    ) -> None:
        """
        Args:
            file: metrics.jsonl, of which `keep_bytes` are kept; None writes nothing, but losses are
                checked all the same.
            extra: makes further trackers, once the file holds only what stays.
        """
        self.file = file
        self.flushed = time.perf_counter()
        self.progress: tracking.Progress | None = None
        self._jsonl = tracking.JsonLines(file, keep_bytes) if file is not None else None
        self._extra = extra()
        self.listeners: list[Callable[[int, Mapping[str, float]], None]] = []
        self._pending: list[tuple[int, dict[str, Any]]] = []

    def add(self, metrics: dict[str, Any], step: int) -> None:
        """Remember numbers or 0-d tensors."""
        values = {k: v.detach() if hasattr(v, "detach") else v for k, v in metrics.items()}
        self._pending.append((step, values))

    def flush(self) -> int:
        """Write what is pending; returns the bytes of metrics.jsonl.

        Raises RunFailed for a loss that is not finite, after it was written, and OSError.
        """
        pending, self._pending = self._pending, []
        self.flushed = time.perf_counter()
        try:
            self._write(pending)
        finally:
            written = self._jsonl.position() if self._jsonl is not None else 0
        return written

    def _write(self, pending: list[tuple[int, dict[str, Any]]]) -> None:
        for step, metrics in pending:
            numbers = {key: float(value) for key, value in metrics.items()}
            if self._jsonl is not None:
                for tracker in (self._jsonl, *self._extra):
                    tracker.log(numbers, step)
            if self.progress is not None:
                self.progress.show(numbers)
            for listener in self.listeners:
                listener(step, numbers)
            for key, value in numbers.items():
                if not math.isfinite(value) and "loss" in key.rsplit("/", 1)[-1]:
                    raise RunFailed(
                        f"{key} became {value} at step {step}. The last good checkpoint is kept. "
                        "Usual causes: a learning rate too high, or bf16 where fp32 is needed; "
                        "detect_anomaly=true names the operation."
                    )

    def close(self) -> None:
        """Write out what is pending, whatever its values, and close all files."""
        with contextlib.suppress(RunFailed, OSError):
            self.flush()
        if self._jsonl is not None:
            for tracker in (self._jsonl, *self._extra):
                with contextlib.suppress(OSError):  # a full disk was reported when it was found
                    tracker.close()
