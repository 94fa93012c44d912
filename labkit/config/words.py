"""key=value words of the weeks' small commands, such as `python -m diffusion.sample n=64`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from labkit.errors import UsageError
from labkit.text import closest

T = TypeVar("T")


def read_words(kind: type[T], words: Sequence[str], example: str) -> T:
    """A dataclass `kind` of text fields from key=value words; what is not given has its default.

    Raises UsageError for a word without `=` (it shows `example`) and for a key that is no field,
    naming the nearest.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(
                f"cannot read {word!r}: settings are written key=value, e.g. {example}"
            )
        if key not in known:
            names = ", ".join(known)
            raise UsageError(f"unknown setting {key!r}{closest(key, known)}\nKnown: {names}")
        given[key] = value
    return kind(**given)
