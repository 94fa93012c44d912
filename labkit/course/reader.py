"""The course, read from its files and checked.

curriculum.yaml has the plan: months, weeks, electives. What a unit claims (metrics, bands,
baselines, broken experiments, published numbers) is in configs/<unit>/claims.yaml, beside its
settings. A part of a unit may have a file of its own, configs/<unit>.<part>/claims.yaml, with the
same keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from labkit import paths
from labkit.course.model import Band, Baseline, Broken, Curriculum, Elective, Unit, Week
from labkit.errors import UsageError
from labkit.text import closest, short

FILE = Path(__file__).with_name("curriculum.yaml")
CLAIMS = "claims.yaml"
PROJECT = "project.yaml"
"""In configs/electives.<name>/: a project of the learner's own, the same keys as an elective's."""


class _Month(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str
    weeks: list[dict[str, Any]]


class _Plan(BaseModel):
    model_config = ConfigDict(extra="forbid")
    months: list[_Month]
    electives: list[dict[str, Any]]


@cache
def load(file: Path = FILE, claims: Path = paths.ROOT / "configs") -> Curriculum:
    """Read and check the course; `claims` is the folder of configs. Raises UsageError naming the
    place that is wrong.
    """
    raw = _yaml(file)
    try:
        plan = _Plan.model_validate(raw)
    except ValidationError as error:
        raise UsageError(f"{file.name}: {_said(error, raw, _Plan)}") from error
    weeks, electives = [], []
    for number, month in enumerate(plan.months, start=1):
        for item in month.weeks:
            week = _unit(Week, f"week {item.get('number', '?')}", item, claims)
            weeks.append(week.model_copy(update={"month": number, "month_title": month.title}))
    own = [
        _mapping(project) | {"own": True}
        for project in sorted(claims.glob(f"electives.*/{PROJECT}"))
    ]
    for position, item in enumerate([*plan.electives, *own], start=1):
        electives.append(_unit(Elective, f"elective {position}", item, claims, "electives."))
    try:
        _check(weeks, electives)
    except ValueError as error:
        raise UsageError(f"{file.name}: {error}") from error
    return Curriculum(weeks=tuple(weeks), electives=tuple(electives))


def packages() -> list[str]:
    """Names of all weeks and electives, in order."""
    return [unit.package for unit in load().units]


def week(key: str | int) -> Unit:
    """Shorthand for `load().find(key)`."""
    return load().find(key)


def program(key: str | int) -> str:
    """Shorthand for `load().program(key)`."""
    return load().program(key)


def _yaml(file: Path) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"the curriculum cannot be read ({file}): {error}") from error


U = TypeVar("U", bound=Unit)


def _unit(kind: type[U], where: str, item: dict[str, Any], folder: Path, prefix: str = "") -> U:
    """A unit from its entry in the plan and its claims. Raises UsageError."""
    package = item.get("package")
    claims = _claims(folder, f"{prefix}{package}", item) if "metrics" not in item else {}
    values = {key: value for key, value in {**item, **claims}.items() if value is not None}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        named = f"{where} ({package})" if package else where
        raise UsageError(f"curriculum: {named}: {_said(error, values, kind)}") from error


def _claims(folder: Path, name: str, item: dict[str, Any]) -> dict[str, Any]:
    """What a unit's file claims, and after it what the files of its parts claim, where they have
    one: lists are joined, and a broken experiment is one of that part. Raises UsageError.
    """
    found = _mapping(folder / name / CLAIMS)
    parts = item.get("parts")
    for part in parts if isinstance(parts, list) else []:
        file = folder / f"{name}.{part}" / CLAIMS
        for key, value in (_mapping(file) if file.is_file() else {}).items():
            if not isinstance(value, list):
                raise UsageError(f"{file}: {key} must be a list; the rest stands with the unit")
            if key == "broken":
                value = [{**dict(entry), "part": part} for entry in value]
            found[key] = [*(found.get(key) or []), *value]
    return found


def _mapping(file: Path) -> dict[str, Any]:
    """A file's keys. Raises UsageError when it has none."""
    found = _yaml(file)
    if not isinstance(found, dict):
        raise UsageError(f"{file}: expected a mapping, got {found!r}")
    return found


def _said(error: ValidationError, raw: Any, kind: type[BaseModel]) -> str:
    """The first fault in words, with its place."""
    first = error.errors(include_url=False)[0]
    steps = [str(step + 1) if isinstance(step, int) else str(step) for step in first["loc"]]
    if first["type"] == "extra_forbidden":
        near = closest(steps[-1], _known(kind, first["loc"][:-1]))
        return f"{' '.join([*steps[:-1], 'unknown key'])} '{steps[-1]}'{near}"
    message = first["msg"].removeprefix("Value error, ")
    for python, yaml in (
        ("tuple", "list"),
        ("dictionary", "mapping"),
        (" or instance of _Plan", ""),
    ):
        message = message.replace(python, yaml)
    got = (
        ""
        if first["type"] in ("missing", "value_error")
        else f", got {short(repr(first['input']))}"
    )
    return f"{' '.join(steps) or 'the file'}: {message}{got}"


def _known(kind: Any, place: Sequence[int | str]) -> list[str]:
    """The keys that a model, or the model in one of its lists, has."""
    for step in place:
        if isinstance(step, str):
            found = _arguments(kind.model_fields[step].annotation)
            kind = next(
                (a for a in found if isinstance(a, type) and issubclass(a, BaseModel)), kind
            )
    return list(kind.model_fields)


def _arguments(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation, *(found for part in inner for found in _arguments(part))]


def _check(weeks: Sequence[Week], electives: Sequence[Elective]) -> None:
    """What must hold between the units. Raises ValueError."""
    for position, week in enumerate(weeks, start=1):
        if (week.number, week.month) != (position, (position - 1) // 4 + 1):
            raise ValueError(f"week {week.number} ({week.package}) is in the wrong place")
    earlier: set[str] = set()
    for unit in (*weeks, *electives):
        name = unit.package
        if name in earlier:
            raise ValueError(f"{name} is listed twice")
        if missing := set(unit.prerequisites) - earlier:
            raise ValueError(f"{name}: prerequisite '{min(missing)}' is not an earlier week")
        if not unit.metrics:
            raise ValueError(f"{name}: no metric")
        known = [metric.name for metric in unit.metrics]
        entries: list[Band | Baseline | Broken] = [*unit.bands, *unit.baseline, *unit.broken]
        for entry in entries:
            if entry.metric not in known:
                near = closest(entry.metric, known)
                raise ValueError(f"{name}: metric '{entry.metric}' is not among its metrics{near}")
        earlier.add(name)
