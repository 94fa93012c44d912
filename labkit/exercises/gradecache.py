"""Grades kept from one run of `verify` or `mutants` to the next, in .cache/ (git ignores it).

The tests of an exercise are deterministic, so a grade is valid until something it depends on
changes: the copy under test, the tests that carry the exercise's mark and what they import, the
week, the weeks and the parts of labkit that these import, Python, the libraries' versions, and the
processor's kernels. All of that is in the key. A job that was ended by the time limit is never
kept: the machine may have been busy.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from labkit import files, surgery
from labkit.exercises.grader import Grade, Job, Outcome, grade
from labkit.exercises.listing import python_files
from labkit.paths import week_folder

DAYS = 30
"""Grades that were not used for so many days are dropped."""

KERNELS = ("OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "LAB_DATA")
"""Variables that change what is computed, or with what."""

Entries = dict[str, tuple[int, Grade]]
"""Day of last use and grade, by key."""

LEFT_OUT = {"bugs.yaml", "equivalent.yaml", "hints.yaml"}
"""Not part of the key: a job's own edits contain its bug or mutant; grades do not use hints."""


def grade_cached(
    jobs: Sequence[Job],
    preload: Iterable[str],
    done: Callable[[int], None],
    fresh: bool = False,
) -> tuple[list[Grade], int]:
    """Grades of all jobs, and how many came from the cache (none when `fresh`).

    All jobs are of one root, and a job that is the `after` of another comes before it.
    """
    if not jobs:
        return [], 0
    root, today = Path(jobs[0].root), int(time.time() // 86400)
    weeks = dict.fromkeys(job.week for job in jobs)
    kept = {week: {} if fresh else _read(root, week) for week in weeks}
    keys = keys_of(jobs, root)
    known = [kept[job.week].get(key) for job, key in zip(jobs, keys, strict=True)]
    missing = [i for i, entry in enumerate(known) if entry is None]
    needed = sorted({*missing, *(a for i in missing if (a := jobs[i].after) is not None)})
    places = {i: place for place, i in enumerate(needed)}
    todo = [_moved(jobs[i], places) for i in needed]
    grades: list[Any] = [entry and entry[1] for entry in known]
    for i, result in zip(needed, grade(todo, preload, done), strict=True):
        grades[i] = result
    for job, key, result in zip(jobs, keys, grades, strict=True):
        if result.seconds:  # it ended by itself
            kept[job.week][key] = today, result
    for week, entries in kept.items():
        _write(root, week, {k: e for k, e in entries.items() if e[0] > today - DAYS})
    return grades, len(jobs) - len(missing)


def _moved(job: Job, places: dict[int, int]) -> Job:
    if job.after is None:
        return job
    return Job(**{**asdict(job), "after": places[job.after]})


def keys_of(jobs: Sequence[Job], root: Path) -> list[str]:
    """One key a job. What many jobs share is read once."""
    machine, shared, repository = _machine(), dict[tuple[str, ...], str](), _Repository(root)
    keys = []
    for job in jobs:
        files = (job.week, *job.files)
        if files not in shared:
            shared[files] = _hash(repository.sources(job.week, job.files))
        parts = [machine, shared[files], job.exercise, job.edits, job.solved, job.first]
        keys.append(_hash([json.dumps(parts, sort_keys=True)]))
    return keys


def _machine() -> str:
    versions = sorted({f"{d.name} {d.version}" for d in metadata.distributions()})
    kernels = [f"{name}={os.environ.get(name, '')}" for name in KERNELS]
    return _hash([sys.version, platform.platform(), _processor(), *kernels, *versions])


def _processor() -> str:
    """The processor's instructions, where the system lists them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = [line for line in lines if line.startswith(("flags", "Features"))]
    return flags[0] if flags else platform.processor()


class _Repository:
    """Its files as they are now; each is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hash = cache(self._hash)
        self.imported = cache(self._imported)

    def sources(self, week: str, tests: Sequence[str]) -> list[str]:
        """Names and hashes of all files that grading an exercise of these tests may read."""
        folder = week_folder(self.root / "tests", week)
        data = [f for f in _files(folder) if f.suffix != ".py" and f.name not in LEFT_OUT]
        begin = {self.root / "tests" / "conftest.py", *folder.rglob("conftest.py")}
        week_files = {f for f in _files(week_folder(self.root, week)) if f.name not in LEFT_OUT}
        begin |= {*data, *map(Path, tests), *week_files}
        begin.add(Path(__file__).with_name("grading_job.py"))
        seen, waiting = set[Path](), [file for file in begin if file.is_file()]
        while waiting:
            file = waiting.pop()
            if file not in seen:
                seen.add(file)
                waiting += self.imported(file) if file.suffix == ".py" else []
        return [self.hash(file) for file in sorted(seen)]

    def _hash(self, file: Path) -> str:
        return f"{os.path.relpath(file, self.root)} {hashlib.sha256(file.read_bytes()).hexdigest()}"

    def _imported(self, file: Path) -> list[Path]:
        """Files of the repository that a file imports: single modules of labkit and tests, all
        files of a week (its imports are lazy, so the modules that it loads cannot be seen).
        """
        found: list[Path] = []
        tree = ast.parse(surgery.read(file))
        late = not file.is_relative_to(self.root / "labkit")  # not labkit's imports in functions
        for node in ast.walk(tree) if late else tree.body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            for name in names:
                top, path = name.partition(".")[0], self.root.joinpath(*name.split("."))
                if top not in ("labkit", "tests") and (self.root / top).is_dir():
                    found += python_files(self.root / top)
                else:
                    files = (path.with_suffix(".py"), path / "__init__.py")
                    found += [f for f in files if f.is_file()]
        return found


def _files(folder: Path) -> list[Path]:
    return [f for f in sorted(folder.rglob("*")) if f.is_file() and "__pycache__" not in f.parts]


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _file(root: Path, week: str) -> Path:
    return root / ".cache" / "grades" / f"{week}.json"


def _read(root: Path, week: str) -> Entries:
    """What was kept; nothing where the file is missing or is not one that this wrote."""
    try:
        rows = json.loads(_file(root, week).read_text(encoding="utf-8"))
        return {
            key: (int(day), Grade(**{**row, "outcomes": [Outcome(**o) for o in row["outcomes"]]}))
            for key, (day, row) in rows.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(root: Path, week: str, entries: Entries) -> None:
    rows = {key: [day, asdict(result)] for key, (day, result) in entries.items()}
    files.write_text(_file(root, week), json.dumps(rows))
