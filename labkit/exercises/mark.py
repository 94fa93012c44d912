"""The mark of an exercise: `@exercise(minutes=15)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def exercise(minutes: int) -> Callable[[F], F]:
    """Mark a function as an exercise of about this many minutes; it is returned unchanged."""
    if not isinstance(minutes, int):
        raise TypeError("write @exercise(minutes=15): an exercise states its minutes")

    def mark(function: F) -> F:
        function.__exercise__ = minutes  # type: ignore[attr-defined]
        return function

    return mark
