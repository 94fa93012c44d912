"""Exercises: functions that a learner can write, made from the solutions, never drifting from them.

A function marked `@exercise(minutes=15)` is one. `start` copies a week into the workspace without
those bodies; labkit.check grades the learner's files, and labkit.verify and labkit.mutants grade
the graders.
"""

from __future__ import annotations

import ast
import difflib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from labkit.errors import UsageError
from labkit.exercises import blanks
from labkit.exercises.blanks import blank
from labkit.paths import ROOT
from labkit.paths import workspace as default_workspace

F = TypeVar("F", bound=Callable[..., Any])

NAME = 35
"""Width of the column of names."""


def exercise(minutes: int) -> Callable[[F], F]:
    """Mark a function as an exercise of about so many minutes. It is returned itself, unwrapped."""
    if not isinstance(minutes, int):
        raise TypeError("write @exercise(minutes=15): an exercise states its minutes")

    def mark(function: F) -> F:
        function.__exercise__ = minutes  # type: ignore[attr-defined]
        return function

    return mark


@dataclass(frozen=True)
class Exercise:
    """One marked function; `name` is "module.function" or "module.Class.method"."""

    name: str
    minutes: int
    file: Path
    line: int
    summary: str
    function: str
    """The name inside its file."""


def list_exercises(week_dir: Path) -> list[Exercise]:
    """The exercises of a week, in the order of its files, found without importing it."""
    found = []
    for file in python_files(week_dir):
        for function, node in blanks.exercises(blanks.read(file)).items():
            name = f"{module_of(file, week_dir)}.{function}"
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            minutes = blanks.minutes(node) or 0
            found.append(Exercise(name, minutes, file, node.lineno, summary, function))
    return found


def start(
    week: str, force: bool = False, *, root: Path = ROOT, workspace: Path | None = None
) -> int:
    """Copy a week into the workspace with the bodies of its exercises removed.

    A learner's work is never overwritten: with `force` it is moved aside first.
    Raises UsageError for an unknown week, and when workspace/<week> is there without `force`.
    """
    exercises = exercises_of(week, root)
    own = (workspace or default_workspace()) / week
    if own.exists() and not force:
        raise UsageError(
            f"{show(own, root)} is already there, and it is yours: nothing was changed.\n"
            f"To begin anew, type\n    lab exercise start {week} --force\n"
            "which moves your files aside (it deletes nothing) before it makes new ones."
        )
    own.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=own.parent, prefix=f".{week}-") as folder:
        fresh = Path(shutil.copytree(root / week, Path(folder, week), ignore=IGNORED))
        for file in {e.file for e in exercises}:
            names = [e.function for e in exercises if e.file == file]
            copy = fresh / file.relative_to(root / week)
            blanks.write(copy, blank(blanks.read(copy), names, module_of(file, root / week)))
        if own.exists():
            print(f"Your earlier files are now in {show(_move_aside(own), root)}")
        fresh.rename(own)
    print(f"{show(own, root)} is yours, with {len(exercises)} functions to write:")
    for e in list_exercises(own):
        print(f"  {e.name:{NAME}} {e.minutes:3} min  {show(e.file, root)}:{e.line}")
    print(f"Then: lab exercise check {week}")
    return 0


def weeks_with_exercises(root: Path) -> list[str]:
    folders = [init.parent for init in sorted(root.glob("*/__init__.py"))]
    return [f.name for f in folders if f.name not in ("labkit", "tests") and list_exercises(f)]


def exercises_of(week: str, root: Path) -> list[Exercise]:
    if week not in (weeks := weeks_with_exercises(root)):
        near = difflib.get_close_matches(week, weeks, n=1)
        hint = f"did you mean {near[0]}?" if near else f"weeks with exercises: {', '.join(weeks)}"
        raise UsageError(f"there are no exercises for {week!r}; {hint}")
    return list_exercises(root / week)


def choose(exercises: list[Exercise], only: str | None) -> list[Exercise]:
    """The exercise called `only`: its full name, or the end of it where one alone ends so."""
    chosen = [e for e in exercises if only in (None, e.name)]
    chosen = chosen or [e for e in exercises if e.name.endswith(f".{only}")]
    if not chosen or (only is not None and len(chosen) > 1):
        names = ", ".join(e.name for e in chosen or exercises)
        what = "several exercises are" if chosen else "there is no exercise"
        raise UsageError(f"{what} {only!r}; choose from {names}")
    return chosen


def _move_aside(own: Path) -> Path:
    """Rename the learner's folder to <week>.bak-<time>, a name not yet taken."""
    base = own.with_name(f"{own.name}.bak-{time.strftime('%Y%m%d-%H%M%S')}")
    names = (base, *(base.with_name(f"{base.name}-{i}") for i in range(2, 100)))
    return own.rename(next(name for name in names if not name.exists()))


IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


def python_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


def module_of(file: Path, week_dir: Path) -> str:
    return ".".join(file.relative_to(week_dir).with_suffix("").parts)


def show(path: Path, root: Path) -> str:
    return os.path.relpath(path, root) if path.is_relative_to(root) else str(path)
