"""What the course is made of: units, their metrics, and the bands they must reach."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from labkit import paths
from labkit.errors import UsageError
from labkit.text import closest

SIZES = ("smoke", "tiny", "full")
"""The ladder of sizes, smallest first."""

Size = Literal["smoke", "tiny", "full"]
T = TypeVar("T")
List = Annotated[tuple[T, ...], Field(strict=False)]
"""A list in a file, which cannot be altered here."""
Number = Annotated[float, Field(allow_inf_nan=False)]


class Part(BaseModel):
    """An entry of the course's files: only listed keys, and no type conversion."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Metric(Part):
    """A number that a week reports: `name` in records, `title` and `unit` for people."""

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    digits: Annotated[int, Field(ge=0, le=10)] = 2

    def show(self, value: float, deviation: float | None = None) -> str:
        """`98.40 %`, or with a standard deviation `98.40 ± 0.05 %`."""
        number = f"{value:.{self.digits}f}"
        if deviation is not None:
            number += f" ± {deviation:.{self.digits}f}"
        return f"{number} {self.unit}".rstrip()


class Limit(Part):
    """One side of a number line: `at_least` or `at_most`, exactly one of them."""

    at_least: Number | None = None
    at_most: Number | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Limit:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give either at_least or at_most")
        return self

    def verdict(self, value: float) -> bool:
        """Whether `value` is inside. NaN never is."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most

    @property
    def text(self) -> str:
        """`≥ 98.3` or `≤ 8`."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


class Band(Limit):
    """What a metric must reach at one size on one dataset (the one really used).

    `where` names settings that must match; `seeds` distinct seeds are needed, and either their mean
    or every one of them must be inside.
    """

    size: Size
    data: str
    metric: str
    where: Mapping[str, Any] = Field(default_factory=dict)
    seeds: Annotated[int, Field(ge=1)] = 1
    over: Literal["mean", "every"] = "mean"

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


class Baseline(Part):
    """What guessing gets on one dataset, and how the guess is made."""

    metric: str
    data: str
    value: Number
    how: str


class Paper(Part):
    """A published number and its source."""

    metric: str
    data: str
    value: Number
    source: str


class Broken(Limit):
    """An experiment that fails on purpose: the symptom in words, and in numbers at one size."""

    experiment: str
    symptom: str
    metric: str
    size: Size
    part: str = ""
    """The part of the unit whose experiment it is; empty for the unit's own entrypoint."""


class Unit(Part):
    """What weeks and electives have in common."""

    package: str
    focus: str
    task: str
    prerequisites: List[str]
    metrics: List[Metric]
    papers: List[str] = ()
    baseline: List[Baseline] = ()
    bands: List[Band] = ()
    planned: Mapping[Size, str] = Field(default_factory=dict)
    paper: List[Paper] = ()
    broken: List[Broken] = ()
    retired: Mapping[str, Any] = Field(default_factory=dict)
    """Settings that only older records have, each with the value that changed nothing."""
    alternatives: Mapping[str, List[str]] = Field(default_factory=dict)
    """A setting, and the groups of settings of which only the one that it names has an effect."""
    parts: List[str] = ()
    """Further entrypoints: `scaling` is started as `python -m <module>.scaling.train`."""

    @field_validator("metrics")
    @classmethod
    def _names_differ(cls, metrics: List[Metric]) -> List[Metric]:
        """A part's metrics are joined to its unit's: two of one name would be taken for one."""
        names = [metric.name for metric in metrics]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two metrics have the name {twice[0]}")
        return metrics

    def unused(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Beginnings of settings (`gan.`) that have no effect beside these: see `alternatives`."""
        return tuple(
            f"{group}."
            for chooser, groups in self.alternatives.items()
            for group in groups
            if chooser in config and group != config[chooser]
        )

    @property
    def path(self) -> str:
        """Folder relative to the clone."""
        return self.package

    @property
    def module(self) -> str:
        """Name under which Python imports it."""
        return self.path.replace("/", ".")

    @property
    def programs(self) -> tuple[str, ...]:
        """Names of all its entrypoints, its own first: `python -m <name>.train`."""
        return (self.module, *(f"{self.module}.{part}" for part in self.parts))

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

    def goal(self, band: Band) -> str:
        """A band in words: `test accuracy ≥ 98.3 % (mean of 3 seeds)`."""
        metric = self.metric(band.metric)
        over = {"mean": "mean of", "every": "on each of"}[band.over]
        seeds = f" ({over} {band.seeds} seeds)" if band.seeds > 1 else ""
        return f"{metric.title} {f'{band.text} {metric.unit}'.rstrip()}{seeds}"


class Week(Unit):
    """One week: its number from 1 to 24, and its place in its month."""

    number: int
    month: int = 0
    month_title: str = ""

    @property
    def week(self) -> int:
        """1 to 4, within the month."""
        return (self.number - 1) % 4 + 1


class Elective(Unit):
    """A subject outside the weeks, in electives/<package>/."""

    own: bool = False
    """The learner's own project (`lab capstone new`), which the lab claims nothing about."""

    @property
    def path(self) -> str:
        return f"electives/{self.package}"


class Curriculum(Part):
    """All weeks in order, and the electives."""

    weeks: List[Week]
    electives: List[Elective]

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

    def program(self, key: str | int) -> str:
        """The entrypoint that a unit's key means, or a key and a part: `pretraining.scaling`.

        Raises UsageError when there is no such unit or part, or when it is not built yet.
        """
        name, _, part = str(key).removeprefix("electives.").partition(".")
        unit = self.find(key if str(key).startswith("electives") and not part else name)
        if part and part not in unit.parts:
            near = closest(part, unit.parts)
            known = ", ".join(unit.programs)
            raise UsageError(f"{unit.package} has no part '{part}'{near}; it has {known}")
        if not unit.built:
            raise UsageError(f"week {unit.package} is not built yet; `lab list` shows which are")
        return f"{unit.module}.{part}" if part else unit.module
