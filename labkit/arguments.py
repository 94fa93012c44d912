"""Arguments that commands of `lab` share."""

from __future__ import annotations

from typing import Annotated

import typer

from labkit import course

PLAIN = {"help_option_names": ["-h", "--help"]}
PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True}


def week_names(incomplete: str) -> list[str]:
    """What the shell offers for a week."""
    names = (name for unit in course.load().units if unit.built for name in unit.programs)
    return [name for name in names if name.startswith(incomplete)]


Week = Annotated[
    str,
    typer.Argument(
        metavar="WEEK",
        help="number, name or beginning of a name",
        autocompletion=week_names,
    ),
]
Weeks = Annotated[
    list[str] | None, typer.Argument(help="weeks (default: all)", autocompletion=week_names)
]
