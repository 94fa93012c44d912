"""Run folders: which is the newest, which can be resumed, and which is in use.

A run folder is `runs/<week>/<size>/<time>-<id>/`, in a sweep `...-<job>`. While its run is
active, a process holds a lock on it, which the operating system releases when that process ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.errors import UsageError
from labkit.show.console import say, warn

LOCK = "run.lock"
CLOCK_SLACK = 60.0
"""Seconds by which a file may be dated later than now; beyond that, a clock was wrong."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that no second process runs in it.

    Raises UsageError when another one holds it, or when the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, blocking=False)
    try:
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "no permission to write")
        lock.acquire()
    except Timeout as error:
        raise UsageError(
            f"{folder} is in use: another process runs it. Wait for its end, or stop that "
            "process first (SIGTERM or Ctrl-C lets it save)."
        ) from error
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written to ({error.strerror or error}); a run resumes in its "
            "own folder. Allow writing there, or copy the folder and resume the copy."
        ) from error
    except NotImplementedError:
        warn(f"the file system of {folder} has no locks: do not resume this run twice at once")
        yield
        return
    try:
        yield
    finally:
        lock.release()


def in_use(folder: Path) -> bool:
    """Whether a living process holds the folder."""
    from filelock import FileLock, Timeout

    if not (folder / LOCK).is_file():
        return False
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False


def has_finished(folder: Path) -> bool:
    """Whether the run in `folder` came to its end."""
    from labkit.records import store

    try:
        return bool(store.read(folder / "result.json")["ended"] == "finished")
    except ValueError:
        return False


def last_written(folder: Path) -> float:
    """When the run last wrote (seconds since 1970): checkpoint, metrics, result or its config."""
    names = ("checkpoint/*.safetensors", "metrics.jsonl", "result.json", ".hydra/config.yaml")
    times = []
    for path in (path for name in names for path in folder.glob(name)):
        with contextlib.suppress(OSError):  # a checkpoint may go while we look
            times.append(path.stat().st_mtime)
    return max(times, default=0.0)


def natural(name: str) -> list[Any]:
    """A sort key by which job 9 comes before job 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def with_model(where: str, week: str, otherwise: str) -> Path:
    """The folder of a run of a week that kept its model: `latest`, or a path.

    Raises UsageError when there is none; without any it says what to do `otherwise`.
    """
    if where == "latest":
        models = list((paths.runs() / week).glob("*/*/model/config.json"))
        if not models:
            raise UsageError(f"no finished run of {week} is below {paths.runs()}; {otherwise}")
        return newest_first([path.parents[1] for path in models])[0]
    folder = paths.typed(where)
    try:
        found = (folder / "model" / "config.json").is_file()
    except OSError:  # such as a name that is too long
        found = False
    if not found:
        raise UsageError(
            f"run={where} is not a finished run of {week} (no model/ in it); "
            f"see {paths.runs() / week}"
        )
    return folder


def newest_first(folders: Sequence[Path]) -> list[Path]:
    """Run folders, the one that wrote last first.

    Times of files count, not names: a name holds the time when the run began. Runs dated
    in the future come last, since their clock was wrong; equal times are ordered by name.
    """
    now = time.time() + CLOCK_SLACK

    def key(folder: Path) -> tuple[Any, ...]:
        written = last_written(folder)
        return (written <= now, written, natural(folder.name))

    return sorted(folders, key=key, reverse=True)


def saved_folder(week: str, where: str) -> Path:
    """The run folder of that path. Raises UsageError when it is not a run folder."""
    folder = paths.typed(where)
    try:
        if (folder / ".hydra" / "config.yaml").is_file():
            return folder.resolve()
        why = "no .hydra/config.yaml in it"
    except (OSError, RuntimeError) as error:  # such as a name that is too long, or a ring of links
        why = getattr(error, "strerror", None) or str(error)
    raise UsageError(f"{where} is not a run folder ({why}); runs are in {paths.runs() / week}")


def latest(week: str, size: str | None = None) -> Path:
    """The newest run of a week (of one size, if given) that can be resumed; says which, and which
    newer ones it skipped. Raises UsageError when there is none.

    That is: it did not finish, and no process is running it. One that has no checkpoint yet begins
    again at step 0, in its own folder and with its own config.
    """
    place = paths.runs() / week
    found = [file.parents[1] for file in place.glob("*/*/.hydra/config.yaml")]
    if size is not None:
        found = [folder for folder in found if folder.parent.name == size]
    passed = []
    for folder in newest_first(found):
        name = f"{folder.parent.name}/{folder.name}"
        if has_finished(folder):
            passed.append(f"{name} has finished")
        elif in_use(folder):
            passed.append(f"{name} is still running")
        else:
            written = last_written(folder)
            at = datetime.fromtimestamp(written).strftime("%Y-%m-%d %H:%M:%S")
            over = f"; newer ones were skipped: {_some(passed)}" if passed else ""
            if written > time.time() + CLOCK_SLACK:
                at += ", which is in the future: a clock was wrong"
            say(f"latest is {folder}, last written {at}{over}")
            return folder
    of_size = f" at size {size}" if size else ""
    if passed:
        raise UsageError(
            f"no run of {week}{of_size} can be resumed: {_some(passed)}.\n"
            f"Start a new one: python -m {week}.train +size={size or 'tiny'}"
        )
    raise UsageError(
        f"there is no run of {week}{of_size} below {place}; "
        f"start one: python -m {week}.train +size={size or 'tiny'}"
    )


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def new_name() -> str:
    """A folder name that sorts by time and is unique even among runs started in the same second."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"


def writable(folder: Path) -> None:
    """Raises UsageError when `folder` cannot be made and written to."""
    trial = folder / f".{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UsageError(
            f"runs are written to {folder}, which cannot be done: {error.strerror or error}.\n"
            "Set LAB_HOME to a folder that you can write to."
        ) from error
