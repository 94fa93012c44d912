"""labkit: what the 24 weeks share, so that each week's files hold only what the week teaches.

    from labkit import LabConfig, Run, UsageError, exercise, lab

Importing it is cheap on purpose: no torch, no Hydra, no matplotlib. `--help` and a mistyped option
are answered before anything heavy is loaded.
"""

from __future__ import annotations

import sys

if not (3, 11) <= sys.version_info[:2] < (3, 14):
    sys.exit(
        f"The lab runs on Python 3.11, 3.12 or 3.13; this is {sys.version.split()[0]}.\n"
        "Make an environment with one of those, e.g.: python3.12 -m venv .venv"
    )

from typing import TYPE_CHECKING, Any

from labkit.config.schema import LabConfig
from labkit.errors import RunFailed, UsageError
from labkit.exercises.mark import exercise
from labkit.run import entry
from labkit.run.entry import lab

if TYPE_CHECKING:
    from labkit.run.errand import Errand
    from labkit.run.run import Run

__all__ = ["LabConfig", "Run", "RunFailed", "UsageError", "exercise", "lab"]


def __getattr__(name: str) -> Any:
    """`Run` is needed only for annotations and loads NumPy, so it is imported at first use."""
    if name == "Run":
        from labkit.run.run import Run

        return Run
    raise AttributeError(f"module 'labkit' has no attribute '{name}'")


def _refresh() -> None:
    from labkit.report import pages

    pages.refresh()


def _elsewhere(errand: Errand) -> int:
    from labkit.remote import start

    return start.start(errand)


entry.listeners.append(_refresh)  # so `labkit.run` does not import reports
entry.elsewhere.append(_elsewhere)  # nor what sends runs to rented machines
