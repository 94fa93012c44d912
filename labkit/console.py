"""Short messages to the person at the terminal, on stderr, from the first process only."""

from __future__ import annotations

import os
import sys

from labkit.device import rank


def say(text: str) -> None:
    """A line of information."""
    if rank() == 0:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Something that changes what the numbers mean; meant to be seen."""
    if rank() == 0:
        bold, plain = (
            ("\033[1;33m", "\033[0m")
            if sys.stderr.isatty() and "NO_COLOR" not in os.environ
            else ("", "")
        )
        print(f"{bold}WARNING: {text}{plain}", file=sys.stderr, flush=True)


def fail(text: str) -> None:
    """The one-screen message with which a command gives up."""
    if rank() == 0:
        bold, plain = (
            ("\033[1;31m", "\033[0m")
            if sys.stderr.isatty() and "NO_COLOR" not in os.environ
            else ("", "")
        )
        print(f"{bold}error:{plain} {text}", file=sys.stderr, flush=True)
