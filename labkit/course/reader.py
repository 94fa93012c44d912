"""The course, read from its files and checked."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from labkit.course.model import SIZES, Band, Baseline, Broken, Curriculum, Elective, Unit, Week
from labkit.errors import UsageError
from labkit.text import closest

FILE = Path(__file__).with_name("curriculum.yaml")


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
