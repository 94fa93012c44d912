"""What `--help` prints."""

from __future__ import annotations

import textwrap
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from labkit.config.compose import options
from labkit.config.fields import Setting, groups, settings
from labkit.config.schema import LabConfig
from labkit.config.values import literal_choices, typed


def help_text(week: str, config: type[LabConfig]) -> str:
    """What `--help` prints: sizes, experiments and every setting with type, default and meaning."""
    lines = [
        f"{week}: {' '.join((config.__doc__ or '').split())}",
        "",
        f"usage: python -m {week}.train [+size=NAME] [+experiment=NAME] [key=value ...]",
        f"       python -m {week}.train +size=tiny             a run on a laptop",
        f"       python -m {week}.train -m +size=tiny seed=0,1,2   a sweep: one run for each value",
        f"       python -m {week}.train resume=latest          resume a stopped run",
        "",
        f"sizes:       {', '.join(options(week, 'size'))} (none given: full size)",
        f"experiments: {', '.join(options(week, 'experiment')) or 'none'}",
        "other:       debug=default (10 steps, NaN tracing), --cfg job (show the config)",
    ]
    shared = {setting.name for setting in settings(LabConfig)}
    every = settings(config)
    parts = {"settings of this week": [s for s in every if not s.group and s.name not in shared]}
    common = groups(LabConfig)
    for name, group in groups(config).items():
        if name not in common:
            parts[_titled(name, group)] = [s for s in every if s.group == name]
    parts["settings of every week"] = [s for s in every if s.name in shared and not s.group]
    for name, group in common.items():
        parts[_titled(name, group)] = [s for s in every if s.group == name]
    for title, found in parts.items():
        lines += ["", f"{title} (full-size value shown; sizes and experiments change some):"]
        for setting in found:
            head = f"  {setting.name}={typed(setting.default)}"
            lines.append(f"{head:<30} {_type_name(setting)}")
            indent = " " * 6
            lines += textwrap.wrap(setting.doc, 96, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)


def _titled(name: str, group: type) -> str:
    return f"{name}: {' '.join((group.__doc__ or '').split()).rstrip('.')}"


def _type_name(setting: Setting) -> str:
    kind = setting.annotation
    if choices := literal_choices(kind):
        return " | ".join(map(str, choices))
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    names = [_plain(part) for part in parts if part is not NoneType]
    if setting.bounds is not None:
        names.append(str(setting.bounds))
    return ", ".join(names) + (", or null" if NoneType in parts else "")


def _plain(kind: Any) -> str:
    """A type as Python writes it, without the module it is from."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
