"""From a command line with `device=ssh://` or `sky://` to its run there and its results here."""

from __future__ import annotations

import os
import re
import time

from labkit.config.schema import RemoteSettings
from labkit.errors import UsageError
from labkit.machine.address import SSH, Sky
from labkit.remote import begin, ending, skypilot, spot, transport
from labkit.remote.registry import Job
from labkit.remote.transport import Connection
from labkit.run import folders
from labkit.run.errand import Errand

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
        return on_rented(errand, errand.address, variables)
    connection = Connection(errand.address, settings.ssh_config, settings.accept_new)
    job, about = begin.examine(errand, connection, folders.new_name())
    begin.begin(errand, job, about, variables)
    return ending.watch(job, detach=settings.detach)


def on_rented(errand: Errand, address: Sky, variables: dict[str, str]) -> int:
    """Rent a machine through SkyPilot, make the run on it, fetch it, and give the machine back.

    Nothing is rented before the price was confirmed, and a machine is in the registry (`lab remote
    list`) before it is asked for.
    """
    sky, settings = skypilot.library(), errand.config.remote
    if address.spot:
        return spot.start(sky, errand, address, variables)
    price = skypilot.offer(sky, address)
    skypilot.confirm(settings.yes)
    name = folders.new_name()
    job = Job(
        name, str(address), errand.program.week, list(errand.words), "", "", time.time(),
        cluster=f"lab-{name[-8:]}", usd_per_hour=price,
    )  # fmt: skip
    job.save()
    try:
        task = skypilot.machine(sky, address, skypilot.CEILING * price)
        skypilot.rent(sky, job, task, settings.idle_minutes)
        host = SSH(skypilot.alias(str(job.cluster)))
        connection = Connection(host, settings.ssh_config, managed=True)
        found, about = begin.examine(errand, connection, name)
        job.folder, job.python, job.words = found.folder, found.python, found.words
        job.host, job.ssh_config = job.cluster, settings.ssh_config
        begin.begin(errand, job, about, variables)
        skypilot.queue(sky, job, variables)
    except BaseException:
        skypilot.down(job)
        if job.cluster is None:
            job.forget()
        raise
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
