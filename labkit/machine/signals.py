"""The signals that stop a run, and how they reach the process that saves."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from labkit import paths
from labkit.machine import ranks


def stop_signals() -> list[int]:
    """Signals, beside Ctrl-C, on which a run saves and stops: SIGTERM, and the one that is sent
    when the terminal closes, unless it is ignored (`nohup`). That is SIGHUP, on Windows SIGBREAK,
    which comes from Ctrl-Break, too.
    """
    closing: int | None = getattr(signal, "SIGHUP", getattr(signal, "SIGBREAK", None))
    if closing is None or signal.getsignal(closing) is signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, closing]


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


def finish(
    command: Sequence[str],
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    platform: str = sys.platform,
) -> int:
    """Run a command in `folder`, the clone when None, wait for its end and return its exit code.
    Signals that would stop this process are passed on to it, so that it can save. Under torchrun it
    is no rank.
    """
    process = subprocess.Popen(command, cwd=folder or paths.ROOT, env=ranks.alone(environment))

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    def heard_already(number: int, frame: FrameType | None) -> None:
        """Ctrl-C reaches the child from the terminal itself, on Windows all that stops it does."""

    stops = stop_signals()
    handlers: dict[int, Any] = dict.fromkeys(
        stops, heard_already if platform == "win32" else pass_on
    )
    handlers[signal.SIGINT] = heard_already
    with handled(handlers):
        code = process.wait()
    return code if code >= 0 else 128 - code
