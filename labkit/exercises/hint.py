"""`lab exercise hint`: each call shows one more hint, from the general to the concrete.

A week's hints are beside its solution, in <week>/hints.yaml: one to three for each exercise. How
many a learner has seen is remembered in the workspace.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from labkit import files
from labkit.errors import UsageError
from labkit.exercises.listing import NAME, choose, exercises_of, show
from labkit.paths import ROOT, week_folder
from labkit.paths import workspace as default_workspace

FILE = "hints.yaml"
SEEN = ".hints.json"
WIDTH = 88


def hint(
    week: str,
    only: str | None = None,
    every: bool = False,
    *,
    root: Path = ROOT,
    workspace: Path | None = None,
) -> int:
    """Print the hints seen so far for an exercise and the next one; with `every`, all of them.

    Without an exercise, list the week's exercises and how many hints each has. Raises UsageError
    for an unknown week or exercise.
    """
    exercises = exercises_of(week, root)
    hints = hints_of(week, root)
    memory = (workspace or default_workspace()) / SEEN
    seen = _seen(memory)
    if only is None:
        for e in exercises:
            known = seen.get(f"{week}:{e.name}", 0)
            print(f"  {e.name:{NAME}} {known} of {len(hints.get(e.name, []))} hints seen")
        print(f"Then: lab exercise hint {week} EXERCISE")
        return 0
    (e,) = choose(exercises, only)
    found = hints.get(e.name, [])
    if not found:
        raise UsageError(f"{e.name} has no hints; read its docstring: {show(e.file, root)}")
    key = f"{week}:{e.name}"
    count = len(found) if every else min(seen.get(key, 0) + 1, len(found))
    print(f"{e.name} ({show(e.file, root)}:{e.line})")
    for number, text in enumerate(found[:count], start=1):
        print(textwrap.fill(text, WIDTH, initial_indent=f"  {number}. ", subsequent_indent="     "))
    left = len(found) - count
    again = f"lab exercise hint {week} {e.name}"
    print(f"{left} more: {again}" if left else f"That was the last one; {_then(week, e.name)}")
    files.write_json(memory, seen | {key: max(count, seen.get(key, 0))})
    return 0


def hints_of(week: str, root: Path = ROOT) -> dict[str, list[str]]:
    """The hints of each exercise of a week; none where the week has no file of them.

    Raises UsageError when that file cannot be read.
    """
    import yaml

    file = week_folder(root, week) / FILE
    if not file.is_file():
        return {}
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {str(name): [" ".join(str(text).split()) for text in found[name]] for name in found}
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error


def _seen(memory: Path) -> dict[str, int]:
    """How many hints were shown; nothing where that cannot be read."""
    try:
        return {str(key): int(value) for key, value in json.loads(memory.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _then(week: str, name: str) -> str:
    return f"to see the solution anyway: lab exercise diff {week} {name} --give-up"
