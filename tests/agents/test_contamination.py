"""N-gram overlap against brute force; exposure against ranks counted by hand."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from agents.contamination import canary, contaminated, exposure, words


def by_brute_force(test: str, training: list[str], n: int) -> bool:
    mine = words(test)
    n = min(n, len(mine))
    if n == 0:
        return False
    for text in training:
        theirs = words(text)
        for i, j in itertools.product(range(len(mine) - n + 1), range(len(theirs) - n + 1)):
            if mine[i : i + n] == theirs[j : j + n]:
                return True
    return False


@pytest.mark.exercise("contamination.contaminated")
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_overlap_is_that_of_brute_force(n: int) -> None:
    rng = random.Random(n)

    def text(longest: int) -> str:
        return " ".join(rng.choice("abcd") for _ in range(rng.randrange(longest)))

    for _ in range(60):
        tests, training = [text(8) for _ in range(5)], [text(9) for _ in range(3)]
        wanted = [by_brute_force(test, training, n) for test in tests]
        assert contaminated(tests, training, n) == wanted
        assert contaminated(tests, iter(training), n) == wanted


@pytest.mark.exercise("contamination.contaminated")
def test_thirteen_words_are_needed_and_they_must_be_of_one_text() -> None:
    thirteen = " ".join(f"w{i}" for i in range(13))
    other = f"x {thirteen} y"
    assert contaminated([thirteen, other], [f"a {thirteen} b"]) == [True, True]
    twelve = " ".join(thirteen.split()[:12])
    assert contaminated([f"{twelve} other words"], [f"{thirteen}"]) == [False]
    assert contaminated([thirteen], thirteen.split()) == [False]
    assert contaminated([thirteen], [twelve, "w12"]) == [False]
    assert contaminated([twelve], [thirteen]) == [True], "a short test counts as a whole"
    assert contaminated([thirteen], [twelve]) == [False], "not the other way round"
    assert contaminated(["W0, w1! (w2)"], ["w0 w1 w2"], 3) == [True]
    assert contaminated(["w2 w1 w0"], ["w0 w1 w2"], 3) == [False]
    assert contaminated(["a b", "c d e"], ["x a b", "c d"], 3) == [True, False]
    assert contaminated(["", "?!"], ["", "a"]) == [False, False]
    assert contaminated(["", "a"], ["b"], 3) == [False, False], "no words are no gram of a text"
    assert contaminated([], ["a"]) == []
    assert contaminated(["a"], []) == [False]
    found = contaminated(["a b c d"], ["c d"], 2)
    assert found == [True], "the last n-gram counts"
    assert type(found[0]) is bool


@pytest.mark.exercise("contamination.exposure")
def test_exposure_is_bits_gained_over_guessing() -> None:
    others = [float(i) for i in range(1, 64)]
    assert exposure(0.5, others) == pytest.approx(6.0)
    assert exposure(1.5, others) == pytest.approx(5.0)
    assert exposure(100.0, others) == pytest.approx(0.0)
    assert exposure(1.0, others) == pytest.approx(6.0), "an equal loss is not lower"
    assert exposure(3.0, others) == pytest.approx(6 - math.log2(3))
    assert exposure(1.0, []) == 0.0
    shuffled = random.Random(0).sample(others, len(others))
    assert exposure(3.0, shuffled) == pytest.approx(6 - math.log2(3))
    rng = random.Random(3)
    mean = (
        sum(exposure(rng.random(), [rng.random() for _ in range(63)]) for _ in range(3000)) / 3000
    )
    assert mean == pytest.approx(1.38, abs=0.1)  # log2(64) - mean of log2(1), ..., log2(64)


def test_canaries_are_unlike_and_are_found() -> None:
    assert canary(1) == canary(1) != canary(2)
    assert contaminated([canary(1)], [f"before {canary(1)} after"]) == [True]
    assert contaminated([canary(1)], [canary(2)]) == [False]
