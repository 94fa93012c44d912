"""Short messages to the person at the terminal, on stderr, from the first process only."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from labkit.errors import UsageError
from labkit.machine.ranks import rank


def say(text: str) -> None:
    """A line of information."""
    if _first():
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Something that changes what the numbers mean; meant to be seen."""
    _marked("WARNING:", "33", text, all_bold=True)


def fail(text: str) -> None:
    """The one-screen message with which a command fails."""
    _marked("error:", "31", text, all_bold=False)


def _marked(word: str, colour: str, text: str, all_bold: bool) -> None:
    if not _first():
        return
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ and _knows_colours():
        bold, plain = f"\033[1;{colour}m", "\033[0m"
        text = f"{bold}{word} {text}{plain}" if all_bold else f"{bold}{word}{plain} {text}"
    else:
        text = f"{word} {text}"
    print(text, file=sys.stderr, flush=True)


def _knows_colours(platform: str = sys.platform) -> bool:
    """Whether the terminal understands escape sequences: Windows Terminal does, cmd.exe may not."""
    return platform != "win32" or "WT_SESSION" in os.environ


def _first() -> bool:
    try:
        return rank() == 0
    except UsageError:  # RANK is not a number: the message about that must be printed
        return True


class Outliving:
    """A text stream whose reader may close. What is written after that is discarded."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Like the stream's own, but does not fail without a reader."""
        try:
            written: int = self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError):  # a broken pipe, a terminal that is gone, a closed file
            self._let_go()
            return len(text)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._let_go()

    def isatty(self) -> bool:
        try:
            return bool(self._stream.isatty())
        except ValueError:  # closed
            return False

    def _let_go(self) -> None:
        """Point the descriptor at os.devnull: for what is still buffered, and for what libraries
        write without this stream.
        """
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def outlived() -> Iterator[None]:
    """Context: when stdout or stderr closes (`| head -1`, a killed `tee`, a closed terminal), the
    run that writes to it continues.
    """
    before = sys.stdout, sys.stderr
    nowhere = None
    if None in before:  # as under pythonw, or when started with closed descriptors
        nowhere = open(os.devnull, "w")  # noqa: SIM115  (closed below)
    mine = tuple(Outliving(nowhere if stream is None else stream) for stream in before)
    sys.stdout, sys.stderr = mine  # type: ignore[assignment]
    try:
        yield
    finally:
        for stream in mine:
            stream.flush()
        # A library's own replacement stays; ours is removed.
        sys.stdout = before[0] if sys.stdout is mine[0] else sys.stdout  # type: ignore[assignment]
        sys.stderr = before[1] if sys.stderr is mine[1] else sys.stderr  # type: ignore[assignment]
        if nowhere is not None:
            nowhere.close()
