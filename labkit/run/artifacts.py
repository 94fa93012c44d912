"""What finished runs publish for later weeks: artifacts/<week>/<size>-<data>[-<experiment>]/.

A name such as `tiny-mnist` is a claim: these are the weights that size tiny gives. So only a run
with that size's own settings may publish under it, its record is in the folder, and a run that
loads it compares that record with the bands.
"""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit import course, files, paths
from labkit.config import compose, fields, schema
from labkit.config.schema import LabConfig
from labkit.errors import Interrupted, RunFailed
from labkit.machine import signals
from labkit.records import store
from labkit.run.steps import Steps
from labkit.show.console import say, warn

FREE = schema.RESUMABLE_CHANGES | {
    "seed", "fallback", "precision", "detect_anomaly", "log_every", "data",
}  # fmt: skip
"""Settings in which a published run may differ from its size: where and how it was computed and
logged, and the data, which are in the artifact's name. The band checks that the result is as
good."""

RECORD = "record.json"
STAGED = "artifact"
"""Folder inside the run's own in which an artifact waits until the run has finished."""


def own_settings(week: str, kind: type[LabConfig], size: str, experiment: str | None) -> LabConfig:
    """The config of a size (and experiment) as its files state it."""
    words = [] if size == "full" else [f"+size={size}"]
    words += [f"+experiment={experiment}"] if experiment else []
    return compose.compose(week, kind, words).config


def changes(cfg: LabConfig, own: LabConfig) -> dict[str, tuple[Any, Any]]:
    """Settings, other than the free ones, in which `cfg` differs: name to (own, asked)."""
    asked, stated = fields.flat(cfg), fields.flat(own)
    return {
        name: (stated[name], value)
        for name, value in asked.items()
        if name not in FREE and stated[name] != value
    }


def stage(run: Steps, save: Callable[[Path], None]) -> None:
    """Let `save` fill the run's staging folder, unless its settings are not those of its size."""
    kind = type(run.cfg)
    found = changes(run.cfg, own_settings(run.week, kind, run.size, run.experiment))
    if found:
        differing = ", ".join(f"{key}={new} instead of {old}" for key, (old, new) in found.items())
        say(f"not published as {run.week}/{run.size}: this run has {differing}")
        return
    folder = run.dir / STAGED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    save(folder)


def release(run: Steps, record: Mapping[str, Any]) -> None:
    """Move what a finished run staged to its place, with its record; an earlier one is replaced.

    Raises OSError.
    """
    staged = run.dir / STAGED
    if not staged.is_dir():
        return
    files.write_json(staged / RECORD, dict(record))
    name = "-".join(filter(None, (run.size, record["data"]["name"], run.experiment)))
    put(staged, paths.artifacts() / run.week / name)


def put(staged: Path, folder: Path) -> None:
    """Move what is in `staged`, on the same disk, to its place; an earlier one is replaced.

    Raises OSError; the earlier one then stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    with suppress(FileNotFoundError):
        folder.rename(old)
    try:
        staged.rename(folder)
    except OSError:
        with suppress(OSError):
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def fault(folder: Path) -> str | None:
    """Why the artifact in `folder` cannot be used; None when it can.

    Its folder must have the record of a finished run that missed no band. Where no band is about
    its data, none can be missed.
    """
    try:
        record = store.read(folder / RECORD)
    except ValueError:
        return "it has no record of the run that made it (older versions published none)"
    if record["ended"] != "finished":
        return "its run did not finish"
    missed = [entry for entry in course.verdicts(record) if not entry["met"]]
    if missed:
        return "; ".join(f"{entry['text']} was missed: {entry['value']:g}" for entry in missed)
    return None


def at_hand(week: str, data: str, experiment: str | None = None, size: str = "tiny") -> bool:
    """Whether `obtain` finds this artifact and starts no run."""
    name = "-".join(filter(None, (size, data, experiment)))
    folder = paths.artifacts() / week / name
    return folder.is_dir() and fault(folder) is None


def obtain(
    week: str,
    data: str,
    fallback: str | None = None,
    experiment: str | None = None,
    size: str = "tiny",
) -> Path:
    """The folder published by `week` at `size` on the dataset `data`, by that experiment or by the
    week as it is; its run is started when there is none, or when it missed a band.

    Where `data` is not on this machine, what was published on `fallback` is used, which is that
    week's own fallback for such data. Raises RunFailed when that run does not finish, or misses its
    band as well, and Interrupted when it was stopped.
    """
    from labkit.data import here

    ending = f"-{experiment}" if experiment else ""

    def published(*names: str | None) -> Path | None:
        folders = [paths.artifacts() / week / f"{size}-{name}{ending}" for name in names if name]
        return next((folder for folder in folders if folder.is_dir()), None)

    found = published(data, None if here(data) else fallback)
    if found is not None and (why := fault(found)) is None:
        return found
    words = [*([] if size == "full" else [f"+size={size}"]), f"data={data}"]
    words += [f"fallback={fallback}"] if fallback else []
    words += [f"+experiment={experiment}"] if experiment else []
    if found is not None:
        words += _another_seed(found)
        warn(f"{found} cannot be used ({why}); it is trained again.")
    command = ["-m", f"{week}.train", *words]
    say(
        f"This week needs what week {week} publishes: running it first"
        f"{_expected(week, size, data, experiment)}."
    )
    by_hand = f"python {' '.join(command)}"
    say(f"  {by_hand}")
    code = signals.finish([sys.executable, *command])
    if code == 130:
        raise Interrupted(f"stopped while week {week} was running, which this week needs")
    found = published(data, fallback)
    if code != 0 or found is None:
        raise RunFailed(f"the prerequisite failed (exit {code}); run it by hand: {by_hand}")
    if (why := fault(found)) is not None:
        raise RunFailed(
            f"what week {week} published in {found} cannot be used: {why}.\n"
            f"See what its own run says (lab doctor checks this machine): {by_hand}"
        )
    return found


def _another_seed(folder: Path) -> list[str]:
    """The override for another try after a result that was not good enough: the next seed."""
    try:
        return [f"seed={store.read(folder / RECORD)['seed'] + 1}"]
    except ValueError:
        return []


def recorded_seconds(week: str, size: str, data: str, experiment: str | None) -> float | None:
    """Wall seconds of the last such run in results/; None without one."""
    for record in reversed(store.read_all()[0]):
        name = (record.get("data") or {}).get("name")
        found = (record["week"], record["size"], name, record.get("experiment"))
        if found == (week, size, data, experiment) and record.get("wall_seconds"):
            return float(record["wall_seconds"])
    return None


def _expected(week: str, size: str, data: str, experiment: str | None) -> str:
    seconds = recorded_seconds(week, size, data, experiment)
    return "" if seconds is None else f" (it took {seconds:.0f} s when last recorded)"
