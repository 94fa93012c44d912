"""The curriculum: 24 weeks and the electives, read from curriculum.yaml and checked.

    week("diffusion").bands                what the week must reach, per size and dataset
    week(10), week("10"), week("diff")     the same week
    load().weeks                           all of them, in order

Weeks and electives are both a `Unit`; `built` tells whether the package is there.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from labkit import paths
from labkit.config.config import closest
from labkit.errors import UsageError

FILE = Path(__file__).with_name("curriculum.yaml")
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


@cache
def load(file: Path = FILE) -> Curriculum:
    """Read and check the curriculum. Raises UsageError naming the place that is wrong."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"the curriculum cannot be read ({file}): {error}") from error
    try:
        curriculum = _curriculum(raw)
    except ValueError as error:
        raise UsageError(f"{file.name}: {error}") from error
    return curriculum


def packages() -> list[str]:
    """Names of all weeks and electives, in order."""
    return [unit.package for unit in load().units]


def week(key: str | int) -> Unit:
    """Shorthand for `load().find(key)`."""
    return load().find(key)


def package_of(week: str) -> str:
    """The unit that a record's `week` belongs to: `pretraining.scaling` is part of `pretraining`,
    `electives.autograd` is `autograd`.
    """
    return week.removeprefix("electives.").partition(".")[0]


def verdicts(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a result record says about the bands: one entry for each band that applies to it.

    A band over several seeds is judged by this run's value alone here; progress.py joins the seeds.
    """
    package = package_of(record["week"])
    if package not in packages() or str(record.get("experiment")).startswith("broken_"):
        return []
    unit, metrics = week(package), record["metrics"]
    return [
        {
            "metric": band.metric,
            "text": unit.goal(band),
            "seeds": band.seeds,
            "value": metrics[band.metric],
            "met": band.verdict(metrics[band.metric]),
        }
        for band in unit.bands
        if band.applies(record) and band.metric in metrics
    ]


def _curriculum(raw: Any) -> Curriculum:
    """Weeks with their place in the year, electives, and what must hold between them."""
    _known(raw, {"months", "electives"}, "the file")
    weeks: list[Week] = []
    for number, month in enumerate(_list(raw, "months", "the file"), start=1):
        _known(month, {"title", "weeks"}, f"month {number}")
        place = {"month": number, "month_title": month.get("title")}
        for item in _list(month, "weeks", f"month {number}"):
            where = f"week {item.get('number', '?')}" if isinstance(item, dict) else str(item)
            _known(item, _fields(Week) - set(place), where)
            weeks.append(_convert(Week, {**item, **place}, where))
    electives = [
        _convert(Elective, item, f"elective {position}")
        for position, item in enumerate(_list(raw, "electives", "the file"), start=1)
    ]
    for position, item in enumerate(weeks, start=1):
        if (item.number, item.month) != (position, (position - 1) // 4 + 1):
            raise ValueError(f"week {item.number} ({item.package}) stands in the wrong place")
    earlier: set[str] = set()
    for unit in (*weeks, *electives):
        _consistent(unit, earlier)
        earlier.add(unit.package)
    return Curriculum(tuple(weeks), tuple(electives))


def _consistent(unit: Unit, earlier: set[str]) -> None:
    """Raise ValueError where a unit names what is not there."""
    name = unit.package
    if name in earlier:
        raise ValueError(f"{name} is listed twice")
    for needed in unit.prerequisites:
        if needed not in earlier:
            raise ValueError(f"{name}: prerequisite '{needed}' is no earlier week")
    if not unit.metrics:
        raise ValueError(f"{name}: no metric")
    known = [metric.name for metric in unit.metrics]
    entries: list[Band | Baseline | Broken] = [*unit.bands, *unit.baseline, *unit.broken]
    for entry in entries:
        if entry.metric not in known:
            near = closest(entry.metric, known)
            raise ValueError(f"{name}: metric '{entry.metric}' is not among its metrics{near}")
    for size in unit.planned:
        if size not in SIZES:
            raise ValueError(f"{name}: planned: unknown size '{size}'")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _fields(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


def _known(raw: Any, names: set[str], where: str) -> None:
    """Raise ValueError unless `raw` is a mapping with no key outside `names`."""
    if not isinstance(raw, dict):
        raise ValueError(f"{where}: expected a mapping, got {raw!r}")
    for key in raw:
        if key not in names:
            raise ValueError(f"{where}: unknown key '{key}'{closest(str(key), sorted(names))}")


def _list(raw: dict[str, Any], key: str, where: str) -> list[Any]:
    """The list under a key. Raises ValueError when there is none."""
    if not isinstance(raw.get(key), list):
        raise ValueError(f"{where}: '{key}' must be a list, got {raw.get(key)!r}")
    return list(raw[key])


def _convert(kind: Any, raw: Any, where: str) -> Any:
    """`raw` YAML as a value of the annotation `kind`. Raises ValueError, naming the place."""
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), raw, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        if raw is not None and not isinstance(raw, list):
            raise ValueError(f"{where}: expected a list, got {raw!r}")
        return tuple(_convert(arguments[0], item, place) for item, place in _places(raw, where))
    if origin is Mapping:
        _known(raw, set(raw) if isinstance(raw, dict) else set(), where)
        return dict(raw)
    if origin is Literal:
        if not isinstance(raw, str) or raw not in arguments:
            raise ValueError(f"{where}: {raw!r} is not one of {', '.join(map(str, arguments))}")
        return raw
    if type(None) in arguments:
        return None if raw is None else _convert(arguments[0], raw, where)
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, kind) or isinstance(raw, bool):
        raise ValueError(f"{where}: expected {kind.__name__}, got {raw!r}")
    if isinstance(raw, float) and not math.isfinite(raw):
        raise ValueError(f"{where}: {raw} is no finite number")
    return raw


def _places(raw: list[Any] | None, where: str) -> Iterator[tuple[Any, str]]:
    for position, item in enumerate(raw or [], start=1):
        yield item, f"{where} {position}"


def _build(cls: type, raw: Any, where: str) -> Any:
    """An instance of the dataclass `cls` from a YAML mapping."""
    _known(raw, _fields(cls), where)
    hints = _hints(cls)
    where = f"{where} ({raw['package']})" if "package" in raw else where
    for field in dataclasses.fields(cls):
        optional = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if field.name not in raw and not optional:
            raise ValueError(f"{where}: '{field.name}' is missing")
    values = {key: _convert(hints[key], item, f"{where}: {key}") for key, item in raw.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
