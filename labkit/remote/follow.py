"""Watching a run that is elsewhere: its log here as it grows, over lost lines, until it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator
from types import FrameType
from typing import Any, TextIO

from labkit.errors import RunFailed
from labkit.machine.signals import handled
from labkit.remote.registry import Job
from labkit.remote.transport import NotReached
from labkit.show.console import say, warn
from labkit.show.tracking import PROGRESS, Progress
from labkit.text import duration

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the first try to reach a machine again; it doubles up to the longest."""
PATIENCE = 3600.0
"""Seconds of tries, one after the other without success, after which nobody is waiting."""


class Detached(Exception):
    """Nobody watches any more; the run goes on there."""


class Reader:
    """Takes a log as it comes, in pieces, and shows it: lines as they are, progress as a bar."""

    def __init__(self, out: TextIO | None = None, bars: bool = True) -> None:
        """`out` is stderr when None. Without `bars`, progress is left out."""
        self._out, self._bars = out, bars
        self._rest = b""
        self._bar: Progress | None = None

    def feed(self, block: bytes) -> None:
        """A piece of the log; the last line of it may be incomplete."""
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            self._show(line.decode(errors="replace"))

    def close(self) -> None:
        """Show what is left, and take the bar away."""
        if self._rest:
            self._show(self._rest.decode(errors="replace"))
        self._rest = b""
        self._end_bar()

    def _show(self, line: str) -> None:
        if line.startswith(PROGRESS):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if self._bars:
                    self._progress(json.loads(line.removeprefix(PROGRESS)))
            return
        print(line, file=self._out or sys.stderr, flush=True)

    def _progress(self, said: dict[str, Any]) -> None:
        if self._bar is None or self._bar.title != said["title"]:
            self._end_bar()
            self._bar = Progress(said["title"], said["total"], said["done"])
        self._bar.show(said["metrics"])
        self._bar.update(said["done"])
        if said["closed"]:
            self._end_bar()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class Waits:
    """Seconds to wait before the next try, more each time; `reset` after a success."""

    def __init__(self) -> None:
        self._next = FIRST_WAIT
        self._since: float | None = None

    def reset(self) -> None:
        """The machine answers."""
        self._next, self._since = FIRST_WAIT, None

    def pause(self, why: str) -> None:
        """Say why, and wait. Raises Detached when that has been going on for too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            warn(f"{why}\nThe run goes on there. Trying again, at longer and longer intervals ...")
        if now - self._since > PATIENCE:
            raise Detached(f"not reached for {duration(PATIENCE)}")
        time.sleep(self._next)
        self._next = min(2 * self._next, LONGEST_WAIT)


def follow(job: Job, offset: int = 0) -> bool:
    """Show the log of a job from a byte on, until the run has ended.

    Ctrl-C stops the run there, which saves its state, and its end is awaited; a second one, and
    SIGTERM or SIGHUP, leave it alone. Returns whether it was stopped so. Raises Detached, Refused,
    and RunFailed when the machine does not have the run.
    """
    reader, waits = Reader(), Waits()
    asked, told = False, True
    try:
        with _detaching():
            while True:
                try:
                    try:
                        if not told:
                            job.ask("stop")
                            told = True
                        with contextlib.closing(_blocks(job, offset)) as blocks:
                            for block in blocks:
                                offset += len(block)
                                reader.feed(block)
                                waits.reset()
                        return asked
                    except NotReached as error:
                        waits.pause(str(error))
                except KeyboardInterrupt:
                    if asked:
                        raise Detached("Ctrl-C for the second time") from None
                    asked, told = True, False
                    say("\nstopping the run there; it saves its state. Ctrl-C again: leave it ...")
    finally:
        reader.close()


def _blocks(job: Job, offset: int) -> Generator[bytes, None, None]:
    """The log from a byte on, in pieces, until the run's end. Raises NotReached, Refused,
    RunFailed.
    """
    process = job.connection.popen(*job.script, "follow", job.folder, str(offset))
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        while block := os.read(process.stdout.fileno(), 1 << 16):
            yield block
        said = process.stderr.read().decode(errors="replace").strip()
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
        process.stderr.close()
    if code == 255:
        raise job.connection.fault(said)
    if code < 0 or code > 128:
        raise NotReached(f"the line to {job.device} was lost")
    if code:
        raise RunFailed(f"{job.id} cannot be followed on {job.device}: {said[-1000:]}")


@contextlib.contextmanager
def _detaching() -> Iterator[None]:
    """Context in which SIGTERM and SIGHUP raise Detached: the end of this process is no reason to
    end the run.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        raise Detached(signal.Signals(number).name)

    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)
    with handled({signal.SIGTERM: leave, hangup: leave}):
        yield
