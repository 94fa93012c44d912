"""The signals that stop a run, and how they reach the process that saves."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from labkit import paths
from labkit.machine import ranks


def stop_signals() -> list[int]:
    """Signals, beside Ctrl-C, on which a run saves and stops: SIGTERM, and SIGHUP, which is sent
    when the terminal closes, unless it is ignored (`nohup`).
    """
    hangup: int | None = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, hangup]


@contextmanager
def handled(handlers: dict[int, Any]) -> Iterator[None]:
    """Context with these signal handlers."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminate_like_interrupt() -> Iterator[None]:
    """Context in which SIGTERM ends the process as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with handled(dict.fromkeys(stop_signals(), interrupt)):
        yield


def finish(command: Sequence[str]) -> int:
    """Run a command in the clone, wait for its end and return its exit code. Signals that would
    stop this process are passed on to it, so that it can save. Under torchrun it is no rank.
    """
    process = subprocess.Popen(command, cwd=paths.ROOT, env=ranks.alone())

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    handlers: dict[int, Any] = dict.fromkeys(stop_signals(), pass_on)
    # Ctrl-C reaches the child from the terminal itself.
    handlers[signal.SIGINT] = lambda number, frame: None
    with handled(handlers):
        code = process.wait()
    return code if code >= 0 else 128 - code
