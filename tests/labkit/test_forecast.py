"""What a run says of its own length: from its speed here, and from records of the same work."""

import os
import signal
import time
from typing import Any

import pytest

from labkit.records import store
from labkit.run import forecast
from labkit.run.forecast import Forecast
from tests.conftest import TOY, Lab

CONFIG = {"steps": 2600, "width": 16, "seed": 3, "precision": "fp32", "lr": 1e-3}


def record(seconds: float, steps: int = 2600, **changes: Any) -> dict[str, Any]:
    config = {**CONFIG, "precision": "auto", "seed": 0, **changes.pop("config", {})}
    return {
        "week": "diffusion", "size": "tiny", "steps": steps, "config": config, "ended": "finished",
        "train_seconds": seconds, "data": {"name": "mnist"}, "precision": "bf16",
        "machine": {"device": "cpu", "name": "AMD EPYC", "cores": 2}, **changes,
    }  # fmt: skip


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was said; with a clock that stands still and no records."""
    lines: list[str] = []
    monkeypatch.setattr(forecast, "say", lambda text: lines.extend(text.splitlines()))
    monkeypatch.setattr(store, "read_all", lambda: ([record(270.0)], []))
    return lines


def run(
    monkeypatch: pytest.MonkeyPatch, total: int, seconds: list[float], first: int = 0
) -> Forecast:
    """A forecast that saw steps of these lengths, from `first` on."""
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    watcher = Forecast("diffusion", "tiny", CONFIG, "mnist", first)
    for done, length in enumerate(seconds, first + 1):
        now += length
        watcher.after(done, total)
    return watcher


def test_it_speaks_once_from_its_own_speed(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, 2600, [60.0, 1.0, *[0.5] * 30])  # the first steps load and evaluate
    assert said[0] == (
        "at this speed training takes about 21 min on this machine (0.5 s a step, 2,600 steps)"
    )
    assert "size=smoke" in said[1]
    # 300 s of 1300 s are 600 of 2600 steps.
    assert "steps=600 instead of 2600, for about 5 min 00 s" in said[2]
    assert said[3].split() == "measured: 4 min 30 s on AMD EPYC, bf16, 2 cores".split()
    assert len(said) == 4


def test_it_waits_until_the_speed_can_be_told(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = run(monkeypatch, 2600, [9.0, 9.0, 20.0, 20.0])
    assert not watcher.said  # two steps are too few
    watcher = run(monkeypatch, 10**6, [1.0, 1.0, *[0.1] * 39])
    assert not watcher.said  # so are 3.9 seconds
    assert not said


def test_a_short_run_says_nothing(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, 110, [9.0, 1.0, *[0.5] * 30]).said
    assert not said


def test_a_resumed_run_speaks_of_what_is_left(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, 2600, [5.0, 1.0, *[0.5] * 8], first=2000)
    # 2000 + 2 + 8 are done; 590 steps of half a second are left.
    assert "takes about 4 min 55 s on this machine" in said[0]


def test_what_takes_no_longer_than_others_is_not_called_slow() -> None:
    words = forecast.words("diffusion", "tiny", CONFIG, "mnist", 2600, 290.0)
    assert len([line for line in words if "shorter" in line]) == 0


@pytest.mark.parametrize(
    "other",
    [
        {"week": "attention"},
        {"size": "smoke"},
        {"steps": 99},
        {"ended": "interrupted"},
        {"data": {"name": "digits"}},
        {"data": None},
        {"train_seconds": 0.0},
        {"config": {"width": 8}},
    ],
)
def test_only_the_same_work_is_compared(other: dict[str, Any]) -> None:
    about = ("diffusion", "tiny", CONFIG, "mnist", 2600)
    assert forecast.fastest([record(20.0, **other)], *about) is None
    same = [record(300.0), record(270.0, device="cuda"), record(20.0, **other)]
    assert forecast.fastest(same, *about) is same[1]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"epochs": 10}, "epochs=5 instead of 10"),
        ({"epochs": 2.5}, "epochs=1.25 instead of 2.5"),
        ({"steps": None, "teraflops": 42.0}, "teraflops=21 instead of 42"),
        ({"epochs": 1}, None),  # there is no half of it
        ({}, None),
    ],
)
def test_the_setting_that_decides_the_length_is_named(
    config: dict[str, Any], expected: str | None
) -> None:
    lines = forecast.shorter("smoke", config, 600.0)
    assert len(lines) == (expected is not None)
    assert expected is None or expected in lines[0]


def test_a_run_speaks_while_it_goes_on(lab_run: Lab) -> None:
    """The toy week with steps that would last for minutes; it is stopped when it has spoken."""
    process = lab_run.begin(TOY, "+size=smoke", "steps=100000", "sleep=0.3")
    found = ""
    while not found:
        time.sleep(0.1)
        lines = process.output.read_text().splitlines() if process.output.exists() else []
        found = next((line for line in lines if "at this speed training takes" in line), "")
    os.kill(process.pid, signal.SIGTERM)
    process.wait(60)
    assert "100,000 steps" in found
