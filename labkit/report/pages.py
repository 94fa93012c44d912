"""PROGRESS.md and all tables of measured results, made from the records in results/ alone.

Only the Notes column of PROGRESS.md is typed by hand, and it is kept. In each week's README.md
the table between `<!-- results:begin -->` and `<!-- results:end -->` is made here, and so are what
its full size needs, between `<!-- full:begin -->` and `<!-- full:end -->`, and the table of weeks
between `<!-- weeks:begin -->` and `<!-- weeks:end -->` in the clone's README.md.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from labkit import course, paths
from labkit import files as atomic
from labkit.course import Unit
from labkit.records.machines import Record
from labkit.report.full import full_table
from labkit.report.grouping import group_by_seed, read_records
from labkit.report.markdown import between
from labkit.report.notes import read_notes
from labkit.report.tables import progress_table, results_table, weeks_table
from labkit.show.console import warn

PROGRESS = "PROGRESS.md"
LOCK = ".lock"
"""In results/; held while tables are written."""


def render(root: Path) -> tuple[dict[Path, str], list[str]]:
    """Every generated file's correct text, and a message for each record or sheet that could not be
    read. Such a sheet is left as it is: a note in it could be lost otherwise.
    """
    records, faults = read_records(root)
    files: dict[Path, str] = {}

    def make(path: Path, text: Callable[[str], str], create: bool = False) -> None:
        try:
            before = _read(path)
        except (OSError, ValueError) as error:
            faults.append(f"{path} is left as it is: {_why_unreadable(error)}")
            return
        if before or create:
            files[path] = text(before)

    make(
        root / PROGRESS,
        lambda before: progress_table(root, records, read_notes(before)),
        create=True,
    )
    for unit in course.load().units:
        make(root / unit.path / "README.md", partial(_sheet, unit, records.get(unit.package, [])))
    make(root / "README.md", partial(between, name="weeks", body=weeks_table(root, records)))
    return files, faults


def _sheet(unit: Unit, records: list[Record], text: str) -> str:
    """A week's README with its two generated parts."""
    text = between(text, "results", results_table(unit, group_by_seed(records)))
    return between(text, "full", full_table(unit))


def _why_unreadable(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text (byte {error.start}); save it as UTF-8 in your editor"
    return str(error)


def refresh(root: Path | None = None, sheets: bool = False) -> list[Path]:
    """Bring PROGRESS.md under `root` up to date, with `sheets` also the tables in the READMEs; what
    changed is returned.

    A learner's run changes only PROGRESS.md: changed sheets would conflict with the next version
    of the clone. Each file is written whole or not at all. Files that cannot be read are named in a
    warning and left out; no run fails because of them.
    """
    root = root or paths.home()
    with _alone(root):
        files, damaged = render(root)
        for message in damaged:
            warn(message)
        changed = [path for path, text in files.items() if text != _read(path)]
        changed = [path for path in changed if sheets or path == root / PROGRESS]
        for path in changed:
            atomic.write_text(path, files[path])
    return changed


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Lock out other processes: the slower of two runs must not write outdated tables."""
    from filelock import FileLock

    folder = root / "results"
    if not os.access(folder, os.W_OK):  # no record yet, or nothing can be written anyway
        yield
        return
    with FileLock(folder / LOCK):
        yield


def _read(path: Path) -> str:
    """Text of a file with plain newlines; empty when it is not there."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def check(root: Path) -> list[str]:
    """What is wrong with the generated files under `root`, a line each; nothing is written."""
    files, damaged = render(root)
    stale = [str(p.relative_to(root)) for p, text in files.items() if text != _read(p)]
    if stale:
        damaged.append(f"out of date: {', '.join(stale)}\nType: lab progress --sheets")
    return damaged
