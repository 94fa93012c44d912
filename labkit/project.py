"""`lab capstone new NAME`: a package of one's own, with the contracts of a week.

    electives/NAME/                   train.py, model.py, __init__.py, README.md
    configs/electives.NAME/           config.yaml, claims.yaml, project.yaml, size/smoke.yaml
    tests/electives/NAME/             a test of the model, of the run, and of resuming

`project.yaml` is all that makes it known: the course reads every such file (course/reader.py), so
the project is run, tested and shown in PROGRESS.md as the electives of the lab are.
"""

from __future__ import annotations

import keyword
import re
import shutil
from pathlib import Path

from labkit import course, paths
from labkit.errors import UsageError

STARTER = Path("capstone", "starter")
SUFFIX = ".txt"
"""Files of the starter have it behind their own, so that no tool takes them for code."""
NAME = "NAME"
"""Stands in the starter's files and paths for the project's name."""
LONGEST = 40


def check(name: str, root: Path) -> None:
    """Raises UsageError for a name that no new package can have."""
    example = "type lab capstone new my_idea"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > LONGEST:
        raise UsageError(
            f"{name!r} cannot be a package: a name has up to {LONGEST} small letters, digits and "
            f"_, and begins with a letter; {example}"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageError(f"{name!r} is a word of Python itself; {example}")
    for folder in folders(name, root):
        if folder.exists():
            raise UsageError(f"{folder} exists already; remove it, or choose another name")
    if name in course.packages():
        raise UsageError(f"the course has a unit {name!r} already; {example}")


def folders(name: str, root: Path) -> tuple[Path, Path, Path]:
    """The three folders of a project: its package, settings and tests."""
    return (
        root / "electives" / name,
        root / "configs" / f"electives.{name}",
        root / "tests" / "electives" / name,
    )


def new(name: str, root: Path = paths.ROOT) -> list[Path]:
    """Make the project; returns its files. Raises UsageError when it cannot be made."""
    check(name, root)
    written = []
    try:
        for source in sorted((root / STARTER).rglob(f"*{SUFFIX}")):
            place = str(source.relative_to(root / STARTER)).removesuffix(SUFFIX)
            target = root / place.replace(NAME, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text(encoding="utf-8").replace(NAME, name)
            target.write_text(text, encoding="utf-8")
            written.append(target)
    except OSError:
        for folder in folders(name, root):  # all of it or nothing
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return written
