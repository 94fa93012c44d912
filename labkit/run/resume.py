"""`resume=latest` or `resume=<run folder>`: the same config and folder, the last checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.config import compose, schema
from labkit.config.fields import flat, flatten, nest, settings
from labkit.errors import UsageError
from labkit.run import folders
from labkit.run.ending import resume_command
from labkit.run.life import Start
from labkit.run.program import Program


def resumed(program: Program, where: str, words: Sequence[str]) -> Start:
    """The run that `where` means, started again as it was.

    Raises UsageError when there is none, when the words ask for other settings than it has (except
    those of RESUMABLE_CHANGES), and when it was made by code with other settings.
    """
    folder = find(program.week, where, words)
    saved, choices = compose.saved(folder)
    values = flatten(saved)
    asked = compose.compose(program.week, program.config, words)
    changed: dict[str, tuple[Any, Any]] = {}
    names = {setting.name for setting in settings(program.config)}
    wanted = flat(asked.config)
    for word in asked.overrides:
        key = word.lstrip("+").partition("=")[0]
        if key in schema.GROUPS:
            if asked.choices[key] != choices.get(key):
                changed[key] = (choices.get(key, "none"), asked.choices[key])
        elif key in names:
            new = wanted[key]
            if key in schema.RESUMABLE_CHANGES:
                values[key] = new
            elif values.get(key) != new:
                changed[key] = (values.get(key), new)
    if changed:
        raise UsageError(
            f"a resumed run keeps its own config, but {folder} has "
            + ", ".join(f"{key}={old} (asked: {new})" for key, (old, new) in changed.items())
            + f".\nType: {resume_command(program.week, where)}"
            + "   or leave out resume= to start a new run."
        )
    if unknown := sorted((set(values) ^ names) - schema.RESUMABLE_CHANGES):
        raise UsageError(
            f"{folder} was made by other code: the settings {', '.join(unknown)} exist only "
            "there or only here. Start a new run without resume=."
        )
    return Start(schema.instantiate(program.config, nest(values)), folder, choices, resumed=True)


def find(week: str, where: str, words: Sequence[str] = ()) -> Path:
    """The run folder that `latest` (of the size asked for, if any) or a path means. Raises
    UsageError.
    """
    if where != "latest":
        return folders.saved_folder(week, where)
    size = next((w.partition("=")[2] for w in words if w.lstrip("+").startswith("size=")), None)
    return folders.latest(week, size)
