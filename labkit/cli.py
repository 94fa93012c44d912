"""The `lab` command. WEEK is a number (10), a name (diffusion) or the beginning of one (diff)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from labkit import course, paths
from labkit.errors import RunFailed, UsageError, advice
from labkit.machine import threads
from labkit.machine.signals import terminate_like_interrupt
from labkit.remote.app import remote
from labkit.show.console import fail, outlived

PLAIN = {"help_option_names": ["-h", "--help"]}
PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True}

GROUP: Any = {"no_args_is_help": True, "context_settings": PLAIN, "rich_markup_mode": None}

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False, **GROUP)
exercise = typer.Typer(help="Start, check and compare exercises; check their tests.", **GROUP)
app.add_typer(exercise, name="exercise")
app.add_typer(remote, name="remote")

Mistake: Any = typer.BadParameter.__base__
"""What Typer raises for a command line that it cannot read (in it, `ctx` is the command)."""


def _week_names(incomplete: str) -> list[str]:
    """What the shell offers for a week."""
    names = (name for unit in course.load().units if unit.built for name in unit.programs)
    return [name for name in names if name.startswith(incomplete)]


def _exercise_names(context: typer.Context, incomplete: str) -> list[str]:
    """What the shell offers for an exercise of the week that is already typed."""
    from labkit.exercises.listing import exercises_of

    try:
        names = [e.name for e in exercises_of(_week(context.params["week"]), paths.ROOT)]
    except (KeyError, UsageError):
        return []
    short = [name.rpartition(".")[2] for name in names] if incomplete else []
    return [name for name in (*names, *short) if name.startswith(incomplete)]


Week = Annotated[
    str,
    typer.Argument(
        metavar="WEEK",
        help="number, name or beginning of a name",
        autocompletion=_week_names,
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="grade again, without cached grades")]


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command; returns the exit code: 0 done, 1 failed, 2 bad usage."""
    if argv is None:  # this process is the command, and its children inherit what it chooses
        threads.choose()
    with outlived():
        try:
            with terminate_like_interrupt():
                words = list(sys.argv[1:] if argv is None else argv)
                code = app(words, prog_name="lab", standalone_mode=False)
                return code if isinstance(code, int) else 0
        except Mistake as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                print(error.ctx.get_help())
            else:
                fail(f"{error.format_message()}\nType: {error.ctx.command_path} --help")
            return 2
        except UsageError as error:
            fail(str(error))
            return 2
        except RunFailed as error:
            fail(str(error))
            return 1
        except OSError as error:
            if (text := advice(error)) is None:
                raise
            fail(text)
            return 1
        except (KeyboardInterrupt, typer.Abort):
            return 130


@app.command("list")
def list_weeks(
    names: Annotated[
        bool, typer.Option("--names", help="only what can be run, one per line")
    ] = False,
    folders: Annotated[bool, typer.Option("--folders", help="only the weeks' folders")] = False,
) -> None:
    """The weeks, and what this clone can run."""
    if names or folders:
        built = [unit for unit in course.load().units if unit.built]
        print("\n".join(name for u in built for name in ([u.path] if folders else u.programs)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("week", "package", "focus", "task", ""):
        table.add_column(column, overflow="fold")
    for unit in course.load().units:
        number = str(unit.number) if isinstance(unit, course.Week) else "e"
        ready = "ready" if unit.built else "to come"
        table.add_row(number, unit.path, unit.focus, unit.task, ready)
    Console().print(table)


@app.command(
    context_settings={**PASSED_ON, "help_option_names": []}, add_help_option=False,
    options_metavar="", short_help="Run a week, as python -m WEEK.train does.",
)  # fmt: skip
def run(context: typer.Context, week: Week) -> int:
    """Run a week: the same as python -m WEEK.train [overrides], whose own --help this shows.

    The process becomes the week's command: signals reach the run itself, and the exit code is the
    run's.
    """
    if week in ("-h", "--help"):
        print(context.get_help())
        return 0
    module = _built(week)
    # Without -P a week in the current folder, such as workspace/, could be imported instead.
    command = [sys.executable, "-P", "-m", f"{module}.train", *context.args]
    found = [str(paths.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(found)}
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform != "win32":
        os.execve(sys.executable, command, env)
    return subprocess.run(command, env=env).returncode  # there exec returns to the shell at once


@app.command()
def progress(
    check: Annotated[bool, typer.Option("--check", help="exit 1 when something is stale")] = False,
    sheets: Annotated[bool, typer.Option("--sheets", help="also the READMEs' tables")] = False,
) -> int:
    """Write PROGRESS.md anew from results/."""
    from labkit.report import pages

    root = paths.home()
    if check:
        for fault in (faults := pages.check(root)):
            fail(fault)
        return 1 if faults else 0
    for path in pages.refresh(root, sheets):
        print(f"wrote {path.relative_to(root)}")
    return 0


@app.command(context_settings=PASSED_ON)
def plan(context: typer.Context, week: Week) -> int:
    """What a run needs: memory, time, cost.

    Parameters, memory, time and cost, here and on rented GPUs. Takes overrides, as a run does.
    """
    from labkit.plan import show

    return show.plan(_built(week), context.args)


@app.command()
def doctor() -> int:
    """Is this machine fit to run the lab?"""
    from labkit import doctor

    return doctor.doctor()


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
        str | None, typer.Argument(help="one week (default: all)", autocompletion=_week_names)
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
        typer.Argument(help="weeks; or a week, exercise", autocompletion=_week_names),
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


def _built(key: str) -> str:
    """Module name of a week that can be run here. Raises UsageError."""
    return course.program(key)


def _week(key: str) -> str:
    """Module name of the week itself, whose exercises are meant. Raises UsageError."""
    course.program(key)  # refuses what is not built
    return course.week(key).module


if __name__ == "__main__":
    sys.exit(main())
