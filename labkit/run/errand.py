"""A run that a rented machine is to make: what `labkit.remote` is handed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labkit.config.schema import REMOTE, LabConfig
from labkit.machine.address import Address
from labkit.run.program import Program


@dataclass(frozen=True)
class Errand:
    """A command line of a week, checked here, with the machine that `device=` names."""

    program: Program
    address: Address
    config: LabConfig
    """The settings of the run; those of a sweep's first."""
    full_size: bool
    words: tuple[str, ...]
    """The overrides, and -m for a sweep, without what only says where."""
    folder: Path | None = None
    """The run folder of this machine that is to be resumed there."""


def words_there(words: list[str]) -> list[str]:
    """The words without `device=`, `resume=` and `remote.`: the run there is one like any other."""
    where = ("device", "resume", *REMOTE)
    return [word for word in words if word.lstrip("+").partition("=")[0] not in where]
