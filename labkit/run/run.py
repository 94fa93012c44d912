"""`Run`: what a training loop needs around it, and nothing of the loop itself.

It hands out steps (with progress, checkpoints, signals and resume), takes what is to be logged,
drawn, restored and reported, and leaves behind `runs/<week>/<size>/<time>-<id>/`.
"""

from __future__ import annotations

import contextlib
import math
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from labkit.config.config import LabConfig
from labkit.errors import Interrupted, ProbeDone, RunFailed
from labkit.machine import device
from labkit.machine.signals import handled, stop_signals
from labkit.records import store
from labkit.run import artifacts
from labkit.show import pictures, tracking
from labkit.show.console import say, warn
from labkit.state import arithmetic, checkpoint

if TYPE_CHECKING:
    import torch

    from labkit.data import Dataset

D = TypeVar("D", bound="Dataset")
FLUSH_SECONDS = 1.0
SHOW_SECONDS = 0.2


class StepProbe(Protocol):
    """What `lab plan` hangs into the step loop."""

    def begin(self, run: Run, total: int, tracked: dict[str, Any]) -> None: ...
    def before(self, step: int) -> None: ...
    def after(self, step: int) -> bool: ...


class Run:
    """One run of one week. Made by the `@lab` entrypoint; weeks only use it."""

    def __init__(
        self,
        week: str,
        cfg: LabConfig,
        folder: Path,
        size: str,
        experiment: str | None = None,
        backend: str = "torch",
        resumed: bool = False,
        probe: StepProbe | None = None,
    ) -> None:
        """`folder` exists. With `resumed`, its newest good checkpoint is read.

        Raises UsageError for a device that is not there, RunFailed when no checkpoint can be read.
        """
        self.week, self.cfg, self.dir, self.size, self.experiment = (
            week,
            cfg,
            folder,
            size,
            experiment,
        )
        self.seed, self.backend = cfg.seed, backend
        self.is_main = device.rank() == 0
        self.probe = probe
        self.metrics: dict[str, float] | None = None
        self.data_record: dict[str, Any] | None = None
        self.step = 0
        self.train_seconds = 0.0
        self.began_steps = False
        self._stopped = self._warned = False
        self._tracked: dict[str, Any] = {}
        self._pending: list[tuple[int, dict[str, Any]]] = []
        self._signal: int | None = None
        self._in_steps = False
        self._started = time.perf_counter()
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._flushed = self._saved_at = self._started
        self._saved_step: int | None = None
        self._restored = checkpoint.load_latest(folder / "checkpoint", warn) if resumed else None
        arithmetic.restore(self._restored)
        kept = self._restored["metrics_bytes"] if self._restored else 0
        self._jsonl = tracking.JsonLines(folder / "metrics.jsonl", kept) if self._writes else None
        title = f"{week}/{size}/{folder.name}"
        self._extra = (
            tracking.extra(cfg.logger, folder, title, vars(cfg), resumed) if self._writes else []
        )
        self._progress: tracking.Progress | None = None
        device.keep_freed_memory()
        self._seed_everything()

    @property
    def _writes(self) -> bool:
        return self.is_main and self.probe is None

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

    def data(self, name: str, kind: type[D]) -> D:
        """The dataset `name` (or cfg.fallback), whose provenance enters the record.

        The first set asked for is the one that the bands are about; further ones are listed under
        its `also`. `kind` is ImageData, TextData or TableData. Raises UsageError for a set of
        another kind, DataError when it cannot be had.
        """
        from labkit import data

        if self.data_record is None:
            loaded = data.load(name, self.cfg.fallback, kind)
            self.data_record = loaded.provenance(name)
        else:
            loaded = data.load(name, kind=kind)  # cfg.fallback is for the first set alone
            self.data_record.setdefault("also", []).append(loaded.provenance(name))
        assert isinstance(loaded, kind)
        return loaded

    def environment(self, name: str) -> None:
        """Name the environment that stands in the place of a dataset, for the record."""
        self._made("gymnasium", name, {}, None)

    def generated(self, name: str, splits: dict[str, int], sha256: str) -> None:
        """Name the data that the week makes itself, with its sizes and hash, for the record."""
        self._made("generated", name, splits, sha256)

    def _made(self, source: str, name: str, splits: dict[str, int], sha256: str | None) -> None:
        self.data_record = {
            "name": name,
            "requested": name,
            "source": source,
            "splits": splits,
            "sha256": sha256,
        }

    # --- the loop ---

    def track(self, **things: Any) -> None:
        """Name what a resumed run must find again: see `labkit.checkpoint.get_state` for what may
        be tracked.
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
        if self._writes:
            tracked = {name: checkpoint.get_state(thing) for name, thing in self._tracked.items()}
            self._warn_of_full_disk(checkpoint.size_of(tracked))
        self.began_steps = True
        if self.step < total and not self._stopped:
            with self._catching_signals():
                self._progress = tracking.Progress(
                    self.week, total, self.step, silent=not self._writes
                )
                try:
                    yield from self._timed_steps(total)
                finally:
                    self._progress.close()
                    self._progress = None

    def _timed_steps(self, total: int) -> Iterator[int]:
        begun, before = time.perf_counter(), self.train_seconds
        shown = begun
        self._saved_at = begun
        assert self._progress is not None
        forecast = None
        if self._writes:
            from labkit.run.forecast import Forecast

            data = (self.data_record or {}).get("name")
            forecast = Forecast(self.week, self.size, vars(self.cfg), data, self.step)
        if self.probe is not None:
            self.probe.begin(self, total, self._tracked)
        while self.step < total and not self._stopped:
            if self.probe is not None:
                self.probe.before(self.step)
            yield self.step
            self.step += 1
            if self.probe is not None and self.probe.after(self.step - 1):
                raise ProbeDone
            now = time.perf_counter()
            self.train_seconds = before + now - begun
            if forecast is not None:
                forecast.after(self.step, total)
            if now - self._flushed > FLUSH_SECONDS:
                self._flush()
            if now - shown > SHOW_SECONDS:
                self._progress.update(self.step)
                shown = now
            if self._signal is not None:
                name = signal.Signals(self._signal).name
                self.save()
                raise Interrupted(f"stopped by {name} after step {self.step}; its state is saved")
            if now - self._saved_at >= self.cfg.checkpoint_seconds:
                self.save()
        if self.probe is not None:
            raise ProbeDone  # before evaluation, whose results would become a record

    def stop(self) -> None:
        """Make the current step the last one, also for a run resumed later (unlike `break`)."""
        self._stopped = True

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Remember numbers or 0-d tensors under namespaced keys such as `train/loss`.

        They are written about once a second. A loss that is not finite then ends the run
        (RunFailed), before any checkpoint could keep the damage.
        """
        self._pending.append(
            (step, {k: v.detach() if hasattr(v, "detach") else v for k, v in metrics.items()})
        )

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        self._flushed = time.perf_counter()
        try:
            self._write(pending)
        finally:
            if self._jsonl is not None:
                self._jsonl.position()

    def _write(self, pending: list[tuple[int, dict[str, Any]]]) -> None:
        for step, metrics in pending:
            numbers = {key: float(value) for key, value in metrics.items()}
            if self._jsonl is not None:
                for tracker in (self._jsonl, *self._extra):
                    tracker.log(numbers, step)
            if self._progress is not None:
                self._progress.show(numbers)
            for key, value in numbers.items():
                if not math.isfinite(value) and "loss" in key.rsplit("/", 1)[-1]:
                    raise RunFailed(
                        f"{key} became {value} at step {step}. The last good checkpoint is kept. "
                        "Usual causes: a learning rate too high, or bf16 where fp32 is needed; "
                        "detect_anomaly=true names the operation."
                    )

    @contextlib.contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """SIGTERM and the first Ctrl-C end the current step in peace; a second Ctrl-C ends it at
        once.
        """

        def note(number: int, frame: FrameType | None) -> None:
            if self._signal is not None:
                if number == signal.SIGINT:
                    raise KeyboardInterrupt
                return  # whoever ends a group of processes may reach this one twice
            self._signal = number
            say("\nstopping after this step ...")

        with handled(dict.fromkeys((*stop_signals(), signal.SIGINT), note)):
            yield

    # --- checkpoints ---

    def save(self) -> None:
        """Write a checkpoint of all that is tracked. Called after the loop, before evaluation."""
        self._flush()
        if self._jsonl is None or self._saved_step == self.step:
            return
        state = {
            "step": self.step,
            "stopped": self._stopped,
            "train_seconds": self.train_seconds,
            "metrics_bytes": self._jsonl.position(),
            "precision": self.precision if self.backend == "torch" else None,
            "machine": arithmetic.state(),
            "rng": checkpoint.rng_state(),
            "tracked": {name: checkpoint.get_state(thing) for name, thing in self._tracked.items()},
        }
        file = checkpoint.save(self.dir / "checkpoint", self.step, state)
        self._warn_of_full_disk(file.stat().st_size)
        self._saved_step, self._saved_at = self.step, time.perf_counter()

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
                "is now, but not both"
            )
        for name, thing in self._tracked.items():
            checkpoint.set_state(thing, state["tracked"][name], name)
        checkpoint.set_rng_state(state["rng"])
        self.step, self._stopped = state["step"], state["stopped"]
        self.train_seconds = state["train_seconds"]
        self._saved_step = self.step
        say(f"resumed after step {self.step}")

    # --- pictures ---

    def _picture(self, name: str, save: Callable[[Path], None], suffix: str = ".png") -> None:
        if self._writes:
            save(self.dir / "samples" / f"{name}{suffix}")

    def image(self, name: str, image: Any) -> None:
        """samples/<name>.png from (H, W), (C, H, W) or (H, W, 3), uint8 or float in [0, 1]."""
        self._picture(name, lambda path: pictures.save_png(path, image))

    def grid(
        self, name: str, images: Any, columns: int = 8, titles: Sequence[str] | None = None
    ) -> None:
        """samples/<name>.png: images (N, C, H, W) or (N, H, W) in rows, with titles if given."""
        self._picture(name, lambda path: pictures.save_grid(path, images, columns, titles))

    def gif(self, name: str, frames: Sequence[Any], fps: int = 30) -> None:
        """samples/<name>.gif from frames (H, W, 3) uint8."""
        self._picture(name, lambda path: pictures.save_gif(path, frames, fps), ".gif")

    def figure(self, name: str, figure: Any) -> None:
        """samples/<name>.png from a matplotlib figure."""
        self._picture(name, lambda path: pictures.save_figure(path, figure))

    def plot(self, name: str, *keys: str, logy: bool = False) -> None:
        """samples/<name>.png: logged metrics against the step, of the whole run, resumed or not."""
        if self._jsonl is not None:
            self._flush()
            self._jsonl.position()
            self.figure(name, pictures.curve(self.dir / "metrics.jsonl", keys, logy))

    # --- what comes out ---

    def result(self, metrics: dict[str, Any]) -> None:
        """Report the headline metrics at the end. Raises RunFailed when one is not finite."""
        numbers = {key: float(value) for key, value in metrics.items()}
        bad = [f"{key} = {value}" for key, value in numbers.items() if not math.isfinite(value)]
        if bad:
            raise RunFailed(f"headline metrics must be finite: {', '.join(bad)}")
        self.metrics = numbers

    def publish(self, save: Callable[[Path], None]) -> None:
        """Publish the artifact `<week>/<size>-<data>` for later weeks: `save` fills the folder it
        is given. An experiment's is `<week>/<size>-<data>-<experiment>`.

        It gets there when the run has finished, with the run's record, and replaces an earlier one.
        Runs that were cut short, are broken on purpose, or differ from their size in what was
        trained (see `labkit.artifacts.FREE`) publish nothing.
        """
        experiment = self.experiment or ""
        if not self._writes or experiment.startswith("broken_") or self.cfg.max_steps is not None:
            return
        assert self.data_record is not None, "run.data() comes before run.publish()"
        artifacts.stage(self, save)

    def artifact(
        self, week: str, data: str, fallback: str | None = None, experiment: str | None = None
    ) -> Path | None:
        """The folder that `week` published from a run on `data` (or on `fallback` where `data` is
        not on this machine) with `experiment`; that run is started first if there is none, or if
        what there is missed its band.

        None at size smoke, where weeks make what they need at random initialisation, and in a
        probe. Raises RunFailed when the run that was started does not finish.
        """
        if self.size == "smoke" or self.probe is not None:
            return None
        return artifacts.obtain(week, data, fallback, experiment)

    def record(self, ended: str) -> dict[str, Any]:
        """The result record as it stands now (see labkit.results)."""
        from labkit.course import curriculum

        kind = self.device.type if self.backend == "torch" else "cpu"
        record: dict[str, Any] = {
            "schema": store.SCHEMA,
            "week": self.week,
            "size": self.size,
            "experiment": self.experiment,
            "config": {
                k: v
                for k, v in vars(self.cfg).items()
                if k not in ("resume", "logger", "checkpoint_seconds")
            },
            "seed": self.seed,
            "data": self.data_record,
            "metrics": self.metrics or {},
            "machine": device.describe(kind),
            "device": kind,
            "precision": self.precision if self.backend == "torch" else "fp32",
            "processes": device.world_size(),
            "steps": self.step,
            "train_seconds": round(self.train_seconds, 3),
            "steps_per_second": round(self.step / self.train_seconds, 3)
            if self.train_seconds
            else None,
            "wall_seconds": round(time.perf_counter() - self._started, 3),
            "peak_memory_mb": round(device.process_memory_mb()),
            "versions": store.versions(),
            "git": store.git_state(),
            "started": self._started_at,
            "ended": ended,
        }
        if kind == "cuda":
            import torch

            record["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
        record["bands"] = curriculum.verdicts(record)
        return record

    def close(self) -> None:
        """Write out what is pending, whatever its values, and close all files."""
        with contextlib.suppress(RunFailed, OSError):
            self._flush()
        if self._jsonl is not None:
            for tracker in (self._jsonl, *self._extra):
                with contextlib.suppress(OSError):  # a full disk was told of when it was found
                    tracker.close()
