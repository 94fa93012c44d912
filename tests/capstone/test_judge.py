"""Shares, verdicts and win rates, against scipy and by brute force."""

from __future__ import annotations

import itertools

import pytest
from scipy.stats import binomtest

from capstone import judge
from capstone.judge import Answer


def test_half_successes_lie_between_whole_ones() -> None:
    low, middle, high = (judge.Share.of(s, 9) for s in (4, 4.5, 5))
    assert middle == pytest.approx((0.5, 1 - middle.high, middle.high))
    assert low.low < middle.low < high.low


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (-0.5, 5), (5.5, 5), (1, -1)])
def test_what_is_no_share_is_refused(successes: float, count: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        judge.Share.of(successes, count)


@pytest.mark.exercise("judge.prefer")
@pytest.mark.parametrize(
    ("reference", "first", "second", "expected"),
    [
        ("a red fox", "A red fox!", "fox", 1),
        ("a red fox", "fox", "A red fox!", -1),
        ("red fox", "fox", "dog", 1),
        ("red fox", "dog", "the fox", -1),
        ("red fox", "dog", "cat", 0),
        ("red fox", "red fox", "Red Fox.", 0),
        ("red fox", "", "", 0),
        ("fox red", "red fox", "fox red", -1),
    ],
)
def test_the_better_text_is_preferred(
    reference: str, first: str, second: str, expected: int
) -> None:
    for sources in itertools.product(("tune", "quantise"), repeat=2):
        found = judge.prefer(reference, Answer(first, sources[0]), Answer(second, sources[1]))
        assert found == expected


@pytest.mark.exercise("judge.prefer")
def test_where_an_answer_stands_and_whose_it_is_has_no_influence() -> None:
    texts = ["fox", "red fox", "a dog", ""]
    for a, b in itertools.product(texts, texts):
        first, second = Answer(a, "aligned"), Answer(b, "quantise")
        assert judge.prefer("red fox", first, second) == -judge.prefer("red fox", second, first)


@pytest.mark.exercise("judge.win_rate")
def test_a_pair_is_won_only_if_both_orders_agree() -> None:
    assert judge.win_rate([(1, -1)]).value == 1
    assert judge.win_rate([(-1, 1)]).value == 0
    for pair in itertools.product((1, 0, -1), repeat=2):
        if pair not in ((1, -1), (-1, 1)):
            assert judge.win_rate([pair]).value == 0.5, pair


@pytest.mark.exercise("judge.win_rate")
def test_the_interval_is_that_of_wins_and_half_the_ties() -> None:
    verdicts = [(1, -1)] * 5 + [(-1, 1)] * 2 + [(0, 0)] * 2 + [(1, 1)]
    theirs = judge.win_rate(verdicts)
    assert theirs.value == pytest.approx(0.65)
    low = binomtest(6, 10).proportion_ci(method="wilson").low
    high = binomtest(7, 10).proportion_ci(method="wilson").high
    assert low < theirs.low < theirs.value < theirs.high < high
    assert judge.win_rate([(1, -1)] * 10)[1:] == pytest.approx(
        tuple(binomtest(10, 10).proportion_ci(method="wilson"))
    )


@pytest.mark.exercise("judge.win_rate")
def test_a_judge_that_likes_the_first_place_gives_one_half() -> None:
    assert judge.win_rate([(1, 1)] * 7).value == 0.5
    assert judge.win_rate([(-1, -1)] * 7).value == 0.5
    with pytest.raises(ValueError, match=r"."):
        judge.win_rate([])


def test_compare_shows_both_orders() -> None:
    ours, theirs = [Answer("fox", "a"), Answer("x", "a")], [Answer("cat", "b"), Answer("x", "b")]
    assert judge.compare(["fox", "y"], ours, theirs) == [(1, -1), (0, 0)]


def test_a_share_is_shown_with_its_interval() -> None:
    assert str(judge.Share.of(5, 10)) == "50.0 % (95 % interval 23.7 to 76.3)"
