"""Bringing home what a run made: its folder, its record and what it published."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

from labkit import paths
from labkit.errors import RunFailed
from labkit.remote.registry import Job
from labkit.remote.send import NOT_COPIED
from labkit.run import artifacts, entry, folders
from labkit.show.console import say, warn


def fetch(job: Job) -> list[Path]:
    """Copy run folders, records and artifacts here; returns the run folders.

    May be done while the run is at work, and again. What is here and complete is not copied again.
    Raises NotReached, Refused, RunFailed.
    """
    made: dict[str, Any] = job.ask("outcome")
    runs = [checked(name, "runs") for name in made["runs"]]
    fetched = []
    for name in runs:
        target = paths.home() / name
        if folders.in_use(target):
            warn(f"{target} is in use here, so it is not fetched; type later: {again(job)}")
            continue
        job.connection.fetch(f"{job.folder}/tree/{name}", target, *NOT_COPIED)
        fetched.append(target)
    results = [checked(name, "results") for name in made["results"]]
    if results:
        tree = f"{job.folder}/tree"
        job.connection.fetch(tree, paths.home(), "--ignore-existing", files=results)
    for name in made["artifacts"]:
        _fetch_artifact(job, checked(name, "artifacts"))
    if results:
        entry.when_finished()
    for folder in fetched:
        say(f"fetched {folder}")
    return fetched


def _fetch_artifact(job: Job, name: str) -> None:
    """Into a folder beside its place first, so that nobody finds half of it."""
    target = paths.home() / name
    staged = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        job.connection.fetch(f"{job.folder}/tree/{name}", staged)
        artifacts.put(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def checked(name: str, room: str) -> str:
    """A path that the other machine gave, if it stays in that folder. Raises RunFailed."""
    parts = PurePosixPath(name).parts
    if len(parts) < 2 or parts[0] != room or ".." in parts or name.startswith("/"):
        raise RunFailed(f"the machine named a file outside {room}/: {name!r}; nothing was fetched")
    return name


def again(job: Job) -> str:
    """What to type to fetch a job."""
    return f"lab remote fetch {job.id}"
