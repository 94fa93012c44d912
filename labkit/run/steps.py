"""The step loop of a run: progress, checkpoints, signals and resume between the week's steps."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.config import fields
from labkit.config.schema import LabConfig
from labkit.errors import Interrupted, ProbeDone, RunFailed
from labkit.machine import device, ranks
from labkit.machine.memory import keep_freed_memory
from labkit.machine.signals import handled, stop_signals
from labkit.run import observer
from labkit.run.forecast import Forecast
from labkit.run.program import Backend
from labkit.run.reference import Reference
from labkit.show import tracking
from labkit.show.console import say, warn
from labkit.show.log import Log
from labkit.state import arithmetic, checkpoint, rng, tracked

if TYPE_CHECKING:
    import torch

FLUSH_SECONDS = 1.0
SHOW_SECONDS = 0.2


class Steps:
    """What a `Run` needs for its loop: where it computes, what it tracks, logs and saves."""

    def __init__(
        self,
        week: str,
        cfg: LabConfig,
        folder: Path,
        size: str,
        experiment: str | None = None,
        backend: Backend = "torch",
        resumed: bool = False,
    ) -> None:
        """`folder` exists. With `resumed`, its newest good checkpoint is read.

        Raises UsageError for a device that is not there, RunFailed when no checkpoint can be read.
        """
        self.week, self.cfg, self.dir, self.size = week, cfg, folder, size
        self.experiment, self.seed, self.backend = experiment, cfg.seed, backend
        self.is_main = ranks.rank() == 0
        self.observer = observer.current()
        self.writes = self.is_main and self.observer is None
        self.data_record: dict[str, Any] | None = None
        self.notes: dict[str, Any] | None = None
        self.step = 0
        self.train_seconds = 0.0
        self.began_steps = False
        self.started = time.perf_counter()
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._stopped = self._warned = False
        self._tracked: dict[str, Any] = {}
        self._signal: int | None = None
        self._saved_at = self.started
        self._saved_step: int | None = None
        self._restored = checkpoint.load_latest(folder / "checkpoint", warn) if resumed else None
        arithmetic.restore(self._restored)
        self._log = self._open_log(resumed)
        keep_freed_memory()
        self._seed_everything()

    def _open_log(self, resumed: bool) -> Log:
        if not self.writes:
            return Log(None)
        kept = self._restored["metrics_bytes"] if self._restored else 0
        title = f"{self.week}/{self.size}/{self.dir.name}"
        settings = fields.flat(self.cfg)
        return Log(
            self.dir / "metrics.jsonl",
            kept,
            lambda: tracking.extra(self.cfg.logger, self.dir, title, settings, resumed),
        )

    def _seed_everything(self) -> None:
        random.seed(self.seed)
        np.random.seed(self.seed % 2**32)  # noqa: NPY002  (libraries still draw from it)
        if self.backend == "torch":
            import torch

            torch.manual_seed(self.seed)
            torch.autograd.set_detect_anomaly(self.cfg.detect_anomaly)

    # --- where and how to compute ---

    @cached_property
    def device(self) -> torch.device:
        """The device that `device=` means here."""
        return device.resolve(self.cfg.device)

    @cached_property
    def precision(self) -> str:
        """fp32 or bf16; a resumed run keeps the one it began with."""
        if self._restored and self._restored.get("precision"):
            return str(self._restored["precision"])
        return device.resolve_precision(self.cfg.precision, self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context for forward passes: bf16 autocast when the precision is bf16, else nothing."""
        import torch

        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    # --- the loop ---

    def track(self, **things: Any) -> None:
        """Name what a resumed run must restore: see `labkit.state.tracked` for what may be
        tracked.
        """
        self._tracked |= things

    def steps(self, total: int) -> Iterator[int]:
        """Yield 0, 1, ... total - 1, from the checkpoint on when the run is resumed.

        Between steps: checkpoints on the cadence, and on SIGTERM or Ctrl-C, after which Interrupted
        is raised. Everything that later steps depend on must have been tracked before.
        """
        if self.cfg.max_steps is not None:
            total = min(total, self.cfg.max_steps)
        self._restore()
        if self.writes:
            self._warn_of_full_disk(checkpoint.size_of(self._tracked_state()))
            self._log.listeners = [self.reference.see]
        self.began_steps = True
        if self.step >= total or self._stopped:
            return
        progress = tracking.Progress(self.week, total, self.step, silent=not self.writes)
        self._log.progress = progress
        with self._catching_signals():
            try:
                if self.observer is None:
                    yield from self._timed_steps(total, progress)
                else:
                    yield from self._observed_steps(self.observer, total)
            finally:
                progress.close()
                self._log.progress = None

    def _timed_steps(self, total: int, progress: tracking.Progress) -> Iterator[int]:
        begun, before = time.perf_counter(), self.train_seconds
        shown = self._saved_at = begun
        forecast: Callable[[int, int], None] = lambda done, of: None  # noqa: E731
        if self.writes:
            data = (self.data_record or {}).get("name")
            forecast = Forecast(self.week, self.size, fields.flat(self.cfg), data, self.step).after
        while self.step < total and not self._stopped:
            yield self.step
            self.step += 1
            now = time.perf_counter()
            self.train_seconds = before + now - begun
            forecast(self.step, total)
            if now - self._log.flushed > FLUSH_SECONDS:
                self._log.flush()
            if now - shown > SHOW_SECONDS:
                progress.update(self.step)
                shown = now
            if self._signal is not None:
                name = signal.Signals(self._signal).name
                self.save()
                raise Interrupted(f"stopped by {name} after step {self.step}; its state is saved")
            if now - self._saved_at >= self.cfg.checkpoint_seconds:
                self.save()

    def _observed_steps(self, watching: observer.Observer, total: int) -> Iterator[int]:
        """Raises ProbeDone at the end: evaluation would come next."""
        watching.begin(self, total, self._tracked)
        for step in watching.chosen(self.step, total):
            if self._stopped:
                break
            self.step = step
            watching.before(step)
            yield step
            self.step += 1
            if watching.after(step):
                break
        raise ProbeDone

    @cached_property
    def reference(self) -> Reference:
        """The curves of recorded runs of this size; asked for when the data are known."""
        data = (self.data_record or {}).get("name")
        settings = fields.flat(self.cfg)
        return Reference(self.week, self.size, self.experiment, settings, data)

    def stop(self) -> None:
        """Make the current step the last one, also for a run resumed later (unlike `break`)."""
        self._stopped = True

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Remember numbers or 0-d tensors under namespaced keys such as `train/loss`.

        They are written about once a second. A loss that is not finite then ends the run
        (RunFailed), before any checkpoint could keep the damage.
        """
        self._log.add(metrics, step)

    @contextlib.contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """After SIGTERM or the first Ctrl-C the current step is completed; a second Ctrl-C ends it
        at once.
        """

        def note(number: int, frame: FrameType | None) -> None:
            if self._signal is not None:
                if number == signal.SIGINT:
                    raise KeyboardInterrupt
                return  # ending a process group may signal this one twice
            self._signal = number
            say("\nstopping after this step ...")

        with handled(dict.fromkeys((*stop_signals(), signal.SIGINT), note)):
            yield

    # --- checkpoints ---

    def save(self) -> None:
        """Write a checkpoint of all that is tracked. Called after the loop, before evaluation."""
        written = self._log.flush()
        if not self.writes or self._saved_step == self.step:
            return
        state = {
            "step": self.step,
            "stopped": self._stopped,
            "train_seconds": self.train_seconds,
            "metrics_bytes": written,
            "precision": self.precision if self.backend == "torch" else None,
            "machine": arithmetic.state(),
            "rng": rng.rng_state(),
            "tracked": self._tracked_state(),
        }
        file = checkpoint.save(self.dir / "checkpoint", self.step, state)
        self._warn_of_full_disk(file.stat().st_size)
        self._saved_step, self._saved_at = self.step, time.perf_counter()

    def _tracked_state(self) -> dict[str, Any]:
        return {name: tracked.get_state(thing) for name, thing in self._tracked.items()}

    def _warn_of_full_disk(self, needed: int) -> None:
        """Once, while there is time to make room for the next checkpoint."""
        text = checkpoint.too_little_room(self.dir, needed)
        if text is not None and not self._warned:
            warn(text)
        self._warned = text is not None

    def _restore(self) -> None:
        """Put the checkpoint's state into the tracked things, once, when the loop begins."""
        if self._restored is None:
            return
        state, self._restored = self._restored, None
        _ = self.precision if state["precision"] else None
        missing = sorted(set(state["tracked"]) ^ set(self._tracked))
        if missing:
            raise RunFailed(
                f"the checkpoint does not fit this code: {', '.join(missing)} was tracked then or "
                "is tracked now, and the other lacks it"
            )
        for name, thing in self._tracked.items():
            tracked.set_state(thing, state["tracked"][name], name)
        rng.set_rng_state(state["rng"])
        self.step, self._stopped = state["step"], state["stopped"]
        self.train_seconds = state["train_seconds"]
        self._saved_step = self.step
        say(f"resumed after step {self.step}")
