"""Intervals, agreement and the recovered gap against scipy, scikit-learn and closed forms."""

import pytest

from ai_safety import cohen_kappa, gap_recovered, wilson_interval


@pytest.mark.exercise("measures.wilson_interval")
@pytest.mark.parametrize(("successes", "cases"), [(0, 7), (7, 7), (3, 11), (1, 1), (190, 200)])
@pytest.mark.parametrize(("level", "z"), [(0.95, 1.959964), (0.99, 2.575829)])
def test_wilson_is_scipys(successes: int, cases: int, level: float, z: float) -> None:
    from scipy.stats import binomtest

    expected = binomtest(successes, cases).proportion_ci(level, method="wilson")
    assert wilson_interval(successes, cases, z) == pytest.approx(
        (expected.low, expected.high), abs=1e-6
    )


@pytest.mark.exercise("measures.wilson_interval")
def test_wilson_ends_are_shares() -> None:
    for cases in range(1, 60):
        assert wilson_interval(0, cases)[0] == pytest.approx(0, abs=1e-12)
        assert wilson_interval(0, cases)[0] >= 0
        assert wilson_interval(cases, cases)[1] <= 1
    assert isinstance(wilson_interval(3, 5), tuple)
    assert wilson_interval(3, 5) == wilson_interval(3, 5, 1.959964)  # 95 % when left out


@pytest.mark.exercise("measures.wilson_interval")
@pytest.mark.parametrize(("successes", "cases"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses(successes: int, cases: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        wilson_interval(successes, cases)


@pytest.mark.exercise("measures.cohen_kappa")
@pytest.mark.parametrize(
    ("first", "second"),
    [("aabbc", "abbbc"), ("ab", "ba"), ("aaab", "aaaa"), ("abcabc", "abcabc"), ("aab", "ccb")],
)
def test_kappa_is_scikit_learns(first: str, second: str) -> None:
    from sklearn.metrics import cohen_kappa_score

    expected = cohen_kappa_score(list(first), list(second))
    assert cohen_kappa(first, second) == pytest.approx(expected)


@pytest.mark.exercise("measures.cohen_kappa")
@pytest.mark.parametrize(("first", "second"), [("", ""), ("ab", "a"), ("aa", "aa")])
def test_kappa_refuses(first: str, second: str) -> None:
    with pytest.raises(ValueError, match="labels"):
        cohen_kappa(first, second)


@pytest.mark.exercise("measures.gap_recovered")
def test_gap_recovered_has_its_ends_and_goes_beyond_them() -> None:
    assert gap_recovered(0.6, 0.6, 0.9) == 0
    assert gap_recovered(0.6, 0.9, 0.9) == 1
    assert gap_recovered(0.5, 0.6, 0.9) == pytest.approx(0.25)
    assert gap_recovered(0.6, 0.5, 0.8) == pytest.approx(-0.5)


@pytest.mark.exercise("measures.gap_recovered")
@pytest.mark.parametrize("ceiling", [0.6, 0.5])
def test_no_gap_is_refused(ceiling: float) -> None:
    with pytest.raises(ValueError, match="no gap"):
        gap_recovered(0.6, 0.7, ceiling)
