"""What runs elsewhere: one small file a job, in remote/ beside runs/."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import files, paths
from labkit.errors import UsageError
from labkit.machine.address import SSH, Sky, parse
from labkit.remote.transport import Connection

FETCHED = "fetched"


@dataclass
class Job:
    """A run on a rented machine, as this machine knows it. No secret is in it."""

    id: str
    device: str
    """The address as it was typed, ssh:// or sky://."""
    week: str
    words: list[str]
    folder: str
    """Its folder there: runs/<id> below remote.folder."""
    python: str
    """A Python there, for `there.py`."""
    started: float
    """Seconds since 1970."""
    host: str | None = None
    """How ssh calls a machine of SkyPilot."""
    ssh_config: str | None = None
    accept_new: bool = False
    state: str = "queued"
    """The last state that was seen: see `there.py`; and `fetched` when all is here."""
    rc: int | None = None
    cluster: str | None = None
    """SkyPilot's name of the machine, while it is not torn down."""
    managed_job: int | None = None
    """SkyPilot's number of a managed job, for which no machine is ours."""
    usd_per_hour: float | None = None
    ended: float | None = None
    """When the machine was given back, or the job was last seen to have ended."""

    @property
    def connection(self) -> Connection:
        """How its machine is reached."""
        address = parse(self.device)
        if isinstance(address, Sky):
            return Connection(SSH(self.host or ""), self.ssh_config, managed=True)
        assert address is not None
        return Connection(address, self.ssh_config, self.accept_new)

    @property
    def script(self) -> list[str]:
        """The command that `there.py` is, on its machine."""
        return [self.python, "-P", f"{self.folder}/tree/labkit/remote/there.py"]

    @property
    def is_open(self) -> bool:
        """Whether something may still run there, or lie there that is not here."""
        return self.state != FETCHED

    @property
    def cost(self) -> float | None:
        """Dollars so far, where the price is known."""
        if self.usd_per_hour is None:
            return None
        return self.usd_per_hour * ((self.ended or time.time()) - self.started) / 3600

    @property
    def command(self) -> str:
        """What was typed, without where."""
        return " ".join([self.week, *self.words])

    def ask(self, verb: str, text: str = "", seconds: float = 60) -> Any:
        """The answer of `there.py` about this run. Raises NotReached, Refused, RunFailed."""
        return self.connection.ask(*self.script, verb, self.folder, text=text, seconds=seconds)

    def save(self) -> None:
        """Write the file."""
        files.write_json(place() / f"{self.id}.json", dataclasses.asdict(self))

    def forget(self) -> None:
        """Remove the file."""
        (place() / f"{self.id}.json").unlink(missing_ok=True)


def place() -> Path:
    """The folder of the registry."""
    return paths.home() / "remote"


def jobs() -> list[Job]:
    """All jobs that are known here, the oldest first. A file that is no job is left alone."""
    found = []
    for path in sorted(place().glob("*.json")):
        try:
            found.append(Job(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(found, key=lambda job: job.started)


def find(beginning: str | None) -> Job:
    """The job whose id begins so; without one, the newest. Raises UsageError."""
    known = jobs()
    if not known:
        raise UsageError(
            "nothing was started on a rented machine from here; start one: "
            "python -m WEEK.train device=ssh://user@host"
        )
    if beginning is None:
        return known[-1]
    fitting = [job for job in known if job.id.startswith(beginning)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(job.id for job in (fitting or known)[-5:])
    raise UsageError(
        f"{'several runs begin' if fitting else 'no run begins'} with {beginning}; known: {names}"
    )
