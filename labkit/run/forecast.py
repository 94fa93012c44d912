"""How long training will take here, printed after a few steps; and what would make it shorter.

Estimates rest on this run's own speed, comparisons on records of the same run on another machine:
there is no estimate for a processor that was not measured.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from labkit.records import store
from labkit.records.alike import same_settings
from labkit.records.machines import machine
from labkit.show.console import say
from labkit.text import duration

WARM_STEPS = 2
"""First steps, which load, allocate and often evaluate: they are no measure of the later ones."""
MEASURED_STEPS = 3
MEASURED_SECONDS = 4.0
WORTH_SAYING = 60.0
"""Seconds of training below which nothing is printed."""
COMFORTABLE = 300.0
"""Seconds of training that are short enough to wait for; what the suggestion aims at."""
FASTER = 0.8
"""A record is mentioned when it took at most this share of the estimate."""

LENGTHS = ("steps", "epochs", "epochs_embedded", "teraflops", "env_steps", "episodes")
"""Settings that a run's length is proportional to."""
NOT_IN_SPEED = {
    "seed", "fallback", "device", "precision", "resume", "logger", "checkpoint_seconds",
    "max_steps",
}  # fmt: skip
"""Settings in which two runs may differ and still be the same work."""


class Forecast:
    """Watches the first steps of a run and prints once."""

    def __init__(
        self, week: str, size: str, config: Mapping[str, Any], data: str | None, first: int
    ) -> None:
        """`first` is the step at which the run begins or resumes."""
        self._about = (week, size, config, data)
        self._first = first
        self._mark = 0.0
        self.said = False

    def after(self, done: int, total: int) -> None:
        """`done` of `total` steps are over."""
        if self.said:
            return
        measured = done - self._first - WARM_STEPS
        if measured == 0:
            self._mark = time.perf_counter()
        if measured < MEASURED_STEPS:
            return
        passed = time.perf_counter() - self._mark
        if passed < MEASURED_SECONDS:
            return
        self.said = True
        per_step = passed / measured
        if per_step * (total - done) < WORTH_SAYING:
            return
        say("\n".join(words(*self._about, total, per_step * total, per_step * (total - done))))


def words(
    week: str,
    size: str,
    config: Mapping[str, Any],
    data: str | None,
    steps: int,
    seconds: float,
    left: float | None = None,
) -> list[str]:
    """The forecast in lines.

    Args:
        data: name of the dataset in use; None when it is not known yet.
        steps: of the whole run.
        seconds: that all steps take here; left: of them still to come (None: all).
    """
    at = f"{seconds / steps:.3g} s a step, {steps:,} steps"
    time_left = duration(seconds if left is None else left)
    lines = [f"at this speed training takes about {time_left} on this machine ({at})"]
    if seconds > COMFORTABLE:
        lines += shorter(size, config, seconds)
    records, _ = store.read_all()
    best = fastest(records, week, size, config, data, steps)
    if best is not None and best["train_seconds"] < FASTER * seconds:
        lines.append(f"  measured: {duration(best['train_seconds'])} on {machine(best)}")
    return lines


def shorter(size: str, config: Mapping[str, Any], seconds: float) -> list[str]:
    """What to type for a shorter run, where the settings allow one."""
    lines = [] if size == "smoke" else ["  shorter: size=smoke, to see it work in seconds"]
    for name in LENGTHS:
        value = config.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            less = value * COMFORTABLE / seconds
            less = int(less) if isinstance(value, int) else less
            if less:
                lines.append(
                    f"  shorter: {name}={less:.4g} instead of {value:g}, for about "
                    f"{duration(COMFORTABLE)}; the bands are for the whole length"
                )
            break
    return lines


def fastest(
    records: Sequence[dict[str, Any]],
    week: str,
    size: str,
    config: Mapping[str, Any],
    data: str | None,
    steps: int,
) -> dict[str, Any] | None:
    """The record of the same work that trained in the shortest time; None when there is none."""
    same = [
        record
        for record in records
        if (record["week"], record["size"], record.get("steps")) == (week, size, steps)
        and record["ended"] == "finished"
        and record.get("train_seconds")
        and data in (None, (record.get("data") or {}).get("name"))
        and same_settings(record, config, config.keys() - NOT_IN_SPEED)
    ]
    return min(same, key=lambda record: float(record["train_seconds"]), default=None)
