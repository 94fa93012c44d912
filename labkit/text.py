"""Words for people."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def closest(word: str, known: Sequence[str]) -> str:
    """`; did you mean X?` when a known word is near, else the empty string."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def short(value: object, most: int = 60) -> str:
    """A value as it is shown in a message: on one line, and cut when it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."
