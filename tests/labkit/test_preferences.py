"""Preferences: the generated set and its judge, and the readers of published ones."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from labkit.data import DataError, Preference, PreferenceData, load, registry
from labkit.data.sets import preferences, replies

LAB_DATA = os.environ.get("LAB_DATA")
needs_data = pytest.mark.skipif(
    not LAB_DATA, reason="set LAB_DATA to a folder with the real datasets"
)
ORDER = "name two birds and one tool ?"


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("gladly owl , crow , saw . thanks", 3),
        ("owl , crow , saw", 2),
        ("saw , owl , crow . cheers", 3),
        ("certainly owl , saw", 1 + 4 / 3),
        ("owl , owl , saw", 2 / 3),
        ("owl , crow , heron , saw", 4 / 3),
        ("owl , crow , apple", 2 / 3),
        ("nonsense owl , crow , saw", 1),
        ("nonsense owl , crow , saw . thanks", 2),
        ("apple , pear , plum , lemon", -2),
        ("", 0),
        ("gladly gladly gladly thanks owl , crow , saw", 2),
        ("name owl , crow , saw", 1),
    ],
)
def test_the_judge_by_hand(answer: str, score: float) -> None:
    assert replies.score(ORDER, answer) == pytest.approx(score)


def test_orders() -> None:
    assert replies.asked(ORDER) == {"bird": 2, "tool": 1}
    assert replies.asked("anna wants three metals ?") == {"metal": 3}
    assert replies.score("anna wants two birds ?", "nonsense owl , owl , saw") == -2
    with pytest.raises(ValueError, match="no order"):
        replies.asked("what is the time ?")
    assert len(set(replies.WORDS)) == len(replies.WORDS)


def test_generated_pairs_are_preferred_by_the_judge_and_held_out() -> None:
    data = load("replies", kind=PreferenceData)
    assert data.sizes() == {"train": 12_000, "valid": 600, "test": 1_000}
    for row in data.valid + data.test:
        gap = replies.score(row.prompt, row.chosen) - replies.score(row.prompt, row.rejected)
        assert gap >= replies.LEAST_GAP
    prompts = [{row.prompt for row in split} for split in (data.train, data.valid, data.test)]
    assert sum(map(len, prompts)) == len(set.union(*prompts)), "a prompt is in one split only"
    assert all(len(found) > 15 for found in prompts)
    words = Counter(
        word for row in data.train for text in vars(row).values() for word in text.split()
    )
    assert set(words) == set(replies.WORDS)
    longest = max(len(text.split()) for row in data.test for text in (row.chosen, row.rejected))
    assert longest < 24


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Preference("a", "b", " b "), "row 1 of its test split has two equal answers"),
        (Preference(" ", "b", "c"), "row 1 of its test split has an empty text \\(prompt\\)"),
        (Preference("a", "", "c"), "empty text \\(chosen\\)"),
    ],
)
def test_rows_that_say_nothing_are_refused_by_number(row: Preference, said: str) -> None:
    good = Preference("secret words", "x", "y")
    data = PreferenceData("mine", "test", (good,), (good,), (good, row))
    with pytest.raises(DataError, match=said) as error:
        data.check()
    assert "secret" not in str(error.value)
    with pytest.raises(DataError, match="its valid split is empty"):
        PreferenceData("mine", "test", (good,), (), (good,)).check()


def test_splitting_leaves_out_rows_without_a_preference() -> None:
    rows = [Preference(f"p{i // 3}", "a", "a" if i % 5 == 0 else "b") for i in range(600)]
    splits = preferences.split(rows)
    assert sum(map(len, splits.values())) == 480
    prompts = [{row.prompt for row in split} for split in splits.values()]
    assert sum(map(len, prompts)) == len(set.union(*prompts))
    assert all(20 < len(splits[name]) < 90 for name in ("valid", "test"))


def test_altered_copies_are_refused(tmp_path: Path) -> None:
    for file, read in (
        (preferences.HH, preferences.read_hh),
        (preferences.DEMO, preferences.read_demo),
        (preferences.POLITE, preferences.read_polite),
    ):
        assert read(tmp_path) is None
        path = tmp_path / "preference" / file.path
        path.parent.mkdir(parents=True)
        raw = json.dumps([]).encode()
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
        with pytest.raises(DataError, match="not the published file"):
            read(tmp_path)


@needs_data
def test_published_preferences() -> None:
    registry._load.cache_clear()
    sizes = {}
    for name in ("hh_harmless", "dpo_demo", "polite"):
        data = load(name, kind=PreferenceData)
        sizes[name] = sum(data.sizes().values())
        prompts = [{row.prompt for row in split} for split in (data.train, data.valid, data.test)]
        assert sum(map(len, prompts)) == len(set.union(*prompts))
        assert all(row.prompt.endswith("\n\nAssistant:") for row in data.train)
        assert not any("\n\nHuman:" in row.chosen for row in data.train)
    assert sizes == {"hh_harmless": 2_303, "dpo_demo": 300, "polite": 1_094}
