"""The values of a config, checked before a week's own `__post_init__` sees them.

Hydra and OmegaConf convert types, but accept what no week can use: `???` (their mark for a missing
value) instead of a number, nan and infinity, integers of any length. A config that is read back
from a run folder was not checked by them at all.
"""

from __future__ import annotations

import math
import types
import typing
from typing import Any, Literal, get_args, get_origin

from labkit.errors import UsageError
from labkit.text import closest, short

SEEDS = 2**32
"""Seeds are below this, the limit of NumPy and scikit-learn."""
LARGEST = 2**63
"""Integers are below this, which is what a 64-bit number holds."""
MISSING = "???"


def literal_choices(annotation: Any) -> tuple[Any, ...]:
    """The values of a Literal, also inside an Optional; empty for any other type."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(value for part in get_args(annotation) for value in literal_choices(part))
    return ()


def checked(name: str, value: Any, annotation: Any, default: Any = None) -> Any:
    """`value` as the type that the field `name` has: int, float, str, bool, a Literal, a list of
    these, or None where the annotation says so.

    Raises UsageError for another type, a value that is missing, outside its Literal, not finite,
    or too large, and for a seed outside 0 <= seed < 2^32.
    """
    if isinstance(value, str) and value == MISSING:
        raise UsageError(
            f"{name}={MISSING} has no value; type one, such as {name}={typed(default)}"
        )
    if choices := literal_choices(annotation):
        allowed = (*choices, None) if type(None) in get_args(annotation) else choices
        if not any(value is choice or value == choice for choice in allowed):
            raise UsageError(
                f"{name}={short(value)} is not one of {', '.join(map(str, choices))}"
                f"{closest(str(value), [str(choice) for choice in choices])}"
            )
        return value
    if get_origin(annotation) in (typing.Union, types.UnionType):
        if value is None:
            return None
        (annotation,) = (part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is list:
        if not isinstance(value, list):
            raise UsageError(
                f"{name} is a list, such as {name}={typed(default)}, not {_what(value)}"
            )
        (item,) = get_args(annotation)
        return [checked(f"{name}[{i}]", part, item, "...") for i, part in enumerate(value)]
    if annotation is float and type(value) is int:
        value = _as_float(name, value)
    if annotation in (int, float, str, bool) and type(value) is not annotation:
        raise UsageError(f"{name} takes {_KINDS[annotation]}, not {_what(value)}")
    if annotation is int and abs(value) >= LARGEST:
        raise UsageError(f"{name} is too large: {_digits(value)}; type a number below 2^63")
    if annotation is float and not math.isfinite(value):
        raise UsageError(f"{name} must be a finite number, got {value}")
    if name == "seed" and not 0 <= value < SEEDS:
        raise UsageError(f"seed must be from 0 to {SEEDS - 1} (2^32 - 1), got {value}; try seed=0")
    return value


_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
}


def _as_float(name: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise UsageError(f"{name} is too large for a number: {_digits(value)}") from error


def _digits(value: int) -> str:
    """A whole number, or how long it is: Python itself prints no more than 4,300 digits."""
    length = int(value.bit_length() * math.log10(2)) + 1
    return str(value) if length <= 40 else f"about {length} digits"


def _what(value: Any) -> str:
    return "null" if value is None else f"{short(value)!r}"


def typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
