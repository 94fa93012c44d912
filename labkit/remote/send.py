"""What goes to the rented machine: the working tree as git sees it, data sets and a run folder."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.data.registry import REAL
from labkit.errors import UsageError
from labkit.records import versions
from labkit.remote.registry import Job
from labkit.run import folders
from labkit.show.console import say, warn

NOT_COPIED = ("--exclude=run.lock", "--exclude=/code/__pycache__")


def listed(root: Path) -> list[str]:
    """Files of the working tree: tracked and new ones; not what git ignores, nor what is deleted.

    Raises UsageError outside a git checkout.
    """
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root, capture_output=True, check=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        raise UsageError(
            f"the working tree is sent as git sees it, and {root} is no git checkout "
            f"({said.decode(errors='replace').strip()}); get the lab by git clone"
        ) from error
    names = sorted({os.fsdecode(name) for name in done.stdout.split(b"\0")})
    return [name for name in names if name and (root / name).is_file()]


def tree(job: Job, before: str | None) -> None:
    """Send the working tree, and what a record says of its commit.

    `before` is the folder of another run there: files that it has, too, are not sent again.
    """
    names = listed(paths.ROOT)
    say(f"sending the working tree ({len(names):,} files) ...")
    target = f"{job.folder}/tree"
    job.connection.make(target)
    link = [f"--link-dest={before}/tree"] if before else []
    job.connection.send(paths.ROOT, target, *link, files=names)
    with tempfile.TemporaryDirectory() as folder:
        origin = Path(folder) / versions.ORIGIN
        origin.write_text(json.dumps(versions.git_state()), encoding="utf-8")
        job.connection.send(Path(folder), target)


def run_folder(job: Job, folder: Path, before: str | None) -> str:
    """Send a run folder that is to be resumed there; returns its path there, below the tree.

    Raises UsageError when it is not in runs/, or in use here.
    """
    try:
        inside = folder.relative_to(paths.runs())
    except ValueError as error:
        raise UsageError(
            f"{folder} is not below {paths.runs()}; only a run from there is resumed elsewhere"
        ) from error
    if folders.in_use(folder):
        raise UsageError(f"{folder} is in use: stop that run first (Ctrl-C lets it save)")
    there = f"runs/{inside.as_posix()}"
    say(f"sending {there} ...")
    job.connection.make(f"{job.folder}/tree/{there}")
    copy = [f"--copy-dest={before}/tree/{there}"] if before else []
    job.connection.send(folder, f"{job.folder}/tree/{there}", *copy, *NOT_COPIED)
    return there


def named_sets(values: Mapping[str, Any]) -> list[str]:
    """The data sets that settings name, which are files: those of the registry."""
    found = (
        one for value in values.values() for one in (value if type(value) is list else [value])
    )
    return sorted({one for one in found if isinstance(one, str) and one in REAL})


def data_sets(job: Job, base: str, values: Mapping[str, Any]) -> None:
    """Send the sets that the settings name and this machine has, into the folder data/ there."""
    for name in named_sets(values):
        found = places(name)
        if not found:
            warn(f"{name} is not on this machine, so it is not sent; it is downloaded there")
        for folder in found:
            say(f"sending {name} ({folder.name}) ...")
            target = f"{base}/data/{folder.name}"
            job.connection.make(target)
            job.connection.send(folder, target)


def places(name: str) -> list[Path]:
    """The folder in which a set is on this machine: that of the first data folder that has it."""
    entry = REAL[name]
    for folder in paths.data_folders():
        for inside in filter(None, (entry.folder, entry.sample)):
            if (folder / inside).is_dir():
                return [folder / inside]
    return []
