"""`lab exercise ...`: the commands, each of which loads what it needs."""

from __future__ import annotations

from typing import Annotated

import typer

from labkit import course, paths
from labkit.arguments import PLAIN, Week, week_names
from labkit.errors import UsageError

exercise = typer.Typer(
    help="Start, check and compare exercises; check their tests.",
    no_args_is_help=True,
    context_settings=PLAIN,
    rich_markup_mode=None,
)


def _exercise_names(context: typer.Context, incomplete: str) -> list[str]:
    """What the shell offers for an exercise of the week that is already typed."""
    from labkit.exercises.listing import exercises_of

    try:
        names = [e.name for e in exercises_of(_week(context.params["week"]), paths.ROOT)]
    except (KeyError, UsageError):
        return []
    short = [name.rpartition(".")[2] for name in names] if incomplete else []
    return [name for name in (*names, *short) if name.startswith(incomplete)]


Fresh = Annotated[bool, typer.Option("--fresh", help="grade again, without cached grades")]


@exercise.command()
def start(
    week: Week,
    force: Annotated[bool, typer.Option("--force", help="move your earlier files aside")] = False,
) -> int:
    """Copy a week, its exercises blank.

    The copy is workspace/WEEK, with the bodies of the exercises removed.
    """
    from labkit.exercises import start

    return start.start(_week(week), force=force)


@exercise.command()
def check(
    week: Week,
    exercise: Annotated[
        str | None,
        typer.Argument(help="one exercise (default: all)", autocompletion=_exercise_names),
    ] = None,
) -> int:
    """Grade what is in workspace/."""
    from labkit.exercises import check

    return check.check(_week(week), exercise)


@exercise.command()
def hint(
    week: Week,
    exercise: Annotated[
        str | None,
        typer.Argument(help="one exercise (default: list them)", autocompletion=_exercise_names),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="all hints at once")] = False,
) -> int:
    """Hints for an exercise; each call shows one more."""
    from labkit.exercises import hint

    return hint.hint(_week(week), exercise, every)


@exercise.command()
def diff(
    week: Week,
    exercise: Annotated[str, typer.Argument(help="one exercise", autocompletion=_exercise_names)],
    give_up: Annotated[bool, typer.Option("--give-up", help="even if it does not pass")] = False,
) -> int:
    """Your function beside the solution, once it passes."""
    from labkit.exercises import diff

    return diff.diff(_week(week), exercise, give_up)


@exercise.command()
def verify(
    week: Annotated[
        str | None, typer.Argument(help="one week (default: all)", autocompletion=week_names)
    ] = None,
    fresh: Fresh = False,
) -> int:
    """Do the tests find all planted bugs?

    Solutions must pass; blanks and planted bugs must fail.
    """
    from labkit.exercises import verify

    return verify.verify(_week(week) if week else None, fresh=fresh)


@exercise.command()
def mutants(
    weeks: Annotated[
        list[str] | None,
        typer.Argument(help="weeks; or a week, exercise", autocompletion=week_names),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="show each mutant")] = False,
    fresh: Fresh = False,
) -> int:
    """Do the tests find automatic mistakes?

    Small changes are made to each exercise's code; the tests should fail for each.
    """
    from labkit.exercises.mutants import command

    chosen, only = _weeks_or_exercise(weeks or [])
    return command.mutants(chosen, only, listed=listed, fresh=fresh)


def _weeks_or_exercise(words: list[str]) -> tuple[list[str], str | None]:
    """Weeks; or one week and one of its exercises."""
    if len(words) == 2:
        try:
            return [_week(word) for word in words], None
        except UsageError:
            return [_week(words[0])], words[1]
    return [_week(word) for word in words], None


def _week(key: str) -> str:
    """Module name of the week itself, whose exercises are meant. Raises UsageError."""
    course.program(key)  # refuses what is not built
    return course.week(key).module
