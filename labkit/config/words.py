"""key=value words of the weeks' small commands, such as `python -m diffusion.sample n=64`."""

from __future__ import annotations

import math
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


def whole_number(name: str, text: str, least: int | None = None, most: int | None = None) -> int:
    """`text` as a whole number from `least` to `most`. Raises UsageError when it is not one."""
    value = _number(name, text, int, "a whole number", least, most)
    return int(value)


def real_number(
    name: str, text: str, least: float | None = None, most: float | None = None
) -> float:
    """`text` as a finite number from `least` to `most`. Raises UsageError when it is not one."""
    return _number(name, text, float, "a number", least, most)


def _number(
    name: str, text: str, kind: type[int] | type[float], what: str,
    least: float | None, most: float | None,
) -> float:  # fmt: skip
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    try:
        value = float(kind(text))
    except ValueError:
        value = math.nan
    if math.isfinite(value) and low <= value <= high:
        return kind(text)
    if least is None:
        bounds = "" if most is None else f" of at most {most:g}"
    else:
        bounds = f" of at least {least:g}" if most is None else f" from {least:g} to {most:g}"
    raise UsageError(f"{name}={text}: {what}{bounds} is needed")
