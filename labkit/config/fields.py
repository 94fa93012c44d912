"""A dataclass of settings as a list of settings; nested ones under dotted names: `ppo.lr`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from labkit.config.bounds import Bounds, bounds_of


@dataclass(frozen=True)
class Setting:
    """One setting: dotted name, type, bounds if it has any, full-size value, meaning."""

    name: str
    annotation: Any
    bounds: Bounds | None
    default: Any
    doc: str

    @property
    def group(self) -> str:
        """`ppo` for `ppo.lr`; empty for a setting of the config itself."""
        return self.name.rpartition(".")[0]


def settings(config: type) -> tuple[Setting, ...]:
    """All settings of a dataclass in the order of its fields, those of nested ones in place."""
    found: tuple[Setting, ...] = _settings(config)
    return found


@cache
def _settings(config: Any) -> tuple[Setting, ...]:
    found: list[Setting] = []
    hints, docs = typing.get_type_hints(config), docs_of(config)
    whole = typing.get_type_hints(config, include_extras=True)
    for item in dataclasses.fields(config):
        annotation = hints[item.name]
        if is_group(annotation):
            found += [
                dataclasses.replace(inner, name=f"{item.name}.{inner.name}")
                for inner in settings(annotation)
            ]
        else:
            bounds, doc = bounds_of(whole[item.name]), docs.get(item.name, "")
            found.append(Setting(item.name, annotation, bounds, default_of(item), doc))
    return tuple(found)


def groups(config: type) -> dict[str, type]:
    """The nested dataclasses of a config by the name of their field."""
    hints = typing.get_type_hints(config)
    return {f.name: hints[f.name] for f in dataclasses.fields(config) if is_group(hints[f.name])}


def is_group(annotation: Any) -> bool:
    """Whether a field holds settings of its own."""
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def default_of(item: dataclasses.Field[Any]) -> Any:
    """The full-size value of a field."""
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def flat(config: Any) -> dict[str, Any]:
    """The values of a config (an instance) under dotted names."""
    return flatten(dataclasses.asdict(config))


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, under dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": one for inner, one in flatten(value).items()}
        else:
            found[name] = value
    return found


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        *outer, last = name.split(".")
        place = found
        for step in outer:
            place = place.setdefault(step, {})
        place[last] = value
    return found


def docs_of(config: type) -> dict[str, str]:
    """The docstring under each field of a dataclass and its bases; Python itself does not keep
    them.
    """
    docs: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                docs[statement.target.id] = " ".join(str(after.value.value).split())
    return docs
