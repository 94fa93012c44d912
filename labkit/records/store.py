"""Result records in files: one JSON file a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labkit import paths

SCHEMA = 1


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


def files_of(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The readable records in one week's folder, with their files, in the order of their names."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append((path, read(path)))
        except ValueError:  # `read_all` names it when the tables are made
            continue
    return found


def read_all(folder: Path | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """All records below `folder` (results/ when None) in the order of their file names, and a
    message for each file that is not a record; such files raise no error.
    """
    folder = folder or paths.results()
    records, damaged = [], []
    for path in sorted(folder.glob("*/*.json")):
        try:
            records.append(read(path))
        except ValueError as error:
            damaged.append(str(error))
    return records, damaged
