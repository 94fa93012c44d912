"""What each memory keeps of a long trace."""

from __future__ import annotations

import pytest

from agents.memory import memories, retrieval, scratchpad, summary, whole, window
from agents.react import Trace, Turn


def trace(count: int) -> Trace:
    return Trace(
        "How many in Bati?",
        [
            Turn(
                f"Thought: t{i}\nAction: search[Town{i}]",
                "search",
                f"Town{i}",
                f"Town{i} is a town. Its population is {100 + i}.",
            )
            for i in range(count)
        ],
    )


@pytest.mark.parametrize("name", ["window", "scratchpad", "summary", "retrieval"])
@pytest.mark.parametrize("budget", [60, 150, 300, 5000])
def test_no_memory_shows_more_than_its_budget(name: str, budget: int) -> None:
    long = trace(12)
    shown = memories(budget)[name](long)
    least = len("Question: How many in Bati?") + len(str(long.turns[-1]))
    assert len(shown) <= max(budget, least)
    assert shown.startswith("Question: How many in Bati?")
    assert shown.split("\n")[0] == "Question: How many in Bati?"


def test_each_keeps_what_it_is_for() -> None:
    long = trace(6)
    assert whole(long) == long.transcript
    assert window(long, 5000) == long.transcript
    assert "Town5" in window(long, 200)
    assert "Town0" not in window(long, 200)
    notes = scratchpad(long, 5000)
    assert notes.count("Thought") == 1
    assert all(f"population is {100 + i}" in notes for i in range(6))
    assert "Town0" not in scratchpad(long, 250)
    facts = summary(long, 5000)
    assert "Town0: 100" in facts
    assert len(facts) < len(notes)
    long.turns[1].observation = "Bati is a town. Its population is 7."
    found = retrieval(long, 260)
    assert "Bati is a town" in found
    assert "Town5" in found
    assert "Town2" not in found


def test_an_empty_trace_is_its_question() -> None:
    for memory in memories(100).values():
        assert memory(trace(0)) == "Question: How many in Bati?"
