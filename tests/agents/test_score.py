"""Exact match and F1 against the steps of SQuAD's published script, and by hand."""

from __future__ import annotations

import random
import string

import pytest

from agents.score import exact_match, f1, normalise


def by_the_script(text: str) -> list[str]:
    """The words that evaluate-v1.1.py compares, letter by letter."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def f1_by_the_script(said: str, wanted: str) -> float:
    """Precision and recall, each word of one text struck off the other once."""
    left, hits = by_the_script(wanted), 0
    for word in by_the_script(said):
        if word in left:
            left.remove(word)
            hits += 1
    if hits == 0:
        return float(not by_the_script(said) and not by_the_script(wanted))
    precision, recall = hits / len(by_the_script(said)), hits / len(by_the_script(wanted))
    return 2 * precision * recall / (precision + recall)


@pytest.mark.exercise("score.normalise")
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Beatles!", "beatles"),
        ("a  cat\tand\nan owl", "cat and owl"),
        ("  ", ""),
        ("", ""),
        ("thesis and other", "thesis and other"),
        ("U.S.A.", "usa"),
        ("it's", "its"),
        ("the-end", "theend"),
        ("An A, the THE", ""),
        ("5.64", "5.64"),
        ("1,234.5", "1,234.5"),
        ("-4", "-4"),
        ("is -4.", "is -4"),
        ("7-4", "74"),
        ("4.", "4"),
        (".5", "5"),
        ("a-4", "a4"),
        ("- 4", "4"),
        ("end. 5", "end 5"),
        ("x.y", "xy"),
        ("5.x", "5x"),
        ("$5.64!", "5.64"),
        ("--4", "4"),
        ("(-4)", "4"),
        ("a.4", "a4"),
        ("The  4", "4"),
        ("Émile", "émile"),
        ("1,2,3", "1,2,3"),
        ("-b", "b"),
        ("\n-12", "-12"),
        ("4 an", "4"),
        ("AN4", "an4"),
        ("here–the–there", "here– –there"),
    ],
)
def test_texts_are_normalised(text: str, wanted: str) -> None:
    assert normalise(text) == wanted


@pytest.mark.exercise("score.normalise")
def test_texts_without_numbers_are_normalised_as_squad_does() -> None:
    rng = random.Random(0)
    words = ["The", "a", "an", "cat's", "sat,", "on", "(the)", "mat.", "-", "A-B", "“quoted”", "?"]
    for _ in range(300):
        text = " ".join(rng.choice(words) for _ in range(rng.randrange(9)))
        assert normalise(text) == " ".join(by_the_script(text)), text


@pytest.mark.exercise("score.f1")
def test_f1_is_that_of_squad() -> None:
    rng = random.Random(1)
    words = ["the", "cat", "cat", "sat", "mat", "on", "a"]
    for _ in range(400):
        said, wanted = (
            " ".join(rng.choice(words) for _ in range(rng.randrange(1, 7))) for _ in range(2)
        )
        assert f1(said, wanted) == pytest.approx(f1_by_the_script(said, wanted))


@pytest.mark.exercise("score.f1")
@pytest.mark.parametrize(
    ("said", "wanted", "score"),
    [
        ("cat cat cat", "cat", 0.5),
        ("cat", "cat cat cat", 0.5),
        ("cat sat", "the sat cat", 1.0),
        ("dog", "cat", 0.0),
        (None, "cat", 0.0),
        (None, "", 0.0),
        ("", "", 1.0),
        ("the", "a", 1.0),
        ("", "cat", 0.0),
        ("cat", "", 0.0),
        ("a b c d", "b c", 0.8),
        ("Cat!", "cat", 1.0),
    ],
)
def test_f1_by_hand(said: str | None, wanted: str, score: float) -> None:
    found = f1(said, wanted)
    assert found == pytest.approx(score)
    assert isinstance(found, float)


def test_exact_match_is_not_fooled_by_numbers() -> None:
    assert exact_match("The answer", "answer") == 1.0
    assert exact_match("564", "5.64") == 0.0
    assert exact_match("4", "-4") == 0.0
    assert exact_match(None, "") == 0.0
    assert exact_match("", "") == 1.0
