"""Watching the steps of a run from outside, as `lab plan` does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Protocol


class Observer(Protocol):
    """Watches the steps of a run, which then writes nothing; `lab plan` has one."""

    def begin(self, run: Any, total: int, tracked: dict[str, Any]) -> None:
        """The loop is about to start: everything is built and tracked."""

    def chosen(self, first: int, total: int) -> Sequence[int]:
        """The steps to take, in their order, of `first` to `total` - 1."""

    def before(self, step: int) -> None:
        """A step starts."""

    def after(self, step: int) -> bool:
        """A step is over; True when enough has been seen."""


_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


@contextlib.contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Runs that are made in here are watched, write nothing, and end in ProbeDone."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def watched() -> bool:
    """Whether a run made now would be watched."""
    return _observer.get() is not None


def current() -> Observer | None:
    """The observer of runs made now."""
    return _observer.get()
