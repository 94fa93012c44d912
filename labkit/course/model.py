"""What the course is made of: units, their metrics, and the bands they must reach."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labkit import paths
from labkit.errors import UsageError
from labkit.text import closest

SIZES = ("smoke", "tiny", "full")
"""The ladder of sizes, smallest first."""

Size = Literal["smoke", "tiny", "full"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that a week reports: `name` in records, `title` and `unit` for people."""

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    digits: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.digits <= 10:
            raise ValueError(f"digits: {self.digits} is not from 0 to 10")

    def show(self, value: float, deviation: float | None = None) -> str:
        """`98.40 %`, or with a standard deviation `98.40 ± 0.05 %`."""
        number = f"{value:.{self.digits}f}"
        if deviation is not None:
            number += f" ± {deviation:.{self.digits}f}"
        return f"{number} {self.unit}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One side of a number line: `at_least` or `at_most`, exactly one of them."""

    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give either at_least or at_most")

    def verdict(self, value: float) -> bool:
        """Whether `value` is inside. NaN never is."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most

    @property
    def text(self) -> str:
        """`≥ 98.3` or `≤ 8`."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


@dataclass(frozen=True, kw_only=True)
class Band(Limit):
    """What a metric must reach at one size on one dataset (the one really used).

    `where` names settings that must match; `seeds` distinct seeds are needed, and either their mean
    or every one of them must be inside.
    """

    size: Size
    data: str
    metric: str
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: int = 1
    over: Literal["mean", "every"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds < 1:
            raise ValueError(f"seeds: {self.seeds} must be at least 1")

    def applies(self, record: Mapping[str, Any]) -> bool:
        """Whether this band is a claim about that record: its size, data and settings."""
        config = record.get("config") or {}
        return (
            record["size"] == self.size
            and (record.get("data") or {}).get("name") == self.data
            and all(key in config and config[key] == value for key, value in self.where.items())
        )

    def met_by(self, values: Mapping[int, float]) -> bool | None:
        """The verdict over one value per seed; None while there are too few seeds to judge."""
        if len(values) < self.seeds:
            return None
        if self.over == "every":
            return all(map(self.verdict, values.values()))
        return self.verdict(math.fsum(values.values()) / len(values))


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What guessing gets on one dataset, and how one guesses."""

    metric: str
    data: str
    value: float
    how: str


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A published number and where it stands."""

    metric: str
    data: str
    value: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Broken(Limit):
    """An experiment that fails on purpose: the symptom in words, and in numbers at one size."""

    experiment: str
    symptom: str
    metric: str
    size: Size


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What weeks and electives have in common."""

    package: str
    focus: str
    task: str
    prerequisites: tuple[str, ...]
    metrics: tuple[Metric, ...]
    papers: tuple[str, ...] = ()
    baseline: tuple[Baseline, ...] = ()
    bands: tuple[Band, ...] = ()
    planned: Mapping[str, str] = dataclasses.field(default_factory=dict)
    paper: tuple[Paper, ...] = ()
    broken: tuple[Broken, ...] = ()

    @property
    def path(self) -> str:
        """Folder relative to the clone."""
        return self.package

    @property
    def module(self) -> str:
        """Name under which Python imports it."""
        return self.path.replace("/", ".")

    @property
    def folder(self) -> Path:
        """Folder of the package in this clone, whether it is there or not."""
        return paths.ROOT / self.path

    @property
    def built(self) -> bool:
        """Whether it can be run here: its train.py exists."""
        return (self.folder / "train.py").is_file()

    def metric(self, name: str) -> Metric:
        """The metric of that name; one that the curriculum does not list is taken as it is."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        return Metric(name=name, title=name.replace("_", " "), unit="", better="higher", digits=3)

    def headline(self, metrics: Mapping[str, float]) -> float | None:
        """The value of the first listed metric that was reported."""
        return next((metrics[m.name] for m in self.metrics if m.name in metrics), None)

    def missing(self, metrics: Mapping[str, float]) -> list[str]:
        """The headline's name, when a run reported none of the listed metrics; else nothing."""
        return [] if self.headline(metrics) is not None else [self.metrics[0].name]

    def goal(self, band: Band) -> str:
        """A band in words: `test accuracy ≥ 98.3 % (mean of 3 seeds)`."""
        metric = self.metric(band.metric)
        over = {"mean": "mean of", "every": "on each of"}[band.over]
        seeds = f" ({over} {band.seeds} seeds)" if band.seeds > 1 else ""
        return f"{metric.title} {f'{band.text} {metric.unit}'.rstrip()}{seeds}"


@dataclass(frozen=True, kw_only=True)
class Week(Unit):
    """One week: its number from 1 to 24, and its place in its month."""

    number: int
    month: int
    month_title: str

    @property
    def week(self) -> int:
        """1 to 4, within the month."""
        return (self.number - 1) % 4 + 1


@dataclass(frozen=True, kw_only=True)
class Elective(Unit):
    """A subject beside the weeks, in electives/<package>/."""

    @property
    def path(self) -> str:
        return f"electives/{self.package}"


@dataclass(frozen=True)
class Curriculum:
    """All weeks in order, and the electives."""

    weeks: tuple[Week, ...]
    electives: tuple[Elective, ...]

    @property
    def units(self) -> tuple[Unit, ...]:
        return (*self.weeks, *self.electives)

    def find(self, key: str | int) -> Unit:
        """The week or elective of that number, package or unambiguous beginning of a package.

        Raises UsageError naming the nearest one when there is none.
        """
        word = str(key).strip().lower().replace("-", "_").replace(".", "/").rstrip("/")
        word = word.removeprefix("electives/")
        word = word.removeprefix("week").lstrip("_ ") or word
        if word.isdecimal():
            if 1 <= int(word) <= len(self.weeks):
                return self.weeks[int(word) - 1]
            raise UsageError(f"there is no week {word}: they run from 1 to {len(self.weeks)}")
        found = [unit for unit in self.units if unit.package == word] or [
            unit for unit in self.units if word and unit.package.startswith(word)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(unit.package for unit in found)
            raise UsageError(f"'{key}' could be any of {names}; type more of the name")
        near = closest(word, [unit.package for unit in self.units])
        raise UsageError(f"unknown week '{key}'{near}\nAll weeks: lab list")
