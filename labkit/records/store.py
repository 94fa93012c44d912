"""The result record: what a run was, on what, and what came out. One JSON file a run.

Finished runs put theirs into results/<week>/, which is kept in git; PROGRESS.md and every table of
measured results are made from these files alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from labkit import paths

SCHEMA = 1

PACKAGES = (
    "numpy",
    "torch",
    "torchvision",
    "scikit-learn",
    "gymnasium",
    "diffusers",
    "transformers",
)
_MODULES = {"scikit-learn": "sklearn"}

GENERATED = ("results", "PROGRESS.md", "README.md", "*/README.md")
"""What finished runs themselves change; it does not make the code dirty."""


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):  # a read-only folder has told so already
            partial.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """One record. Raises ValueError, naming file and fault, when it does not fit the schema."""
    from labkit.records.schema import fault

    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a result record: {error}") from error
    if (why := fault(record)) is not None:
        raise ValueError(f"{path} is not a result record: {why}")
    return dict(record)


def read_all(folder: Path | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """All records below `folder` (results/ when None) in the order of their file names, and a
    message for each file that is none: others' files are no reason to fail.
    """
    folder = folder or paths.results()
    records, damaged = [], []
    for path in sorted(folder.glob("*/*.json")):
        try:
            records.append(read(path))
        except ValueError as error:
            damaged.append(str(error))
    return records, damaged


def versions() -> dict[str, str]:
    """Versions of Python and of those libraries that this process has really loaded."""
    loaded = {n: metadata.version(n) for n in PACKAGES if _MODULES.get(n, n) in sys.modules}
    return {"python": ".".join(map(str, sys.version_info[:3])), **loaded}


def git_state() -> dict[str, Any]:
    """Commit of the clone, and whether code differs from it; nulls outside a git checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", ".", *(f":!{path}" for path in GENERATED))
        return {"commit": commit, "dirty": bool(changes)}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=paths.ROOT, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
