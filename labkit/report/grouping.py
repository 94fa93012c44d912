"""Records as groups over seeds, and which bands the groups meet."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import course
from labkit.config.schema import RESUMABLE_CHANGES
from labkit.course import SIZES, Band, Metric, Unit
from labkit.records import store
from labkit.records.alike import spelt_as_then
from labkit.records.machines import Record, machine

NOT_IN_NUMBERS = RESUMABLE_CHANGES | {"seed", "fallback", "bug"}
"""Settings in which the records of one group may differ; the data really used may not."""


@dataclass(frozen=True)
class Group:
    """Finished runs of one unit that differ in nothing but their seed; the latest for each seed."""

    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def size(self) -> str:
        return str(self.first["size"])

    @property
    def data(self) -> str:
        return str((self.first.get("data") or {}).get("name", ""))

    @property
    def experiment(self) -> str:
        return str(self.first.get("experiment") or "")

    @property
    def config(self) -> dict[str, Any]:
        """Settings that all of the group share, without those of methods that were not used."""
        config, unit = self.first["config"], _unit(str(self.first["week"]))
        unused = unit.unused(config) if unit else ()
        return {
            key: value
            for key, value in config.items()
            if key not in NOT_IN_NUMBERS and not key.startswith(unused)
        }

    @property
    def settings(self) -> dict[str, Any]:
        """`config` as it is compared: `ppo.lr` was once `ppo_lr`, and retired settings are
        left out where they changed nothing.
        """
        unit = _unit(str(self.first["week"]))
        retired = unit.retired if unit else {}
        return {
            spelt_as_then(key): value
            for key, value in self.config.items()
            if key not in retired or retired[key] != value
        }

    @property
    def machine(self) -> str:
        """Its class of machine; with the frequency, which is not part of the class."""
        ghz = (self.first.get("machine") or {}).get("ghz")
        return machine(self.first) + (f", {ghz:g} GHz" if ghz else "")

    def values(self, metric: str) -> dict[int, float]:
        """The metric for each seed that has it."""
        return {r["seed"]: r["metrics"][metric] for r in self.records if metric in r["metrics"]}

    def verdict(self, band: Band) -> bool | None:
        """Whether the band is met; None when it is about something else or seeds are missing."""
        return band.met_by(self.values(band.metric)) if band.applies(self.first) else None


def _unit(week: str) -> Unit | None:
    package = course.package_of(week)
    return next((unit for unit in course.load().units if unit.package == package), None)


def read_records(root: Path) -> tuple[dict[str, list[Record]], list[str]]:
    """Records below root/results by week, oldest first; and a message for each unreadable one."""
    records, damaged = store.read_all(root / "results")
    by_week: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: str(record["started"])):
        by_week.setdefault(course.package_of(record["week"]), []).append(record)
    return by_week, damaged


def group_by_seed(records: Sequence[Record]) -> list[Group]:
    """Records, oldest first, as groups. Failed, interrupted and broken_* runs are left out."""
    seeds: dict[str, dict[int, Record]] = {}
    for record in records:
        if record["ended"] != "finished" or not record["metrics"]:
            continue
        broken = str(record.get("experiment") or "").startswith("broken_")
        if broken or record["config"].get("bug"):
            continue
        one = Group((record,))
        splits = (record.get("data") or {}).get("splits")
        key = [one.size, one.data, splits, one.experiment, one.settings, machine(record)]
        seeds.setdefault(json.dumps(key, sort_keys=True), {})[record["seed"]] = record
    return [Group(tuple(found[seed] for seed in sorted(found))) for found in seeds.values()]


def band_verdict(band: Band, groups: Sequence[Group]) -> bool | None:
    """True when some group meets the band, False when it was judged and none does, else None."""
    verdicts = [group.verdict(band) for group in groups]
    return True if True in verdicts else False if False in verdicts else None


def status(unit: Unit, groups: Sequence[Group]) -> str:
    """not started, ran, tiny band met or full band met.

    A size's band is met when one of its bands is and none of those judged is missed.
    """
    for size in reversed(SIZES):
        verdicts = [band_verdict(band, groups) for band in unit.bands if band.size == size]
        if size != "smoke" and True in verdicts and False not in verdicts:
            return f"{size} band met"
    return "ran" if groups else "not started"


def best(unit: Unit, groups: Sequence[Group]) -> str:
    """The best group in words: the largest size first, then bands met, then the value."""
    shown = [(group, *_headline(unit, group)) for group in groups if _measured(unit, group)]
    if not shown:
        return ""

    def rank(row: tuple[Group, Metric, Band | None]) -> tuple[float, ...]:
        group, metric, band = row
        verdict = None if band is None else group.verdict(band)
        place = -unit.bands.index(band) if band else -len(unit.bands)
        mean = statistics.fmean(group.values(metric.name).values())
        sign = 1 if metric.better == "higher" else -1
        return (_size_rank(group.size), verdict is True, verdict is not None, place, sign * mean)

    group, metric, band = max(shown, key=rank)
    where = [f"{key}={value}" for key, value in (band.where if band else {}).items()]
    seeds = [f"{len(group.records)} seeds"] if len(group.records) > 1 else []
    about = ", ".join(filter(None, [group.size, group.data, *where, *seeds]))
    return f"{_result(metric, group)} {metric.title} ({about})"


def _measured(unit: Unit, group: Group) -> list[Metric]:
    """The unit's metrics that the group has, in the curriculum's order; the headline first."""
    return [metric for metric in unit.metrics if group.values(metric.name)]


def _headline(unit: Unit, group: Group) -> tuple[Metric, Band | None]:
    """The metric to quote for a group: the one its first band is about, else its first."""
    measured = _measured(unit, group)
    for band in unit.bands:
        if band.applies(group.first) and group.values(band.metric):
            return unit.metric(band.metric), band
    return measured[0], None


def _result(metric: Metric, group: Group) -> str:
    """Mean ± sample standard deviation over the seeds, or the single value."""
    values = list(group.values(metric.name).values())
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return metric.show(statistics.fmean(values), deviation)


def _size_rank(size: str) -> int:
    """Place on the ladder of sizes; a learner's own size ranks below all."""
    return SIZES.index(size) if size in SIZES else -1
