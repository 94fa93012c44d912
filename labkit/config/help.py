"""What `--help` prints."""

from __future__ import annotations

import dataclasses
import textwrap
import typing
from typing import Any, get_args

from labkit.config.compose import options
from labkit.config.schema import LabConfig, default_of, field_docs
from labkit.config.values import literal_choices, typed
from labkit.text import closest as closest


def help_text(week: str, config: type[LabConfig]) -> str:
    """What `--help` prints: sizes, experiments and every setting with type, default and meaning."""
    hints, docs = typing.get_type_hints(config), field_docs(config)
    own = [
        f
        for f in dataclasses.fields(config)
        if f.name not in {b.name for b in dataclasses.fields(LabConfig)}
    ]
    shared = [f for f in dataclasses.fields(config) if f not in own]
    lines = [
        f"{week}: {' '.join((config.__doc__ or '').split())}",
        "",
        f"usage: python -m {week}.train [+size=NAME] [+experiment=NAME] [key=value ...]",
        f"       python -m {week}.train +size=tiny             a run on a laptop",
        f"       python -m {week}.train -m +size=tiny seed=0,1,2   a sweep: one run for each value",
        f"       python -m {week}.train resume=latest          go on with a stopped run",
        "",
        f"sizes:       {', '.join(options(week, 'size'))} (none given: full size)",
        f"experiments: {', '.join(options(week, 'experiment')) or 'none'}",
        "other:       debug=default (10 steps, NaN tracing), --cfg job (show the config)",
    ]
    for title, fields in (("settings of this week", own), ("settings of every week", shared)):
        lines += ["", f"{title} (full-size value shown; sizes and experiments change some):"]
        for item in fields:
            head = f"  {item.name}={typed(default_of(item))}"
            kind = _type_name(hints[item.name])
            lines.append(f"{head:<30} {kind}")
            lines += textwrap.wrap(
                docs.get(item.name, ""), 96, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
    return "\n".join(lines)


def _type_name(annotation: Any) -> str:
    choices = literal_choices(annotation)
    if choices:
        return " | ".join(map(str, choices))
    return (
        annotation.__name__
        if isinstance(annotation, type) and not get_args(annotation)
        else str(annotation)
    )
