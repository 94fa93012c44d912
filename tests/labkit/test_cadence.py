"""Looks at intervals that double."""

import pytest

from labkit.run.cadence import Doubling


def looks(cadence: Doubling, times: list[float]) -> list[float]:
    return [seconds for seconds in times if cadence.due(seconds)]


def test_intervals_double() -> None:
    times = [0.5 * i for i in range(1000)]
    assert looks(Doubling(30.0), times) == [30.0, 60.0, 120.0, 240.0, 480.0]


def test_a_step_longer_than_the_interval_brings_one_look() -> None:
    assert looks(Doubling(30.0), [200.0, 201.0, 239.0, 240.0]) == [200.0, 240.0]


@pytest.mark.parametrize(
    ("begun", "expected"), [(0.0, 30.0), (29.9, 30.0), (30.0, 60.0), (100.0, 120.0)]
)
def test_a_resumed_run_does_not_look_again(begun: float, expected: float) -> None:
    assert looks(Doubling(30.0, begun), [begun + 0.1 * i for i in range(1000)])[0] == pytest.approx(
        expected, abs=0.11
    )
