"""`lab exercise start`: a week's files for the learner, the bodies of its exercises removed."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from labkit import surgery
from labkit.errors import UsageError
from labkit.exercises.listing import IGNORED, NAME, exercises_of, list_exercises, module_of, show
from labkit.paths import ROOT, week_folder
from labkit.paths import workspace as default_workspace
from labkit.surgery import blank


def start(
    week: str, force: bool = False, *, root: Path = ROOT, workspace: Path | None = None
) -> int:
    """Copy a week into the workspace with the bodies of its exercises removed.

    A learner's work is never overwritten: with `force` it is moved aside first.
    Raises UsageError for an unknown week, and when workspace/<week> is there without `force`.
    """
    exercises = exercises_of(week, root)
    own = week_folder(workspace or default_workspace(), week)
    if own.exists() and not force:
        raise UsageError(
            f"{show(own, root)} is already there, and it is yours: nothing was changed.\n"
            f"To start again, type\n    lab exercise start {week} --force\n"
            "which moves your files aside (it deletes nothing) before it makes new ones."
        )
    own.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=own.parent, prefix=f".{week}-") as folder:
        fresh = Path(shutil.copytree(week_folder(root, week), Path(folder, week), ignore=IGNORED))
        for file in {e.file for e in exercises}:
            names = [e.function for e in exercises if e.file == file]
            copy = fresh / file.relative_to(week_folder(root, week))
            surgery.write(
                copy, blank(surgery.read(copy), names, module_of(file, week_folder(root, week)))
            )
        if own.exists():
            print(f"Your earlier files are now in {show(_move_aside(own), root)}")
        fresh.rename(own)
    print(f"{show(own, root)} is yours, with {len(exercises)} functions to write:")
    for e in list_exercises(own):
        print(f"  {e.name:{NAME}} {e.minutes:3} min  {show(e.file, root)}:{e.line}")
    print(f"Then: lab exercise check {week}")
    return 0


def _move_aside(own: Path) -> Path:
    """Rename the learner's folder to <week>.bak-<time>, a name not yet taken."""
    base = own.with_name(f"{own.name}.bak-{time.strftime('%Y%m%d-%H%M%S')}")
    names = (base, *(base.with_name(f"{base.name}-{i}") for i in range(2, 100)))
    return own.rename(next(name for name in names if not name.exists()))
