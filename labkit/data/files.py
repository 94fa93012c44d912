"""Reading files that may be cut, altered or of another kind: a DataError names file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from labkit.data.kinds import DataError, Instruction
from labkit.text import short

FIX = "replace or remove it"


def unzip(path: Path) -> bytes:
    """What a gzip file holds. Raises DataError when it is cut, damaged or not gzip."""
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is cut short or damaged ({error}): {FIX}") from error


def decode(raw: bytes, path: Path) -> str:
    """The text that `raw`, the content of `path`, is in UTF-8. Raises DataError."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not text in UTF-8 (line {line}, byte {error.start}: {error.reason}): {FIX}"
        ) from error


def instruction_rows(raw: bytes, path: Path) -> list[Instruction]:
    """The rows of a JSON list of objects with the texts `instruction`, `input` and `output`, each
    without the white space around it; `raw` is the content of `path`.

    Raises DataError that names the first invalid row.
    """
    try:
        rows = json.loads(decode(raw, path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}): {FIX}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds {_kind(rows)} and not a list of rows: {FIX}")
    return [_instruction(row, f"row {i} of {path}") for i, row in enumerate(rows)]


def _instruction(row: object, where: str) -> Instruction:
    if not isinstance(row, dict):
        raise DataError(f"{where} is {_kind(row)} and not an object with three texts: {FIX}")
    texts = []
    for key in ("instruction", "input", "output"):
        text = row.get(key)
        if not isinstance(text, str):
            wrong = f"is {_kind(text)}, not a text" if key in row else "is missing"
            raise DataError(f"{where}: '{key}' {wrong}: {FIX}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where}: '{key}' holds an unpaired surrogate ({text[error.start]!a}): {FIX}"
            ) from error
        texts.append(text.strip())
    return Instruction(*texts)


def _kind(value: object) -> str:
    """The kind of a JSON value, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    if value is None:
        return "null"
    return names.get(type(value), f"the number {short(value, 20)}")
