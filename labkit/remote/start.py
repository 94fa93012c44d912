"""From a command line with `device=ssh://` or `sky://` to its run there and its results here."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

from labkit.config import fields
from labkit.config.schema import RemoteSettings
from labkit.errors import RunFailed, UsageError
from labkit.machine.address import SSH, Sky
from labkit.remote import check, ending, send, transport
from labkit.remote.registry import Job
from labkit.remote.transport import Connection, NotReached
from labkit.run import folders
from labkit.run.errand import Errand
from labkit.show.console import say

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def start(errand: Errand) -> int:
    """Do what the errand asks; returns the exit code of the run there, 130 when it was stopped or
    left alone.

    Raises UsageError when it cannot be done, before anything has begun.
    """
    settings = errand.config.remote
    variables = named_variables(settings.env)
    check_words(settings)
    transport.need_tools()
    if isinstance(errand.address, Sky):
        from labkit.remote import cloud

        return cloud.start_run(errand, variables)
    connection = Connection(errand.address, settings.ssh_config, settings.accept_new)
    job, about = examine(errand, connection, folders.new_name())
    begin(errand, job, about, variables)
    return ending.watch(job, detach=settings.detach)


def named_variables(names: list[str]) -> dict[str, str]:
    """The variables that `remote.env` names. Raises UsageError for one that is not set here."""
    for name in names:
        if not _VARIABLE.fullmatch(name):
            raise UsageError(
                f"remote.env takes names of variables, such as [WANDB_API_KEY]: {name}"
            )
        if name not in os.environ:
            raise UsageError(
                f"remote.env names {name}, which is not set here; type: export {name}=..."
            )
    return {name: os.environ[name] for name in names}


def check_words(settings: RemoteSettings) -> None:
    """Raises UsageError for settings that cannot be meant."""
    if settings.data is not None and settings.data != "send" and not settings.data.startswith("/"):
        raise UsageError(
            f"remote.data={settings.data} must be send, or a whole path there such as /data"
        )
    folder = settings.folder
    if not transport.SAFE_PATH.fullmatch(folder) or folder.startswith("-"):
        raise UsageError(
            f"remote.folder={folder} must be a plain path there: letters, digits and _ . / - only"
        )
    if settings.ssh_config is not None and not os.path.isfile(settings.ssh_config):
        raise UsageError(f"remote.ssh_config={settings.ssh_config} is not a file")


def examine(errand: Errand, connection: Connection, name: str) -> tuple[Job, dict[str, Any]]:
    """The job that would be made, and what its machine is. Raises UsageError when it is not fit."""
    settings = errand.config.remote
    where = connection.address.host
    say(f"asking {where} what it is ...")
    about = check.ask(connection, settings.folder, settings.python)
    torch = errand.program.backend == "torch"
    needs = check.Needs(
        torch, torch and errand.full_size and errand.program.needs_gpu, settings.python
    )
    check.judge(about, where, needs)
    job = Job(
        id=name, device=str(errand.address), week=errand.program.week,
        words=[*errand.words, "device=auto"], folder=f"{about['base']}/runs/{name}",
        python=about["python"], started=time.time(), ssh_config=settings.ssh_config,
        accept_new=settings.accept_new,
        host=connection.address.host if isinstance(errand.address, Sky) else None,
    )  # fmt: skip
    return job, about


def begin(errand: Errand, job: Job, about: dict[str, Any], variables: dict[str, str]) -> None:
    """Send everything, and start the run, or leave it to a queue of jobs.

    Raises UsageError when that cannot be done; then nothing of it stays there.
    """
    job.save()  # from here on something of ours is there
    try:
        todo = _send(errand, job, about)
        verb = "start" if isinstance(errand.address, SSH) else "prepare"
        job.ask(verb, json.dumps({**todo, "env": variables}))
    except (NotReached, RunFailed) as error:
        discard(job)
        raise UsageError(f"{error}\nThe run was not started.") from error
    except (UsageError, KeyboardInterrupt):
        discard(job)
        raise


def _send(errand: Errand, job: Job, about: dict[str, Any]) -> dict[str, Any]:
    """Send tree, data and run folder; returns what is to be done there."""
    settings, base = errand.config.remote, about["base"]
    send.tree(job, about["before"])
    if settings.data == "send":
        send.data_sets(job, base, fields.flat(errand.config))
    if errand.folder is not None:
        there = send.run_folder(job, errand.folder, about["before"])
        job.words.append(f"resume={there}")
        job.save()
    gpus = about["gpus"] if errand.program.backend == "torch" else []
    return {
        "week": job.week,
        "words": job.words,
        "python": settings.python,
        "environment": check.requirements_hash(),
        "requirements": check.requirements(),
        "data": f"{base}/data" if settings.data == "send" else settings.data,
        "gpu": bool(gpus),
        "driver": gpus[0]["driver"] if gpus else "",
    }


def discard(job: Job) -> None:
    """Remove what was sent for a run that did not begin, as far as the machine can be reached."""
    try:
        job.connection.remove(job.folder)
    except (NotReached, UsageError, RunFailed):
        job.state = "not started"
        job.save()
        return
    job.forget()
