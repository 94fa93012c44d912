"""Runs that are broken on purpose: they train on a copy of the week with one bug in it.

The copy stays in the run folder, code/<week>/, for the learner to read and fix. There

    cd <run folder>/code && python -m <week>.train +size=smoke

runs the fixed copy. A resumed run uses the copy as it is then.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit import bugs, paths, surgery
from labkit.config.fields import flatten
from labkit.config.values import typed
from labkit.run.program import Program

FOLDER = "code"
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "hints.yaml")


def package_of(program: str) -> str:
    """The package that an entrypoint is in: of pretraining.scaling, pretraining."""
    parts = program.split(".")
    return ".".join(parts[: 2 if parts[0] == "electives" else 1])


def make_copy(program: Program, bug: str, folder: Path) -> None:
    """folder/code/<week>: the week with the bug in it, unless it is there already.

    Raises UsageError when there is no such bug.
    """
    week = package_of(program.week)
    copy = paths.week_folder(folder / FOLDER, week)
    if copy.is_dir():
        return
    file, text = bugs.planted(week, bug)
    shutil.copytree(paths.week_folder(paths.ROOT, week), copy, ignore=IGNORED)
    surgery.write(copy / file.relative_to(paths.week_folder(paths.ROOT, week)), text)


@contextmanager
def trained_by_copy(program: Program, folder: Path) -> Iterator[Callable[[Any, Any], None]]:
    """Context in which the week's modules are those of the copy; yields its `train(cfg, run)`."""
    top = package_of(program.week)
    place = str(folder / FOLDER)

    def forget() -> dict[str, Any]:
        names = [name for name in sys.modules if name == top or name.startswith(f"{top}.")]
        return {name: sys.modules.pop(name) for name in names}

    before = forget()
    sys.path.insert(0, place)
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(f"{program.week}.train").train.program.train
    finally:
        sys.path.remove(place)
        forget()
        sys.modules.update(before)


def where(folder: Path, week: str, experiment: str | None) -> str:
    """What a person reads of the copy at the end of the run; what else the experiment sets is
    typed again, since the bug may only show with it.
    """
    words = " ".join(["+size=smoke", *_settings(week, experiment)])
    code = paths.week_folder(folder / FOLDER, package_of(week))
    return (
        f"this run is broken on purpose: it trained with the code in {code}.\n"
        f"  To fix it there and try again:\n"
        f"  cd {folder / FOLDER}; python -m {week}.train {words}"
    )


def _settings(week: str, experiment: str | None) -> list[str]:
    """The words for an experiment's settings other than its bug."""
    import yaml

    file = paths.CONFIGS / week / "experiment" / f"{experiment}.yaml"
    if not file.is_file():
        return []
    found = flatten(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    return [f"{name}={typed(value)}" for name, value in found.items() if name != "bug"]
