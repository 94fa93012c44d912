"""Text for messages."""

from __future__ import annotations

import difflib
import shlex
import subprocess
import sys
from collections.abc import Sequence


def closest(word: str, known: Sequence[str]) -> str:
    """`; did you mean X?` when a known word is near, else the empty string."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def short(value: object, most: int = 60) -> str:
    """A value as it is shown in a message: on one line, and cut when it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def quoted(word: str, platform: str = sys.platform) -> str:
    """A word as it is typed into this system's shell: cmd.exe knows no single quotes."""
    return subprocess.list2cmdline([word]) if platform == "win32" else shlex.quote(word)


def duration(seconds: float) -> str:
    """`4.2 s`, `57 s`, `4 min 30 s`, `2 h 05 min`, `17 h`, `9 days`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 36_000:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{seconds / 3600:.0f} h" if seconds < 360_000 else f"{seconds / 86_400:,.0f} days"


def rough_duration(seconds: float) -> str:
    """`57 s`, `20 min`, `3.6 h` or `9.2 days`: no more digits than an estimate bears."""
    for size, name in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return (
                f"{seconds / size:.2g} {name}"
                if seconds < 10 * size
                else f"{seconds / size:.0f} {name}"
            )
    return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"
