"""Where logged numbers go: metrics.jsonl always, the console, and TensorBoard or W&B when asked
for.

A tracker has `log(metrics, step)` and `close()`. None of them is called from the training loop
itself: `Run.log` only remembers, and hands over about once a second, so that logging forces no
device sync.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from labkit.errors import UsageError
from labkit.show.console import warn
from labkit.show.pictures import read_metrics

TRACKERS = ("tensorboard", "wandb")
PROGRESS = "@progress "
"""Begins a line that tells another process of the progress, where LAB_PROGRESS=lines."""


class Tracker(Protocol):
    def log(self, metrics: dict[str, float], step: int) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """metrics.jsonl: one object a line, `{"step": 10, "train/loss": 0.3}`."""

    def __init__(self, path: Path, keep_bytes: int = 0) -> None:
        """Opens `path`; what is beyond `keep_bytes` was logged after the checkpoint and is removed.

        Raises OSError.
        """
        self.file = path.open("ab", buffering=0)
        size = self.file.seek(0, os.SEEK_END)
        if size < keep_bytes:
            warn(f"{path} is cut short by {keep_bytes - size:,} bytes since the checkpoint")
        self.file.truncate(min(keep_bytes, size))
        self.size = self.file.seek(0, os.SEEK_END)
        self.pending = bytearray()

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.pending += json.dumps({"step": step, **metrics}).encode() + b"\n"

    def position(self) -> int:
        """Bytes written so far, all of them handed to the operating system.

        Raises OSError when the disk does not take them; no half line stays, and they are kept for
        another try.
        """
        try:
            while self.pending:
                done = self.file.write(self.pending)
                self.size += done
                del self.pending[:done]
        except OSError:
            self._drop_half_line()
            raise
        return self.size

    def _drop_half_line(self) -> None:
        with open(self.file.name, "rb") as file:
            whole = file.read(self.size).rfind(b"\n") + 1
            file.seek(whole)
            self.pending[:0] = file.read(self.size - whole)
        self.file.truncate(whole)
        self.size = whole

    def close(self) -> None:
        try:
            self.position()
        finally:
            self.file.close()


class TensorBoard:
    """Event files in the run folder: `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, resumed: bool) -> None:
        """A resumed run continues after the last step that its metrics.jsonl has kept.

        That need not be a step of the loop: environments count their own.
        """
        from torch.utils.tensorboard import SummaryWriter

        purge = None
        if resumed:
            logged = (line["step"] for line in read_metrics(folder / "metrics.jsonl"))
            purge = int(max(logged, default=-1)) + 1
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WandB:
    """Weights & Biases; without an account or network the files stay in the run folder (`wandb
    sync`).
    """

    def __init__(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        import wandb

        has_account = bool(os.environ.get("WANDB_API_KEY")) or (Path.home() / ".netrc").is_file()
        chosen = os.environ.get("WANDB_MODE") or ("online" if has_account else "offline")
        mode: Any = chosen  # wandb itself refuses what it does not know
        identity = folder.name.replace("/", "-")
        self.run = wandb.init(
            project="lab", name=name, id=identity, resume="allow", dir=folder, config=config,
            mode=mode, settings=wandb.Settings(silent=True),
        )  # fmt: skip

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(metrics, step=step)

    def close(self) -> None:
        self.run.finish()


def extra(
    names: list[str], folder: Path, title: str, config: dict[str, Any], resumed: bool
) -> list[Tracker]:
    """The trackers asked for by `logger=`. Raises UsageError for an unknown name or a missing
    package.
    """
    trackers: list[Tracker] = []
    for name in names:
        try:
            if name == "tensorboard":
                trackers.append(TensorBoard(folder, resumed))
            elif name == "wandb":
                trackers.append(WandB(folder, title, config))
            elif name not in ("none", "jsonl", "console"):
                raise UsageError(
                    f"logger={name} is not one of {', '.join(TRACKERS)}; "
                    "metrics.jsonl is always written"
                )
        except ImportError as error:
            raise UsageError(
                f"logger={name} needs a package that is not installed: pip install {name}"
            ) from error
    return trackers


class Progress:
    """What a person sees during a run: a bar with ETA on a terminal, else a line now and
    then.
    """

    PLAIN_SECONDS = 10.0
    TOLD_SECONDS = 1.0

    def __init__(self, title: str, total: int, start: int, silent: bool = False) -> None:
        self.title, self.total, self.start = title, total, start
        self.done = start
        self.began = self.last = time.perf_counter()
        self.shown: dict[str, float] = {}
        self.silent = silent
        self.bar: Any = None
        self.told = not silent and os.environ.get("LAB_PROGRESS") == "lines"
        if self.told:
            self._tell()
        elif not silent and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self.bar = progress.Progress(
                "{task.description}", progress.BarColumn(), progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[rate]}"), "ETA", progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[metrics]}"),
                console=Console(stderr=True), auto_refresh=False, transient=True,
            )  # fmt: skip
            self.bar.start()
            self.task = self.bar.add_task(title, total=total, completed=start, rate="", metrics="")

    def show(self, metrics: dict[str, float]) -> None:
        self.shown |= {k: v for k, v in metrics.items() if isinstance(v, float)}

    def update(self, done: int) -> None:
        """Called at most a few times a second, with the number of steps done."""
        self.done = done
        now = time.perf_counter()
        seconds = now - self.began
        rate = (done - self.start) / seconds if seconds > 0 else 0.0
        metrics = "  ".join(f"{k} {v:.4g}" for k, v in list(self.shown.items())[-4:])
        if self.bar is not None:
            self.bar.update(self.task, completed=done, rate=f"{rate:.1f}/s", metrics=metrics)
            self.bar.refresh()
        elif self.told:
            if now - self.last >= self.TOLD_SECONDS:
                self.last = now
                self._tell()
        elif not self.silent and now - self.last >= self.PLAIN_SECONDS:
            self.last = now
            left = (self.total - done) / rate if rate else float("inf")
            print(
                f"{self.title} {done}/{self.total}  {rate:.1f} steps/s  ETA {left:.0f} s  "
                f"{metrics}",
                file=sys.stderr,
                flush=True,
            )

    def _tell(self, closed: bool = False) -> None:
        """A line for the process that shows this progress elsewhere."""
        about = {"title": self.title, "total": self.total, "done": self.done, "closed": closed}
        line = json.dumps({**about, "metrics": dict(list(self.shown.items())[-4:])})
        print(f"{PROGRESS}{line}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.told:
            self._tell(closed=True)
