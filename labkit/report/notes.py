"""The notes that a person has typed into PROGRESS.md, which are kept."""

from __future__ import annotations

import re

from labkit.course import Unit, Week
from labkit.report.markdown import split_row

STATE = ("Status", "Best result", "Full size", "Notes")

COLUMNS = ("Month", "Week", "Focus Area", "Papers to Read", "Coding Task", *STATE)
"""Columns of PROGRESS.md."""


def read_notes(text: str) -> dict[str, str]:
    """Notes typed into an existing PROGRESS.md, by `month.week` or elective.

    Columns are found by their header, so they may have been moved. A pipe typed without a backslash
    into the last column is taken as part of the note. A row that is there twice (an unresolved
    merge) keeps both notes.
    """
    header = list(COLUMNS)
    notes: dict[str, str] = {}
    for cells in map(split_row, text.splitlines()):
        if "Notes" in cells and "Status" in cells:
            header = cells
        elif cells and len(cells) >= len(header) and set("".join(cells)) - set(":- "):
            if header[-1] == "Notes" and len(cells) > len(header):
                rest = " | ".join(cells[len(header) - 1 :]).strip(" |")
                cells = [*cells[: len(header) - 1], rest]
            row = dict(zip(header, cells, strict=False))
            key, note = _row_key(row), row.get("Notes", "").replace(r"\|", "|")
            if key and note and note not in notes.get(key, "").split(" / "):
                notes[key] = f"{notes[key]} / {note}" if key in notes else note
    return notes


def _row_key(row: dict[str, str]) -> str:
    """The key of a row's note: `month.week`, or the elective's name out of its link."""
    month = re.match(r"\d+", row.get("Month", ""))
    week = re.match(r"\d+", row.get("Week", ""))
    if month and week:
        return f"{month[0]}.{week[0]}"
    return re.sub(r"^\[([^\]]*)\].*", r"\1", row.get("Elective", ""))


def note_key(unit: Unit) -> str:
    return f"{unit.month}.{unit.week}" if isinstance(unit, Week) else unit.package
