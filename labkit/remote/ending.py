"""The end of a run elsewhere: follow it, bring home what it made, and say what is left to do."""

from __future__ import annotations

import time

from labkit.errors import RunFailed
from labkit.remote import fetch, skypilot
from labkit.remote.follow import Detached, follow
from labkit.remote.registry import FETCHED, Job
from labkit.remote.transport import NotReached, Refused
from labkit.show.console import fail, say, warn

LOST = (
    "the run left no exit code there: the machine was restarted, or everything of it was killed. "
    "Its last checkpoint is fetched"
)


def watch(job: Job, detach: bool = False, offset: int = 0) -> int:
    """Follow a run to its end and fetch it; returns its exit code, 130 when it was left alone."""
    say(f"{job.id} runs on {job.device}; if this window closes: lab remote attach {job.id}")
    if detach:
        return 0
    try:
        follow(job, offset)
    except Detached as error:
        return left(job, str(error))
    except (Refused, RunFailed) as error:
        fail(f"{error}\nThe run may still be at work: lab remote attach {job.id}")
        return 1
    return conclude(job)


def left(job: Job, why: str) -> int:
    """The run goes on and nobody watches."""
    say(f"\n{why}: {job.id} goes on there. To follow it again: lab remote attach {job.id}")
    say(f"To stop it: lab remote stop {job.id}")
    return 130


def conclude(job: Job) -> int:
    """Fetch a run that has ended, as far as the machine can be reached; returns its exit code."""
    try:
        about = job.ask("state")
        job.state, job.rc = about["state"], about["rc"]
        fetch.fetch(job)
    except (NotReached, Refused, RunFailed) as error:
        fail(f"{error}\nThe run has ended; its files are still there. Type: {fetch.again(job)}")
        job.save()
        return 1
    code = job.rc
    if code is None:
        warn(LOST)
        code = 1
    elif code > 128 and code != 130:
        killed = code - 128
        warn(f"the run was killed there by signal {killed}{' (out of memory?)' * (killed == 9)}")
        code = 1
    job.state, job.ended = FETCHED, job.ended or time.time()
    job.save()
    if job.cluster is not None:
        skypilot.down(job)
    elif job.device.startswith("ssh:"):
        say(f"{job.device} is still on; if you rent it, end it at your provider when you are done")
    return code
