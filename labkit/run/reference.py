"""Is this curve normal? A run's curves beside those of recorded runs of the same size.

A broken run is compared with the runs that are not broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit import course, paths
from labkit.records import curves, store
from labkit.records.alike import same_settings
from labkit.records.curves import Corridor
from labkit.run.forecast import NOT_IN_SPEED
from labkit.show.console import say

FREE = NOT_IN_SPEED | {"detect_anomaly", "log_every", "bug"}
"""Settings in which two runs may differ and should still have the same curves."""
OUTSIDE = 3
"""Bins in a row that must be outside before a message is printed."""
ENOUGH = 3
"""Recorded runs from which on a message is printed: fewer are only drawn."""
SAID = ("loss", "nll", "accuracy", "return")
"""Metrics that a message is about: their names end so."""


class Reference:
    """Corridors of recorded runs; what the run logs is compared with them as it comes."""

    def __init__(
        self,
        week: str,
        size: str,
        experiment: str | None,
        config: Mapping[str, Any],
        data: str | None,
    ) -> None:
        self.corridors = found(week, size, experiment, config, data)
        self._bins: dict[str, tuple[int, float, int]] = {}
        self._outside: dict[str, int] = {}
        self._said: set[str] = set()

    def see(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers that were logged at a step."""
        for key, value in numbers.items():
            corridor = self.corridors.get(key)
            if corridor is None or corridor.runs < ENOUGH or not key.endswith(SAID):
                continue
            if key in self._said:
                continue
            place = corridor.bin(step)
            current, total, count = self._bins.get(key, (place, 0.0, 0))
            if place != current and count:
                self._over(key, corridor, current, total / count)
                current, total, count = place, 0.0, 0
            self._bins[key] = (current, total + value, count + 1)

    def _over(self, key: str, corridor: Corridor, place: int, mean: float) -> None:
        """A bin is over; print, once for each metric, that several in a row were outside."""
        outside = 0 if corridor.holds(place, mean) else self._outside.get(key, 0) + 1
        self._outside[key] = outside
        if outside < OUTSIDE:
            return
        self._said.add(key)
        low, high = corridor.low[place], corridor.high[place]
        about = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        say(
            f"not as recorded: {key} is about {mean:.4g} up to step "
            f"{corridor.end(place):.0f}, where {corridor.runs} recorded runs of "
            f"this size had {about}"
        )


def found(
    week: str, size: str, experiment: str | None, config: Mapping[str, Any], data: str | None
) -> dict[str, Corridor]:
    """Corridors of the metrics of finished runs of the same work, the latest of each seed.

    A broken run differs in what its experiment sets; it is compared with runs that agree in the
    settings by which the bands tell variants apart (the algorithm, the method).
    """
    broken = str(experiment or "").startswith("broken_") or config.get("bug") is not None
    wanted = None if broken else experiment
    package = course.package_of(week)
    unused = course.week(package).unused(config) if package in course.packages() else ()
    names = {name for name in config.keys() - FREE if not name.startswith(unused)}
    compared = _variant(week) if broken else names
    alike: dict[int, dict[str, Any]] = {}
    for file, record in store.files_of(paths.results() / week):
        same = (record["week"], record["size"], record.get("experiment"), record["ended"])
        name = (record.get("data") or {}).get("name")
        if same != (week, size, wanted, "finished") or name != data:
            continue
        if record["config"].get("bug") is not None or not same_settings(record, config, compared):
            continue
        if curve := curves.read(file.parent / curves.FOLDER / file.name):
            alike[record["seed"]] = curve
    keys = dict.fromkeys(key for one in alike.values() for key in one)
    joined = {
        key: curves.corridor([one[key] for one in alike.values() if key in one]) for key in keys
    }
    return {key: corridor for key, corridor in joined.items() if corridor is not None}


def _variant(week: str) -> set[str]:
    """The settings that a week's bands name in `where`."""
    package = course.package_of(week)
    units = [unit for unit in course.load().units if unit.package == package]
    return {name for unit in units for band in unit.bands for name in band.where}
