"""Curves of recorded runs, small enough for git: results/<week>/curves/<record's name>.json.

A curve is the mean of a logged metric in each of forty equal stretches of the steps, from step 0;
for a metric that is only logged late in a run, from its first step. `corridor` joins the curves of
several runs to the range in which a run of the same size should be.
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
    first: float = 0

    def bin(self, step: float) -> int:
        """The bin that a step is in; -1 before the first and BINS after the last of the steps that
        recorded runs had."""
        if not self.first <= step < self.last:
            return -1 if step < self.first else BINS - (step == self.last)
        return int((step - self.first) / (self.last - self.first) * BINS)

    def end(self, place: int) -> float:
        """The step at which a bin ends."""
        return self.first + (place + 1) * (self.last - self.first) / BINS

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
    """Curves of the lines of a metrics.jsonl: for each key its last step and BINS means, and its
    first step where the stretches begin there: when half of them or more would be empty before it.
    """
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
        first = min(step for step, _ in points)
        late = last / 2 <= first < last
        place = Corridor(1, last, (), (), first if late else 0).bin
        bins: list[list[float]] = [[] for _ in range(BINS)]
        for step, value in points:
            bins[min(place(step), BINS - 1)].append(value)
        means = [float(f"{math.fsum(b) / len(b):.{DIGITS}g}") if b else None for b in bins]
        curves[key] = {"last": last, "means": means} | ({"first": first} if late else {})
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
            and float(curve["last"]) > float(curve.get("first", 0)) >= 0
            and all(v is None or type(v) in (int, float) for v in curve["means"])
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def corridor(curves: Sequence[Mapping[str, Any]]) -> Corridor | None:
    """The curves of one metric in several runs, joined; None when there is none.

    Only curves that begin and end where most do are joined.
    """
    if not curves:
        return None
    spans = [(float(curve.get("first", 0)), float(curve["last"])) for curve in curves]
    first, last = span = max(spans, key=spans.count)
    same = [curve["means"] for curve, own in zip(curves, spans, strict=True) if own == span]
    columns = [[v for v in column if v is not None] for column in zip(*same, strict=True)]
    low = tuple(min(column, default=None) for column in columns)
    high = tuple(max(column, default=None) for column in columns)
    return Corridor(len(same), last, low, high, first)
