"""A stage that is a whole week: its command, run in a place of its own, and what it left there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capstone.stages import RECORD
from labkit import Run, RunFailed
from labkit.errors import Interrupted
from labkit.machine.signals import finish
from labkit.records import store
from labkit.show.console import say


def week_run(run: Run, week: str, *words: str) -> Path:
    """The folder of a finished run of `week` at this run's size and seed, with `words`.

    The week's runs are in `<run folder>/weeks/`. One that has finished there is used, one that was
    cut short is resumed, and otherwise one is started. Artifacts that it needs come from the
    ordinary place. Raises RunFailed when it fails, Interrupted when it was stopped.
    """
    home = run.dir / "weeks"
    finished, unfinished = runs_of(home, week)
    if finished:
        return finished[-1]
    home.mkdir(exist_ok=True)
    link_artifacts(home)
    asked = [f"resume={unfinished[-1]}"] if unfinished else [
        *([] if run.size == "full" else [f"+size={run.size}"]), f"seed={run.seed}",
        f"device={run.cfg.device}", *words,
    ]  # fmt: skip
    command = [sys.executable, "-m", f"{week}.train", *asked]
    say(f"  python {' '.join(command[1:])}")
    code = finish(command, None, {**os.environ, "LAB_HOME": str(home)})
    if code == 130:
        raise Interrupted(f"stopped while week {week} was running")
    finished, _ = runs_of(home, week)
    if code or not finished:
        raise RunFailed(f"week {week} failed (exit {code}); its own message is above")
    return finished[-1]


def runs_of(home: Path, week: str) -> tuple[list[Path], list[Path]]:
    """Run folders of a week below `home`: those that have finished, and the others."""
    every = sorted(file.parents[1] for file in home.glob(f"runs/{week}/*/*/.hydra/config.yaml"))
    done = [folder for folder in every if ended(folder) == "finished"]
    return done, [folder for folder in every if folder not in done]


def ended(folder: Path) -> str:
    """How a run ended; empty while it has no record."""
    try:
        return str(store.read(folder / "result.json")["ended"])
    except ValueError:
        return ""


def link_artifacts(home: Path) -> None:
    """Let the week's run find what earlier weeks have published: a link to the usual folder."""
    from labkit import paths

    place = home / "artifacts"
    paths.artifacts().mkdir(parents=True, exist_ok=True)
    if not place.exists():
        place.symlink_to(paths.artifacts(), target_is_directory=True)


def metrics_of(record: Path, folder: Path, names: Sequence[str]) -> dict[str, float]:
    """Some metrics of a week's record, as far as it has them; the record is kept in a stage's
    folder, so that the report finds the band that applies to it."""
    found: dict[str, Any] = store.read(record)["metrics"]
    shutil.copy2(record, folder / RECORD)
    return {name: float(found[name]) for name in names if name in found}


def keep_pictures(source: Path, folder: Path, names: Sequence[str]) -> None:
    """Copy a run's pictures, those that are there, into a stage's folder."""
    for name in names:
        if (source / "samples" / name).is_file():
            shutil.copy2(source / "samples" / name, folder / name)
