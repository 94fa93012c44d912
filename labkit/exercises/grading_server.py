"""The grader's own interpreter: loads the libraries once, then forks a process for every job.

    python -m labkit.exercises.grading_server FOLDER

FOLDER holds plan.json; for each job a line of JSON comes.

It runs longer than every job and what a job started: on Linux processes that left their job's group
(`setsid`, daemons) come to this one as their parent dies, and are ended with the job.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.exercises.grader import Job, read_grade

TIMES = 5.0
"""A job that comes after another may take this many times as long."""

UNKNOWN = 600.0
"""Seconds that a job may take while that other one still runs."""

PR_SET_CHILD_SUBREAPER = 36


@dataclass
class _Running:
    """A job at work; `token` tells its own messages from others."""

    number: int
    job: Job
    process: Any
    pipe: Any
    token: str
    begun: float = field(default_factory=time.monotonic)
    events: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> None:
        """Take what the job has sent so far."""
        try:
            while self.pipe.poll():
                message = json.loads(self.pipe.recv_bytes())
                if isinstance(message, list) and len(message) == 2 and message[0] == self.token:
                    self.events.append(message[1])
        except (EOFError, OSError, ValueError):
            self.pipe.close()

    def deadline(self, took: dict[int, float]) -> float:
        """When it is to be ended, given what other jobs took."""
        if self.job.after is None:
            return self.begun + self.job.seconds
        known = took.get(self.job.after, UNKNOWN / TIMES)
        return self.begun + max(self.job.seconds, TIMES * known)


def serve(folder: Path) -> None:
    """Run the plan in `folder`: a forked process per job, as many at a time as there are cores."""
    import multiprocessing
    from multiprocessing.connection import wait

    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    forks = "fork" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("fork" if forks else "spawn")
    if forks:
        _preload(plan["preload"], folder)
    sys.pycache_prefix = str(folder / "bytecode")  # the tests' own, for all jobs; nothing is left
    sys.dont_write_bytecode = False
    _adopt()
    mine = set(_children())
    jobs = list(enumerate(Job(**job) for job in plan["jobs"]))
    waiting = [(number, job) for number, job in jobs if job.retry_of is None][::-1]
    running: dict[int, _Running] = {}  # by the process's sentinel
    took: dict[int, float] = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        while waiting or running:
            while waiting and len(running) < min(4, os.cpu_count() or 1):
                number, job = waiting.pop()
                started = _start(context, folder, number, job)
                running[started.process.sentinel] = started
            nearest = min(each.deadline(took) for each in running.values())
            pipes = [each.pipe for each in running.values() if not each.pipe.closed]
            wait([*running, *pipes], timeout=max(0.0, nearest - time.monotonic()))
            for sentinel, each in list(running.items()):
                ended = bool(wait([sentinel], timeout=0))
                each.read()
                if not ended and time.monotonic() < each.deadline(took):
                    continue
                if not ended:
                    each.events.append({"timeout": True})
                del running[sentinel]
                _end(each, mine | {r.process.pid for r in running.values()})
                took[each.number] = time.monotonic() - each.begun
                shutil.rmtree(folder / f"copy-{each.number}", ignore_errors=True)
                log = _log(folder, each.number)
                _tell(each.number, each.events, log)
                passed = read_grade(each.events, log).passed
                for retry in (retry for retry in jobs if retry[1].retry_of == each.number):
                    if passed:
                        _tell(retry[0], [{"end": 0.0}], "")
                    else:
                        waiting.append(retry)
    finally:  # interrupted: leave nothing behind
        for each in running.values():
            _end(each, mine)


def _tell(number: int, events: list[dict[str, Any]], log: str) -> None:
    print(json.dumps([number, events, log]), flush=True)


def _preload(statements: list[str], folder: Path) -> None:
    for statement in ["import pytest", *statements]:
        with contextlib.suppress(Exception):  # if it matters, the tests will show it
            exec(statement, {})
    import pytest

    empty = folder / "empty"  # pytest on nothing, which loads all of it
    empty.mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={empty}", str(empty)])
    gc.freeze()  # the forks' garbage collectors ignore what they all share


def _start(context: Any, folder: Path, number: int, job: Job) -> _Running:
    from labkit.exercises import grading_job

    token = secrets.token_hex(16)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=grading_job.work, args=(folder, number, job, sender, token))
    process.start()
    sender.close()
    return _Running(number, job, process, receiver, token)


def _end(each: _Running, others: set[int]) -> None:
    """End a job and whatever it started: its group, and processes that came here from it."""
    with contextlib.suppress(ProcessLookupError, AttributeError):
        os.killpg(each.process.pid, signal.SIGKILL)
    each.process.kill()
    each.process.join()
    each.pipe.close()
    while strays := [pid for pid in _children() if pid not in others]:
        for pid in strays:  # what they started comes here in turn
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _adopt() -> None:
    """Become the parent of processes below whose own parent ends (Linux only)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _children() -> Iterator[int]:
    """Ids of this process's children; none without /proc."""
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, file.read_text().split())


def _log(folder: Path, number: int) -> str:
    """The last line that a job printed."""
    file = folder / f"{number}.log"
    text = file.read_text(encoding="utf-8", errors="replace").strip() if file.exists() else ""
    return text.splitlines()[-1][:200] if text else ""


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
