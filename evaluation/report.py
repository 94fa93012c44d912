"""The table of a comparison, its pictures and its headline metrics."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from evaluation import figures
from evaluation.measures import Measured
from labkit import Run
from labkit.files import write_json, write_text
from labkit.show.console import say

SHOWN = 12
"""Pictures of each row on the page of samples."""
PAIRS = 6
"""Samples beside their nearest training image, on the page of neighbours."""
COLUMNS = (
    ("fid", "distance", 3), ("interval", "95 % interval", 0), ("ratio", "× real", 1),
    ("fid_infinity", "at N = ∞", 3), ("kid", "KID × 1000", 2), ("precision", "precision", 3),
    ("recall", "recall", 3), ("density", "density", 3), ("coverage", "coverage", 3),
    ("inception_score", "Inception score", 2), ("two_sample", "told apart, %", 1),
    ("copied", "near copies, %", 1), ("seconds", "s for 1,000", 2),
)  # fmt: skip
"""Columns of the table: key, heading, digits."""


@dataclass
class Comparison:
    """What is known of the sets compared so far, by name; in plain containers, which a resumed run
    can restore.
    """

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    shown: dict[str, np.ndarray] = field(default_factory=dict)
    """(SHOWN, C, H, W)"""
    pairs: dict[str, np.ndarray] = field(default_factory=dict)
    """(2 * PAIRS, C, H, W): samples in turn with the training images nearest to them."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of drawing 1,000 pictures, by model."""

    @property
    def tracked(self) -> dict[str, Any]:
        """What a resumed run restores: all but the seconds, which no two runs have in common."""
        return {name: value for name, value in vars(self).items() if name != "seconds"}

    def keep_seconds(self, run: Run, name: str, seconds: float) -> None:
        """Add to seconds.json of the run, in which those of a run that was cut short stand."""
        file = run.dir / "seconds.json"
        earlier = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        self.seconds |= {**earlier, name: seconds}
        if run.writes:
            write_json(file, self.seconds)

    def add(self, name: str, measured: Measured, pictures: Tensor, train: np.ndarray) -> None:
        """`train` are the training pictures, uint8 (N, C, H, W)."""
        self.scores[name] = measured.scores
        self.curves[name] = [list(map(float, part)) for part in measured.curve]
        drawn = pictures.cpu().numpy()
        self.shown[name] = drawn[:SHOWN].copy()
        if measured.nearest is not None:
            distances, rows = measured.nearest
            closest = np.argsort(distances, kind="stable")[:PAIRS]
            self.pairs[name] = np.stack([drawn[closest], train[rows[closest]]], 1).reshape(
                -1, *drawn.shape[1:]
            )

    def headline(self, models: Sequence[str], real: Mapping[str, float]) -> dict[str, float]:
        """All scores as `<metric>_<name>`, and the best model's distance over that of real images.

        `real` are the scores of real images against real images.
        """
        found = {f"{key}_real": value for key, value in real.items()}
        for name, scores in self.scores.items():
            found |= {f"{key}_{name.rpartition('/')[2]}": value for key, value in scores.items()}
        if "fid" in real:
            best = min(self.scores[name]["fid"] for name in models)
            found = {"fid_ratio": best / real["fid"], **found}
        return found


def table(
    comparison: Comparison, titles: Mapping[str, str], real: Mapping[str, float], about: str
) -> str:
    """The comparison in markdown, best distance first; `about` says what is equal for all."""
    rows = {"": {**real, "ratio": 1.0}} if "fid" in real else {}
    for name, scores in comparison.scores.items():
        rows[name] = dict(scores)
        if name in comparison.seconds:
            rows[name]["seconds"] = comparison.seconds[name]
        if "fid" in real:
            rows[name]["ratio"] = scores["fid"] / real["fid"]
    columns = [c for c in COLUMNS if any(_cell(row, *c) for row in rows.values())]
    lines = [
        "| samples | " + " | ".join(heading for _, heading, _ in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for name in sorted(rows, key=lambda name: rows[name].get("fid", 0.0)):
        cells = [_cell(rows[name], *column) for column in columns]
        lines.append(f"| {titles.get(name, 'real images')} | " + " | ".join(cells) + " |")
    return f"{about}\n\n" + "\n".join(lines) + "\n"


def _cell(row: Mapping[str, float], key: str, heading: str, digits: int) -> str:
    if key == "interval":
        return f"{row['fid_low']:.3f} to {row['fid_high']:.3f}" if "fid_low" in row else ""
    if key not in row:
        return ""
    scale = {"kid": 1000, "two_sample": 100}.get(key, 1)
    return f"{scale * row[key]:,.{digits}f}"


def write(
    run: Run, comparison: Comparison, titles: Mapping[str, str], real: Mapping[str, float],
    about: str, reference: np.ndarray,
) -> None:  # fmt: skip
    """comparison.md and the pictures. `reference` are real pictures, uint8 (N, C, H, W)."""
    text = table(comparison, titles, real, about)
    say(f"\n{text}")
    if run.writes:
        write_text(run.dir / "comparison.md", text)
    shown = {"real images": reference[:SHOWN]}
    shown |= {titles[name]: row for name, row in comparison.shown.items()}
    run.figure("samples", figures.page(shown))
    if comparison.pairs:
        pairs = {titles[name]: row for name, row in comparison.pairs.items()}
        run.figure("neighbours", figures.page(pairs))
    curves = {titles[n]: (c[0], c[1]) for n, c in comparison.curves.items() if c[0]}
    if curves:
        infinity = {titles[n]: s["fid_infinity"] for n, s in comparison.scores.items()}
        run.figure("bias", figures.bias(curves, infinity))
