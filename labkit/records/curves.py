"""Curves of recorded runs, small enough for git: results/<week>/curves/<record's name>.json.

A curve is the mean of a logged metric in each of forty equal stretches of the steps. `corridor`
joins the curves of several runs to the range in which a run of the same size should be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import files

BINS = 40
FOLDER = "curves"
DIGITS = 4
WIDER = 1.0
OF_CURVE = 0.1
"""A corridor is wider than what was recorded by these shares of the difference between the runs and
of the whole curve's height: a few runs do not show all that chance does."""


@dataclass(frozen=True)
class Corridor:
    """Where recorded runs were: lowest and highest value in each bin, None where there was none."""

    runs: int
    last: float
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    def bin(self, step: float) -> int:
        """The bin that a step is in; BINS and above for steps that no recorded run had."""
        return int(step / self.last * BINS) if step < self.last else BINS - (step == self.last)

    def holds(self, place: int, value: float) -> bool:
        """Whether `value` is usual in that bin; true where nothing is known."""
        if not 0 <= place < BINS:
            return True
        low, high = self.low[place], self.high[place]
        if low is None or high is None:
            return True
        height = max(h for h in self.high if h is not None)
        height -= min(v for v in self.low if v is not None)
        margin = WIDER * (high - low) + OF_CURVE * height
        return low - margin <= value <= high + margin


def thinned(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Curves of the lines of a metrics.jsonl: for each key its last step and BINS means."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key != "step" and math.isfinite(value):
                found.setdefault(key, []).append((row["step"], value))
    curves: dict[str, Any] = {}
    for key, points in found.items():
        last = max(step for step, _ in points)
        if last <= 0:
            continue
        place = Corridor(1, last, (), ()).bin
        bins: list[list[float]] = [[] for _ in range(BINS)]
        for step, value in points:
            bins[min(place(step), BINS - 1)].append(value)
        means = [float(f"{math.fsum(b) / len(b):.{DIGITS}g}") if b else None for b in bins]
        curves[key] = {"last": last, "means": means}
    return curves


def write(file: Path, curves: Mapping[str, Any]) -> None:
    """A line for each key. Raises OSError."""
    lines = (f" {json.dumps(key)}: {json.dumps(curve)}" for key, curve in curves.items())
    files.write_text(file, "{\n" + ",\n".join(lines) + "\n}\n")


def read(file: Path) -> dict[str, Any]:
    """The curves in a file; none where there is no such file or it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {
            key: curve
            for key, curve in found.items()
            if len(curve["means"]) == BINS
            and float(curve["last"]) > 0
            and all(v is None or type(v) in (int, float) for v in curve["means"])
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def corridor(curves: Sequence[Mapping[str, Any]]) -> Corridor | None:
    """The curves of one metric in several runs, joined; None when there is none.

    Only curves that end where most do are joined.
    """
    if not curves:
        return None
    lasts = [float(curve["last"]) for curve in curves]
    last = max(lasts, key=lasts.count)
    same = [curve["means"] for curve in curves if float(curve["last"]) == last]
    columns = [[v for v in column if v is not None] for column in zip(*same, strict=True)]
    low = tuple(min(column, default=None) for column in columns)
    high = tuple(max(column, default=None) for column in columns)
    return Corridor(len(same), last, low, high)
