"""The exercises of a week, found in its files without importing it."""

from __future__ import annotations

import ast
import difflib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from labkit import surgery
from labkit.errors import UsageError
from labkit.paths import week_folder

NAME = 35
"""Width of the column of names."""


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
        for function, node in surgery.exercises(surgery.read(file)).items():
            name = f"{module_of(file, week_dir)}.{function}"
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            minutes = surgery.minutes(node) or 0
            found.append(Exercise(name, minutes, file, node.lineno, summary, function))
    return found


def weeks_with_exercises(root: Path) -> list[str]:
    """Module names of the weeks and electives below `root` that have exercises."""
    inits = [*sorted(root.glob("*/__init__.py")), *sorted(root.glob("electives/*/__init__.py"))]
    folders = [init.parent for init in inits]
    found = [f for f in folders if f.name not in ("labkit", "tests") and list_exercises(f)]
    return [
        ".".join(folder.relative_to(root).parts) for folder in found if folder.name != "electives"
    ]


def exercises_of(week: str, root: Path) -> list[Exercise]:
    if week not in (weeks := weeks_with_exercises(root)):
        near = difflib.get_close_matches(week, weeks, n=1)
        hint = f"did you mean {near[0]}?" if near else f"weeks with exercises: {', '.join(weeks)}"
        raise UsageError(f"there are no exercises for {week!r}; {hint}")
    return list_exercises(week_folder(root, week))


def choose(exercises: list[Exercise], only: str | None) -> list[Exercise]:
    """The exercise called `only`: its full name, or an ending that only one name has."""
    chosen = [e for e in exercises if only in (None, e.name)]
    chosen = chosen or [e for e in exercises if e.name.endswith(f".{only}")]
    if not chosen or (only is not None and len(chosen) > 1):
        names = ", ".join(e.name for e in chosen or exercises)
        what = "several exercises are" if chosen else "there is no exercise"
        raise UsageError(f"{what} {only!r}; choose from {names}")
    return chosen


IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "hints.yaml")


def python_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


def module_of(file: Path, week_dir: Path) -> str:
    return ".".join(file.relative_to(week_dir).with_suffix("").parts)


def show(path: Path, root: Path) -> str:
    return os.path.relpath(path, root) if path.is_relative_to(root) else str(path)
