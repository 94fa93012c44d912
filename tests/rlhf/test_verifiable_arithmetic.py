"""Sums as tokens against Python's own strings; the judge against a list of wrong answers."""

from __future__ import annotations

import numpy as np
import pytest

from labkit import RunFailed, UsageError
from rlhf.verifiable.arithmetic import (
    END,
    PAD,
    SPLITS,
    SYMBOLS,
    VOCABULARY,
    Addition,
    find_judge,
    is_correct,
    score,
    split_of,
)


@pytest.mark.exercise("verifiable.arithmetic.is_correct")
@pytest.mark.parametrize(("a", "b"), [(47, 85), (10, 10), (99, 99), (0, 0), (3, 4), (700, 305)])
def test_the_exact_sum_is_right_in_its_order_only(a: int, b: int) -> None:
    said = str(a + b)
    assert is_correct(said, a, b, False) == 1.0
    assert is_correct(said[::-1], a, b, True) == 1.0
    palindrome = said == said[::-1]
    assert is_correct(said, a, b, True) == float(palindrome)
    assert is_correct(said[::-1], a, b, False) == float(palindrome)
    assert isinstance(is_correct(said, a, b, False), float)


@pytest.mark.exercise("verifiable.arithmetic.is_correct")
@pytest.mark.parametrize(
    "said",
    ["", "1", "13", "32", "0132", " 132", "132 ", "+132", "1_32", "132.", "132.0", "1132", "1322",
     "132132", "47+85", "133", "-132", "132\n", "१३२", "one"],
)  # fmt: skip
@pytest.mark.parametrize("units_first", [False, True])
def test_anything_else_is_wrong_and_no_error(said: str, units_first: bool) -> None:
    assert is_correct(said[::-1] if units_first else said, 47, 85, units_first) == 0.0


@pytest.mark.parametrize("order", ["units_first", "plain"])
@pytest.mark.parametrize(("digits", "longest"), [(1, 3), (2, 4), (2, 7), (3, 5)])
def test_tokens_say_what_python_says(digits: int, order: str, longest: int) -> None:
    task = Addition(digits, order, longest)  # type: ignore[arg-type]
    pairs = task.pairs("test")
    prompts, answers = task.prompts(pairs), task.answers(pairs)
    assert prompts.shape == (len(pairs), task.prompt_length)
    assert answers.shape == (len(pairs), longest)
    letters = [*SYMBOLS, "<end>", "<pad>", "<mask>"]
    for (a, b), prompt, answer in zip(pairs.tolist(), prompts, answers, strict=True):
        assert "".join(letters[i] for i in prompt) == f"{a}+{b}="
        total = str(a + b) if order == "plain" else str(a + b)[::-1]
        ends = ["<end>"] * (longest - len(total))
        assert [letters[i] for i in answer] == [*total, *ends]
    said = task.text(answers)
    judge = find_judge("strict", task.order)
    assert score(judge, said, pairs).tolist() == [1.0] * len(pairs)
    assert score(judge, said, pairs + 1).tolist() == [0.0] * len(pairs)


def test_tokens_are_those_of_week_7() -> None:
    from rlhf.verifiable.weights import tokenizer

    found = tokenizer()
    assert len(found) == VOCABULARY
    assert (
        found(text="47+85=")["input_ids"]
        == Addition(2, "plain", 4).prompts(np.array([[47, 85]])).tolist()[0]
    )
    assert (found.eos_token_id, found.pad_token_id) == (END, PAD)


def test_text_stops_at_the_first_end_and_shows_strange_tokens() -> None:
    one, plus = SYMBOLS.index("1"), SYMBOLS.index("+")
    rows = np.array([[one, END, one, one], [END, one, one, one], [PAD, one, plus, one]])
    assert Addition(2, "plain", 4).text(rows) == ["1", "", "?1+1"]


@pytest.mark.parametrize("digits", [1, 2])
def test_splits_share_no_sum_even_turned_around(digits: int) -> None:
    task = Addition(digits, "plain", 6)
    found = {split: {tuple(sorted(p)) for p in task.pairs(split).tolist()} for split in SPLITS}
    count = {split: len(task.pairs(split)) for split in SPLITS}
    for split in SPLITS:
        assert len({tuple(p) for p in task.pairs(split).tolist()}) == count[split]
    assert not found["test"] & (found["train"] | found["valid"])
    assert not found["valid"] & found["train"]
    numbers = 90 if digits == 2 else 10
    assert sum(count.values()) == numbers**2
    if digits == 2:
        assert 0.08 < count["test"] / numbers**2 < 0.12
        assert 0.08 < count["valid"] / numbers**2 < 0.12
    assert (task.pairs("train") == task.pairs("train")).all()


def test_the_split_is_by_the_pair_and_not_by_its_sum() -> None:
    pairs = np.array([[a, 150 - a] for a in range(60, 91)])
    assert len(set(split_of(pairs).tolist())) == 3


def test_the_digest_tells_the_way_of_writing() -> None:
    digests = {
        Addition(2, "plain", 6).digest(), Addition(2, "units_first", 6).digest(),
        Addition(2, "plain", 7).digest(), Addition(1, "plain", 6).digest(),
    }  # fmt: skip
    assert len(digests) == 4
    assert Addition(2, "plain", 6).digest() in digests


def test_an_answer_needs_room() -> None:
    with pytest.raises(UsageError, match=r"longest=3 has no room .* type longest=4 or more"):
        Addition(2, "plain", 3)


def bad_judge(written: str, a: int, b: int) -> float:
    """For the command line as well: raises for an empty answer, and is NaN for another."""
    return {"7": float("nan"), "8": float("inf")}.get(written, 1.0 / len(written))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("", r"the judge raised ZeroDivisionError for the answer '' to 3\+4"),
        ("7", r"the judge gave nan for the answer '7' to 3\+4; a reward must be a finite number"),
        ("8", "the judge gave inf"),
    ],
)
def test_a_judge_that_fails_is_named_with_its_answer(said: str, message: str) -> None:
    with pytest.raises(RunFailed, match=message):
        score(bad_judge, ["12", said], np.array([[1, 2], [3, 4]]))


def test_a_judge_may_give_partial_rewards_and_gets_both_numbers() -> None:
    seen = []

    def judge(written: str, a: int, b: int) -> float:
        seen.append((written, a, b))
        return 0.25

    assert score(judge, ["x", "y"], np.array([[1, 2], [3, 4]])).tolist() == [0.25, 0.25]
    assert seen == [("x", 1, 2), ("y", 3, 4)]
    assert all(type(number) is int for row in seen for number in row[1:])
    assert score(judge, [], np.empty((0, 2), np.int64)).shape == (0,)


@pytest.mark.parametrize("name", ["lenient", "no_such_module:f", "math:no_such", "math:pi", ""])
def test_a_judge_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="type judge=strict"):
        find_judge(name, "plain")


def test_a_judge_of_ones_own_is_found() -> None:
    assert find_judge("math:hypot", "plain") is __import__("math").hypot
