"""The `lab` command. WEEK is a number (10), a name (diffusion) or the beginning of one (diff)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit import bootstrap, course, paths
from labkit.arguments import PASSED_ON, PLAIN, Week, Weeks
from labkit.errors import RunFailed, UsageError, advice
from labkit.exercises import commands
from labkit.machine import threads
from labkit.machine.signals import finish, terminate_like_interrupt
from labkit.remote.app import remote
from labkit.show.console import fail, outlived, say

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    context_settings=PLAIN,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(commands.exercise, name="exercise")
app.add_typer(remote, name="remote")
capstone = typer.Typer(help="A project of your own.", no_args_is_help=True, context_settings=PLAIN)
app.add_typer(capstone, name="capstone")

Mistake: Any = typer.BadParameter.__base__
"""What Typer raises for a command line that it cannot read (in it, `ctx` is the command)."""


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
    return _become(course.program(week), context.args)


def _become(program: str, words: Sequence[str]) -> int:
    """This process becomes that of a run; on Windows it waits for the run's end."""
    # Without -P a week in the current folder, such as workspace/, could be imported instead.
    command = [sys.executable, "-P", "-m", f"{program}.train", *words]
    found = [str(paths.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(found)}
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform != "win32":
        os.execve(sys.executable, command, env)
    return finish(command, Path.cwd(), env)  # there exec returns to the shell at once


@app.command()
def setup() -> int:
    """Make .venv, or bring it up to date."""
    return bootstrap.main(["setup"])


@app.command(context_settings=PASSED_ON, options_metavar="", short_help="Digits in a minute.")
def demo(context: typer.Context) -> int:
    """The diffusion week at laptop size: it learns to draw digits.

    Takes settings, as a run does.
    """
    say("First pictures come after half a minute of training, better ones later; where, it says.")
    sized = any(word.lstrip("+").startswith("size=") for word in context.args)
    return _become("diffusion", [*([] if sized else ["+size=tiny"]), *context.args])


@app.command()
def smoke(weeks: Weeks = None) -> int:
    """Every built week at size smoke.

    On embedded data, in seconds each, keeping nothing: does everything run here?
    """
    from labkit.run import smoke

    return smoke.smoke([course.program(week) for week in weeks or []])


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
def plan(
    context: typer.Context,
    week: Week,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="take a few steps of the full size here, on the CPU")
    ] = False,
    scale: Annotated[
        str, typer.Option(help="with --rehearse: settings to make smaller, e.g. batch_size")
    ] = "",
    of: Annotated[int, typer.Option(help="by this factor", min=3)] = 16,
    parts: Annotated[int, typer.Option(help="micro-batches of a step", min=1)] = 1,
) -> int:
    """What a run needs: memory, time, cost.

    Parameters, memory, time and cost, here and on rented GPUs. Takes overrides, as a run does.
    With --rehearse: does the full size run, and what does a step of it need? For the sheets.
    """
    from labkit.plan import rehearse as rehearsing
    from labkit.plan import show
    from labkit.plan.full import How

    if not rehearse:
        return show.plan(course.program(week), context.args)
    how = How(tuple(filter(None, scale.split(","))), of, parts, tuple(context.args))
    asked = how != How()  # else as last time
    return rehearsing.rehearse(week, how if asked else None)


@capstone.command("new")
def new_project(name: Annotated[str, typer.Argument(help="its package, like my_idea")]) -> None:
    """Make a package of your own, with settings, record, claims and tests like a week's."""
    from labkit import project

    for path in project.new(name):
        print(f"wrote {path.relative_to(paths.ROOT)}")
    say(
        f"Run it:   python -m electives.{name}.train +size=smoke\n"
        f"Test it:  pytest tests/electives/{name}\n"
        f"Claim something: configs/electives.{name}/claims.yaml"
    )


@app.command()
def doctor() -> int:
    """Is this machine fit to run the lab?"""
    from labkit import doctor

    return doctor.doctor()


if __name__ == "__main__":
    sys.exit(main())
