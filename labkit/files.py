"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text under another name and rename it, with the line ends that the file had.

    Folders are made. Raises OSError; the old file then stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    windows = path.is_file() and b"\r\n" in path.read_bytes()
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\r\n" if windows else "\n")
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):  # a read-only folder has raised already
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON with sorted keys, as `write_text` writes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
