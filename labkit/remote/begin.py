"""Beginning a run elsewhere: is the machine fit, what is sent, and the word to start."""

from __future__ import annotations

import json
import time
from typing import Any

from labkit.config import fields
from labkit.errors import RunFailed, UsageError
from labkit.machine.address import SSH, Sky
from labkit.remote import check, send
from labkit.remote.registry import Job
from labkit.remote.transport import Connection, NotReached
from labkit.run.errand import Errand
from labkit.show.console import say


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
