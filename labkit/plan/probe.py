"""The probe: the first steps of a run, watched. For people: `lab plan`.

python -m labkit.plan.probe WEEK [overrides]        prints what it measured as JSON
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from labkit.errors import ProbeDone, RunFailed, UsageError
from labkit.machine import threads
from labkit.machine.memory import process_memory_mb
from labkit.plan.counts import Counts, count_parameters, counting
from labkit.plan.measure import TOO_SLOW
from labkit.plan.measured import Measured
from labkit.run import entry
from labkit.run.observer import Observer, observed
from labkit.run.steps import Steps
from labkit.show import console

PROBE_SECONDS = 10.0
"""After this time no further step begins, and a step that takes longer is interrupted."""

TIMED_STEPS = 20
"""Enough steps to time, if they took a second or more in all."""


class Probe:
    """Watches the first steps of a run: `run.steps` calls `begin` once, then `before` and `after`.

    The first two steps run under PyTorch's counters (the second is the one that counts, free of
    what is only done once); the steps after them are timed as they are.
    """

    def __init__(self, budget: float = PROBE_SECONDS) -> None:
        self._deadline = time.perf_counter() + budget
        self._budget = budget
        self._stack = ExitStack()
        self._counts = Counts()
        self._step = 0
        self._total = 0
        self._run: Steps | None = None
        self._tracked: Mapping[str, Any] = {}
        self._setup_memory_mb = 0.0
        self._mark = 0.0
        self._warm: list[float] = []
        self._times: list[float] = []

    def begin(self, run: Steps, total: int, tracked: Mapping[str, Any]) -> None:
        """The loop is about to start: everything is built and tracked. The clock starts here."""
        self._run, self._total, self._tracked = run, total, tracked
        self._deadline = time.perf_counter() + self._budget
        self._setup_memory_mb = memory_mb("VmRSS")
        batch_size = getattr(run.cfg, "batch_size", None)
        print(json.dumps({"batch_size": batch_size, "steps": total}), flush=True)

    def chosen(self, first: int, total: int) -> Sequence[int]:
        """One after the other."""
        return range(first, total)

    def before(self, step: int) -> None:
        """A step starts. Raises ProbeDone from within the step when it takes too long."""
        if len(self._warm) < 2 and "torch" in sys.modules:
            self._counts = Counts()
            self._stack.enter_context(counting(self._counts, self._deadline))
        _synchronize()
        self._mark = time.perf_counter()

    def after(self, step: int) -> bool:
        """A step is over; True when enough has been seen."""
        _synchronize()
        now = time.perf_counter()
        self._stack.close()
        (self._warm if len(self._warm) < 2 else self._times).append(now - self._mark)
        enough = len(self._times) >= TIMED_STEPS and sum(self._times) > 1.0
        last = step + 1 >= self._total
        return enough or last or now > self._deadline

    def result(self) -> Measured:
        """What was seen. Raises RunFailed when not even one step was finished."""
        self._stack.close()
        if self._run is None or not self._warm:
            raise RunFailed("not one step could be finished while probing")
        times = self._times or self._warm[-1:]
        seconds = sum(times) / len(times)
        # A first step imports and allocates: it does not show Python's part in the later ones.
        host_seconds = max(0.0, seconds - self._counts.seconds) if self._times else 0.0
        peak_memory_mb = memory_mb("VmHWM")
        torch_loaded = "torch" in sys.modules  # asking a run for its device would load it
        config = self._run.cfg
        batch_size = getattr(config, "batch_size", None)
        return Measured(
            steps=self._total,
            device=str(self._run.device) if torch_loaded else "cpu",
            precision=str(self._run.precision) if torch_loaded else "NumPy",
            asked_precision=config.precision,
            batch_size=batch_size,
            probed_batch_size=batch_size,
            parameters=count_parameters(self._tracked),
            setup_memory_mb=self._setup_memory_mb,
            peak_memory_mb=peak_memory_mb,
            seconds=seconds,
            timed=len(times),
            kernels=self._counts.kernels,
            flops=self._counts.flops,
            bytes=self._counts.bytes,
            host_seconds=host_seconds,
            uses_torch=self._counts.kernels > 0,
        )


def _synchronize() -> None:
    """Wait until the accelerator has done what it was given."""
    if (torch := sys.modules.get("torch")) is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def memory_mb(which: str) -> float:
    """Memory in MB: of the accelerator where one is used, else of this process.

    `which` is VmRSS (now) or VmHWM (at its peak), in Linux's words.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        now, peak = torch.cuda.memory_reserved, torch.cuda.max_memory_reserved
        return float(peak() if which == "VmHWM" else now()) / 1e6
    return process_memory_mb(which)


def watch(week: str, words: Sequence[str], observer: Observer) -> None:
    """Run a week's loop until `observer` has seen enough; keeps no files.

    Raises UsageError for bad overrides, RunFailed when the loop ended or failed before that.
    """
    from labkit.run.life import Start, execute

    entrypoint = entry.entrypoint(week)
    request = entrypoint.compose(words)
    with tempfile.TemporaryDirectory() as folder, observed(observer):
        start = Start(request.config, Path(folder) / "probe", request.choices)
        try:
            code, _ = execute(entrypoint.program, start, lambda: None)
        except ProbeDone:
            return
    raise RunFailed(f"the loop of {week} ended (exit {code}) before it could be measured")


def main(week: str, overrides: Sequence[str]) -> int:
    """The probing process: prints what it measured as JSON on its last line."""
    probe = Probe()
    try:
        watch(week, list(overrides), probe)
    except UsageError as error:
        console.fail(str(error))
        return 2
    except RunFailed:
        return 1  # the run itself has printed why
    try:
        measured = probe.result()
    except RunFailed as error:
        console.fail(str(error))
        return TOO_SLOW
    print(json.dumps(dataclasses.asdict(measured)), flush=True)
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m labkit.plan.probe <week> [overrides]\nFor people: lab plan")
    threads.choose()
    sys.exit(main(sys.argv[1], sys.argv[2:]))
