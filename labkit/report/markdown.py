"""Markdown tables, and the text between markers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from labkit.course import Unit


def link(root: Path, unit: Unit, text: str) -> str:
    """`text`, as a link to the unit's lab sheet where there is one."""
    sheet = f"{unit.path}/README.md"
    return f"[{text}]({sheet})" if (root / sheet).is_file() else text


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; pipes in cells are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(escape(cell) for cell in line)} |\n" for line in lines)


def escape(cell: str) -> str:
    """A cell's text, safe inside a Markdown table."""
    return " ".join(cell.replace("|", r"\|").split())


def split_row(line: str) -> list[str]:
    """Cells of a Markdown table row, pipes still escaped; none when the line is not a row."""
    line = line.strip()
    if not line.startswith("|"):
        return []
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", re.sub(r"(?<!\\)\|$", "", line[1:]))]


def between(text: str, name: str, body: str) -> str:
    """`text` with the part between the markers of that name replaced; unchanged without them."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    return f"{head}{begin}\n{body}{end}{tail}" if found and closed else text
