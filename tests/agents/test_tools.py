"""Tools never raise, never hang, and never are called unless they are in the box."""

from __future__ import annotations

import os
import time

import pytest

from agents.calculator import calculate
from agents.recovery import (
    Failed,
    Flaky,
    alternatives,
    delays,
    expected_success,
    persistent,
    retry,
)
from agents.tools import LONGEST, Tool, Toolbox, one_line


def hang(query: str) -> str:
    """For a process of its own, so at the top of a module."""
    if query == "hang":
        time.sleep(600)
    if query == "die":
        os._exit(3)
    if query == "raise":
        raise KeyError(query)
    return f"{query} by {os.getpid()}"


CALCULATOR = Tool("calculate", "arithmetic", calculate, {"expression": "an expression"})


def test_calls_are_checked_against_the_schema() -> None:
    box = Toolbox([CALCULATOR])
    assert box.call("calculate", {"expression": "6*7"}).text == "42"
    assert box.call_text("calculate", "6*7").ok
    for arguments, said in (
        ({}, "error: calculate needs the argument 'expression'"),
        ({"expression": 3}, "error: calculate: the argument 'expression' must be a text"),
        (
            {"expression": "1", "expresion": "2"},
            "error: calculate has no argument 'expresion'; did",
        ),
    ):
        found = box.call("calculate", arguments)
        assert found.text.startswith(said)
        assert not found.ok
    assert box.call("calculate", {"expression": "1/0"}).text == "error: division by zero"
    assert box.call("calculat", {}).text.startswith("error: there is no tool 'calculat'")
    assert Toolbox([]).call("x", {}).text.endswith("the tools are: none")
    assert CALCULATOR.schema["required"] == ["expression"]
    assert CALCULATOR.schema["properties"]["expression"]["type"] == "string"
    with pytest.raises(ValueError, match="same name"):
        Toolbox([CALCULATOR, CALCULATOR])


def test_observations_are_one_line_and_short() -> None:
    long = Tool("long", "", lambda query: "word\n" * 100_000)
    text = Toolbox([long]).call_text("long", "").text
    assert len(text) <= LONGEST
    assert "\n" not in text
    assert text.endswith(" ...")
    assert one_line("a\r\n b\tc\u2028d") == "a b c d"
    assert one_line("x" * 10, 10) == "x" * 10
    assert one_line("x" * 11, 10) == "xxxxxx ..."


def test_a_tool_that_hangs_is_ended_and_the_next_call_works() -> None:
    with Toolbox([Tool("hang", "", hang)], timeout=0.5, isolated=True) as box:
        first = box.call_text("hang", "hello")
        assert first.text.startswith("hello by ")
        worker = box.worker
        assert worker is not None
        assert worker.process is not None
        old = worker.process
        assert first.text != f"hello by {os.getpid()}", "in a process of its own"
        begin = time.perf_counter()
        stuck = box.call_text("hang", "hang")
        assert time.perf_counter() - begin < 5
        assert stuck.text == "error: hang gave no answer within 0.5 s and was stopped"
        assert not old.is_alive()
        box.timeout = 10.0
        assert box.call_text("hang", "raise").text == "error: 'raise'"
        assert "died" in box.call_text("hang", "die").text
        again = box.call_text("hang", "again")
        assert again.ok
        process = worker.process
    assert not process.is_alive()


def test_a_tool_that_cannot_be_sent_to_another_process_says_so() -> None:
    with Toolbox([Tool("local", "", lambda query: query)], isolated=True) as box:
        said = box.call_text("local", "x")
    assert not said.ok
    assert "local cannot be sent to a process of its own" in said.text


class Scripted:
    """Fails as often as told, then answers."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.calls = list(failures), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= len(self.failures):
            raise self.failures[self.calls - 1]
        return f"answer {self.calls}"


@pytest.mark.exercise("recovery.retry")
@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_call_is_repeated_until_it_succeeds(failures: int) -> None:
    call, slept = Scripted(*[Failed(f"busy {i}") for i in range(failures)]), []
    waits = [0.5, 1.0, 2.0]
    assert retry(call, 4, waits, slept.append) == f"answer {failures + 1}"
    assert slept == [0.5, 1.0, 2.0][:failures]
    assert call.calls == failures + 1
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.exercise("recovery.retry")
@pytest.mark.parametrize(
    ("attempts", "failures", "calls"),
    [
        (3, [Failed("0"), Failed("1"), Failed("2"), Failed("3")], 3),
        (5, [Failed("0"), Failed("1", again=False), Failed("2")], 2),
        (2, [Failed("0"), Failed("1", again=False)], 2),
        (3, [ValueError("a bug"), Failed("1")], 1),
        (3, [Failed("0"), KeyError("a bug"), Failed("2")], 2),
        (1, [Failed("0")], 1),
        (1, [Failed("0", again=False)], 1),
    ],
)
def test_a_call_is_not_repeated_when_it_cannot_help(
    attempts: int, failures: list[Exception], calls: int
) -> None:
    call, slept = Scripted(*failures), []
    waits = [1.0 + i for i in range(attempts - 1)]
    with pytest.raises(Exception) as caught:
        retry(call, attempts, waits, slept.append)
    assert caught.value is failures[calls - 1], "the last one goes through as it is"
    assert call.calls == calls
    assert slept == waits[: calls - 1]


def test_waits_double_up_to_a_limit() -> None:
    assert delays(1) == []
    assert delays(7) == [0.5, 1, 2, 4, 8, 8]


def test_success_with_flaky_tools_is_what_the_formula_says() -> None:
    calls, trials, p = 3, 2000, 0.4
    for attempts in (1, 3):
        flaky = Flaky(p, seed=attempts)
        box = Toolbox([persistent(flaky(CALCULATOR), attempts, lambda seconds: None)])
        good = sum(
            all(box.call_text("calculate", "1+1").ok for _ in range(calls)) for _ in range(trials)
        )
        wanted = expected_success(p, attempts, calls)
        assert good / trials == pytest.approx(
            wanted, abs=4 * (wanted * (1 - wanted) / trials) ** 0.5
        )
    assert expected_success(0.5, 1, 2) == 0.25


def test_another_tool_steps_in() -> None:
    bad = Tool("first", "", Flaky(1.0, 0)(CALCULATOR).function, {"query": "text"})
    both = alternatives(bad, CALCULATOR)
    assert both.name == "first"
    assert Toolbox([both]).call_text("first", "2+3").text == "5"
    assert "busy" in Toolbox([alternatives(bad, bad)]).call_text("first", "2").text
