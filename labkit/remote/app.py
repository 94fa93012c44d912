"""The command group `lab remote`. RUN is a run's name or the beginning of one (default: the
newest).
"""

from __future__ import annotations

from typing import Annotated

import typer

from labkit.arguments import PLAIN

remote = typer.Typer(
    help="Runs on rented machines (device=ssh://..., device=sky://...).",
    no_args_is_help=True,
    context_settings=PLAIN,
    rich_markup_mode=None,
)


def _names(incomplete: str) -> list[str]:
    """What the shell offers for a run."""
    from labkit.remote.registry import jobs

    return [job.id for job in jobs() if job.id.startswith(incomplete)]


Name = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="name of a run or its beginning (default: the newest)",
        autocompletion=_names,
    ),
]


@remote.command("list")
def list_jobs() -> int:
    """What runs elsewhere, and its cost so far."""
    from labkit.remote import commands

    return commands.list_jobs()


@remote.command()
def attach(run: Name = None) -> int:
    """Follow a run again, and fetch it when it ends."""
    from labkit.remote import commands

    return commands.attach(run)


@remote.command()
def logs(
    run: Name = None,
    whole: Annotated[bool, typer.Option("--all", help="from the first line on")] = False,
) -> int:
    """The last lines of a run's log."""
    from labkit.remote import commands

    return commands.logs(run, whole)


@remote.command()
def stop(run: Name = None) -> int:
    """Let a run save and end, and fetch it.

    A machine of SkyPilot is torn down then.
    """
    from labkit.remote import commands

    return commands.stop(run)


@remote.command()
def fetch(run: Name = None) -> int:
    """Copy a run's folder, record and artifacts here."""
    from labkit.remote import commands

    return commands.fetch_job(run)


@remote.command()
def cleanup(
    run: Name = None,
    every: Annotated[bool, typer.Option("--all", help="also runs that are not fetched")] = False,
) -> int:
    """Remove ended runs from their machines."""
    from labkit.remote import commands

    return commands.cleanup(run, every)
