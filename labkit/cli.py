"""The `lab` command.

    lab list                                  the weeks, and what this clone can run
    lab run <week> [overrides]                the same as python -m <week>.train [overrides]
    lab progress [--check]                    regenerate PROGRESS.md and all tables from results/
    lab plan <week> [overrides]               parameters, memory, time and cost, here and rented
    lab doctor                                is this machine ready, and does it compute correctly
    lab exercise start <week> [--force]       copy a week into workspace/ with the exercises blank
    lab exercise check <week> [exercise]      grade what is in workspace/
    lab exercise verify [week] [--fresh]      grade the graders: solutions pass, blanks and planted
                                              bugs fail; --fresh forgets what is known from before
    lab exercise mutants [weeks | week exercise] [--list] [--fresh]
                                              do the tests notice mistakes that nobody planted?

<week> is a number (10), a name (diffusion) or the beginning of one (diff).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from labkit import paths
from labkit.config.config import closest
from labkit.errors import RunFailed, UsageError, advice
from labkit.machine import threads
from labkit.machine.signals import terminate_like_interrupt
from labkit.show.console import fail, outlived

COMMANDS = ("list", "run", "progress", "plan", "doctor", "exercise")


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command; returns the exit code."""
    if argv is None:  # this process is the command, and its children inherit what it chooses
        threads.choose()
    words = list(sys.argv[1:] if argv is None else argv)
    with outlived():
        try:
            with terminate_like_interrupt():
                return _main(words)
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
        except KeyboardInterrupt:
            return 130


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(__doc__)
        return 0 if words else 2
    command, rest = words[0], words[1:]
    if any(word in ("-h", "--help") for word in rest) and command != "run":
        print(__doc__)
        return 0
    if command == "list":
        _none(rest, "list")
        return _list()
    if command == "run":
        return _run(rest)
    if command == "progress":
        from labkit.report.progress import main as progress

        return progress(rest)
    if command == "plan":
        from labkit.plan.plan import plan

        return plan(_built(_first(rest, "plan")), rest[1:])
    if command == "doctor":
        from labkit.doctor import doctor

        _none(rest, "doctor")
        return doctor()
    if command == "exercise":
        return _exercise(rest)
    raise UsageError(
        f"unknown command '{command}'{closest(command, COMMANDS)}\nCommands: lab --help"
    )


def _list() -> int:
    """Print the weeks as a table."""
    from rich.console import Console
    from rich.table import Table

    from labkit.course import curriculum

    table = Table(box=None, pad_edge=False)
    for column in ("week", "package", "focus", "task", ""):
        table.add_column(column, overflow="fold")
    for unit in curriculum.load().units:
        number = str(unit.number) if isinstance(unit, curriculum.Week) else "e"
        table.add_row(
            number, unit.path, unit.focus, unit.task, "ready" if unit.built else "to come"
        )
    Console().print(table)
    return 0


def _run(rest: list[str]) -> int:
    """Become the week's own command: signals then reach the run itself, and it ends as it ends."""
    week = _built(_first(rest, "run"))
    # Without -P a folder that the caller stands in, such as workspace/, could pass for the week.
    command = [sys.executable, "-P", "-m", f"{week}.train", *rest[1:]]
    found = [str(paths.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(found)}
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform != "win32":
        os.execve(sys.executable, command, env)
    return subprocess.run(command, env=env).returncode  # there exec returns to the shell at once


VERBS = {
    "start": {"--force"},
    "check": set[str](),
    "verify": {"--fresh"},
    "mutants": {"--list", "--fresh"},
}
"""What can be done with exercises, and the options of each."""


def _exercise(rest: list[str]) -> int:
    from labkit.exercises.check import check
    from labkit.exercises.exercise import start
    from labkit.exercises.mutants.command import mutants
    from labkit.exercises.verify import verify

    verb = _first(rest, "exercise", f"one of {', '.join(VERBS)}")
    if verb not in VERBS:
        hint = closest(verb, tuple(VERBS))
        raise UsageError(f"unknown command 'exercise {verb}'{hint}\nCommands: lab --help")
    words = [word for word in rest[1:] if not word.startswith("-")]
    flags = set(rest[1:]) - set(words)
    if unknown := flags - VERBS[verb]:
        raise UsageError(f"unknown option {' '.join(sorted(unknown))}\nCommands: lab --help")
    if verb == "start":
        return start(_built(_first(words, "exercise start")), force="--force" in flags)
    if verb == "check":
        return check(_built(_first(words, "exercise check")), words[1] if len(words) > 1 else None)
    if verb == "verify":
        return verify(_built(words[0]) if words else None, fresh="--fresh" in flags)
    weeks, only = _weeks_or_exercise(words)
    return mutants(weeks, only, listed="--list" in flags, fresh="--fresh" in flags)


def _weeks_or_exercise(words: list[str]) -> tuple[list[str], str | None]:
    """Weeks; or one week and one of its exercises."""
    if len(words) == 2:
        try:
            return [_built(word) for word in words], None
        except UsageError:
            return [_built(words[0])], words[1]
    return [_built(word) for word in words], None


def _first(rest: list[str], command: str, what: str = "a week, e.g. diffusion or 10") -> str:
    if not rest:
        raise UsageError(f"lab {command} needs {what}\nWeeks: lab list")
    return rest[0]


def _none(rest: list[str], command: str) -> None:
    if rest:
        raise UsageError(f"lab {command} takes nothing more, got {' '.join(rest)}")


def _built(key: str) -> str:
    """Module name of a week that can be run here. Raises UsageError."""
    from labkit.course import curriculum

    unit = curriculum.week(key)
    if not unit.built:
        raise UsageError(f"week {unit.package} is not built yet; `lab list` shows which are")
    return unit.module


if __name__ == "__main__":
    sys.exit(main())
