"""The probe in a process of its own, with smaller batches where the full one is too large."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from labkit import paths
from labkit.errors import RunFailed, UsageError
from labkit.plan.measured import Measured
from labkit.show import console

START_SECONDS = 180.0
"""Seconds beyond the probing: for loading data, and for a step that cannot be interrupted."""

SHRINK = 16
"""A batch too large to probe here is made smaller by this factor, repeatedly."""


def measure(week: str, overrides: Sequence[str]) -> Measured:
    """Probe in a process of its own; with smaller batches where the full one is too large.

    Raises UsageError for what the week itself refuses, and RunFailed when nothing could be probed.
    """
    words = [word for word in overrides if not word.lstrip("+").startswith("batch_size=")]
    asked = list(overrides)
    full_batch: int | None = None
    while True:
        lines, errors, code = _probe_process(week, asked)
        began = next((line for line in lines if "batch_size" in line and "steps" in line), {})
        if lines and "seconds" in lines[-1]:
            probe = Measured(**lines[-1])
            return probe.scaled_to(full_batch) if full_batch else probe
        if code == 2:
            raise UsageError(errors)
        batch = began.get("batch_size")
        full_batch = full_batch or batch
        if not isinstance(batch, int) or batch <= 1 or not _too_much(code, errors):
            raise RunFailed(errors or "not one step could be finished while probing")
        asked = [*words, f"batch_size={max(1, batch // SHRINK)}"]
        console.say(f"a batch of {batch} is too large to probe here; trying {asked[-1]}")


TOO_SLOW = 75
"""Exit code of a probe that could not finish one step (EX_TEMPFAIL)."""


def _too_much(code: int, errors: str) -> bool:
    """Whether a probe ended for lack of time or memory: stopped, killed, or refused memory."""
    refused = ("MemoryError", "out of memory", "can't allocate memory")
    return code == TOO_SLOW or code < 0 or any(words in errors for words in refused)


def _probe_process(week: str, words: Sequence[str]) -> tuple[list[dict[str, Any]], str, int]:
    """JSON lines, error text and exit code of `python -m labkit.plan.probe`."""
    command = [sys.executable, "-m", "labkit.plan.probe", week, *words]
    try:
        done = subprocess.run(
            command,
            cwd=paths.ROOT,
            # Compiled graphs would hide their operations from the counters.
            env={**os.environ, "TORCHDYNAMO_DISABLE": "1", "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        out, err, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        out, err, code = _text(error.stdout), _text(error.stderr), TOO_SLOW
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if code == 0:
        sys.stderr.write(err)  # such as a warning that another dataset is used
    return lines, err.strip().removeprefix("error: "), code


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
