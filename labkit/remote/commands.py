"""`lab remote list | attach | logs | stop | fetch | cleanup`."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from labkit.errors import RunFailed, UsageError
from labkit.remote import ending, fetch, skypilot, spot
from labkit.remote.follow import Reader
from labkit.remote.registry import FETCHED, Job, find, jobs
from labkit.remote.transport import NotReached, Refused
from labkit.show.console import say, warn
from labkit.text import duration

ANSWER_SECONDS = 15.0
STOP_SECONDS = 900.0
"""How long `stop` waits for a run to save and end."""
ALIVE = ("queued", "environment", "running")
WORDS = {
    "queued": "about to start",
    "environment": "making its environment",
    "running": "running",
    "lost": "ended without an exit code",
    FETCHED: "fetched",
}


def list_jobs() -> int:
    """Print what runs elsewhere, with the cost so far; each machine is asked."""
    from rich.console import Console
    from rich.table import Table

    known = jobs()
    if not known:
        print("nothing was started on a rented machine from here")
        return 0
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(_state, known))
    table = Table(box=None, pad_edge=False)
    for column in ("run", "machine", "command", "state", "since", "cost so far"):
        table.add_column(column, overflow="fold")
    for job, state in zip(known, states, strict=True):
        since = duration((job.ended or time.time()) - job.started)
        cost = "not known" if job.cost is None else f"${job.cost:.2f}"
        table.add_row(job.id, job.device, job.command, state, since, cost)
    Console().print(table)
    if rented := [job for job in known if job.cluster is not None]:
        say(f"{len(rented)} machine(s) of SkyPilot cost money now; to end one: lab remote stop RUN")
    return 0


def _state(job: Job) -> str:
    """The state of a job in words; a machine that does not answer is said to be so."""
    if not job.is_open:
        return f"{WORDS[FETCHED]}, exit {job.rc}"
    if job.managed_job is not None:
        return spot.state(job)
    try:
        about: dict[str, Any] = job.ask("state", seconds=ANSWER_SECONDS)
    except (NotReached, Refused) as error:
        return f"not reached ({str(error).splitlines()[0]})"
    except RunFailed:
        return "its folder is not there any more"
    job.state, job.rc = about["state"], about["rc"]
    job.save()
    said = about["progress"]
    if about["state"] == "running" and said:
        return f"running, step {said['done']:,} of {said['total']:,}"
    if about["state"] == "ended":
        return f"ended, exit {job.rc}; type: lab remote fetch {job.id}"
    return WORDS.get(about["state"], about["state"])


def attach(beginning: str | None) -> int:
    """Follow a run again, from the last lines of its log on, and fetch it when it ends."""
    job = find(beginning)
    if not job.is_open:
        raise UsageError(f"{job.id} has ended and is fetched; its log: lab remote logs {job.id}")
    if job.managed_job is not None:
        return spot.watch(job)
    log_bytes = _reached(job, "state")["log_bytes"]
    return ending.watch(job, offset=max(0, log_bytes - 4000))


def logs(beginning: str | None, whole: bool) -> int:
    """Print the log of a run as far as it goes: its last lines, or all."""
    job = find(beginning)
    if job.managed_job is not None:
        return spot.logs(job, follow=False)
    about = _reached(job, "state")
    start = 0 if whole else max(0, about["log_bytes"] - 4000)
    text: bytes = job.connection.read(f"{job.folder}/log", start)
    reader = Reader(sys.stdout, bars=False)
    reader.feed(text)
    reader.close()
    return 0


def stop(beginning: str | None) -> int:
    """Let a run save and end, fetch it, and give its machine back."""
    job = find(beginning)
    if job.managed_job is not None:
        return spot.stop(job)
    code = 0
    try:
        if not job.folder:
            raise UsageError(f"{job.id} never began")
        about = _reached(job, "stop")
        if about["state"] in ALIVE:
            say(f"{job.id} saves its state and ends ...")
        _wait_for_end(job, about["state"])
        code = ending.conclude(job) if job.is_open else 0
    except (UsageError, RunFailed) as error:
        warn(str(error))
        code = 1
    if job.cluster is not None:  # whatever happened: nothing is left running silently
        skypilot.down(job)
    return 0 if code == 130 else code


def _wait_for_end(job: Job, state: str) -> None:
    end = time.monotonic() + STOP_SECONDS
    while state in ALIVE:
        if time.monotonic() > end:
            raise RunFailed(f"{job.id} has not ended; see what it does: lab remote attach {job.id}")
        time.sleep(0.5)
        state = job.ask("state")["state"]


def fetch_job(beginning: str | None) -> int:
    """Copy what a run has made so far; one that has ended is done with then."""
    job = find(beginning)
    if job.managed_job is not None:
        return spot.fetch(job)
    about = _reached(job, "state")
    if about["state"] in ALIVE:
        fetch.fetch(job)
        say(f"{job.id} is still at work; fetch it again when it has ended")
        return 0
    code = ending.conclude(job)
    return 0 if job.state == FETCHED else code


def cleanup(beginning: str | None, every: bool) -> int:
    """Remove runs that have ended from their machines, and from the list here.

    One run; or all that are fetched, and with `every` those that are not fetched, too.
    """
    chosen = [find(beginning)] if beginning else [job for job in jobs() if every or not job.is_open]
    kept = 0
    for job in chosen:
        if job.cluster is not None or (job.managed_job is not None and job.is_open):
            warn(f"{job.id} may still be at work; type first: lab remote stop {job.id}")
            kept += 1
            continue
        try:
            if job.managed_job is not None:
                spot.remove(job)
                gone = True
            else:
                gone = job.ask("state")["state"] not in ALIVE
                if gone:
                    job.connection.remove(job.folder)
        except (NotReached, Refused, RunFailed) as error:
            warn(f"{job.id} is off the list; its files were not removed there: {error}")
            gone = True
        if gone:
            job.forget()
            say(f"removed {job.id} ({job.device})")
        else:
            warn(f"{job.id} is at work; type first: lab remote stop {job.id}")
            kept += 1
    if not chosen:
        say("nothing to remove; runs that are not fetched yet: lab remote cleanup --all")
    return 1 if kept else 0


def _reached(job: Job, verb: str) -> dict[str, Any]:
    """An answer about a job. Raises UsageError when its machine is not reached."""
    try:
        if job.cluster is not None:
            skypilot.wake(job)
        answer: dict[str, Any] = job.ask(verb)
    except NotReached as error:
        raise UsageError(f"{error}\nThe run may still be at work there.") from error
    return answer
