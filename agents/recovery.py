"""Tools that fail, and what an agent's host can do before the agent hears of it.

    retry          again, after waiting 0.5 s, 1 s, 2 s ...      for faults that pass
    alternatives   the next tool that can do the same            for faults that stay
    Flaky          a tool that fails with probability p          to measure both

If each call fails with probability p and is tried k times, a trace of n calls succeeds with
probability (1 - p^k)^n: `expected_success`. Without it, long tasks fail first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from agents.tools import Tool
from labkit import exercise

T = TypeVar("T")


class Failed(Exception):
    """A call that failed; `again` says whether the same call may succeed later."""

    def __init__(self, message: str, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


def delays(
    attempts: int, first: float = 0.5, factor: float = 2.0, most: float = 8.0
) -> list[float]:
    """Seconds to wait between `attempts` tries: first, first factor, ..., none above `most`."""
    return [min(most, first * factor**i) for i in range(attempts - 1)]


@exercise(minutes=15)
def retry(
    call: Callable[[], T],
    attempts: int,
    waits: Sequence[float],
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What `call()` returns, tried at most `attempts` times.

    When it raises Failed with `again` true and tries are left, `sleep` is called with the next of
    `waits` (attempts - 1 of them), and `call` again. Failed with `again` false, the Failed of the
    last try, and every other exception go through to the caller, without any sleep after them.
    """
    for attempt in range(attempts - 1):
        try:
            return call()
        except Failed as error:
            if not error.again:
                raise
        sleep(waits[attempt])
    return call()


def persistent(tool: Tool, attempts: int, sleep: Callable[[float], None] = time.sleep) -> Tool:
    """The tool, each call of which is tried up to `attempts` times."""
    waits = delays(attempts)

    def function(**arguments: str) -> str:
        return retry(lambda: tool.function(**arguments), attempts, waits, sleep)

    return replace(tool, function=function)


def alternatives(tool: Tool, *others: Tool) -> Tool:
    """The tool; where it fails, the others in turn with the same arguments by position."""

    def function(**arguments: str) -> str:
        values = list(arguments.values())
        for each in (tool, *others):
            try:
                return each.function(**dict(zip(each.parameters, values, strict=True)))
            except Exception as error:
                last = error
        raise last

    return replace(tool, function=function)


class Flaky:
    """Makes tools fail with a probability, the same way for the same seed."""

    def __init__(self, probability: float, seed: int) -> None:
        self.probability, self.rng = probability, np.random.default_rng((seed, 7))

    def __call__(self, tool: Tool) -> Tool:
        """The tool, which now fails sometimes."""

        def function(**arguments: str) -> str:
            if self.rng.random() < self.probability:
                raise Failed("the server is busy")
            return tool.function(**arguments)

        return replace(tool, function=function)


def expected_success(probability: float, attempts: int, calls: int) -> float:
    """Probability that none of `calls` calls fails in all of its `attempts`."""
    return float((1 - probability**attempts) ** calls)
