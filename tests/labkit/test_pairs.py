"""Sentence pairs and instructions: what is generated is right, and what is held out is new."""

from __future__ import annotations

import gzip
import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from labkit.data import DataError, Instruction, InstructionData, ParallelData, load, registry
from labkit.data.sets import instructions, pairs

LAB_DATA = os.environ.get("LAB_DATA")
needs_data = pytest.mark.skipif(
    not LAB_DATA, reason="set LAB_DATA to a folder with the real datasets"
)
VALUES = {word: value for value, word in enumerate(pairs.UNITS)} | {
    word: 10 * value for value, word in enumerate(pairs.TENS) if value > 1
}


def value(text: str) -> int:
    """The number that English words say, read word by word: another way than they were written."""
    total = part = 0
    for word in text.replace("-", " ").split():
        if word == "thousand":
            total, part = 1000 * part, 0
        elif word == "hundred":
            part *= 100
        else:
            part += VALUES[word]
    return total + part


def test_number_words_say_their_number() -> None:
    some = [*range(1200), *range(1999, 999_999, 4567), 100_000, 999_999]
    assert [value(pairs.words(n)) for n in some] == some
    assert pairs.words(0) == "zero"
    assert pairs.words(21_040) == "twenty-one thousand forty"
    data = load("numbers", kind=ParallelData)
    assert all(value(words) == int(digits) for digits, words in data.train + data.test)


def test_dates_are_what_the_calendar_says() -> None:
    """strptime reads the forms that it knows; the others are checked on days known by hand."""
    readable = ["%d %B %Y", "%B %d, %Y", "%d %b %Y", "%A, %B %d, %Y", "the %dth of %B, %Y"]
    day = datetime(1969, 7, 20).date()
    forms = [form(day) for form in pairs.DATE_FORMS]
    for text, pattern in zip(forms, readable, strict=False):
        assert datetime.strptime(text, pattern).date() == day
    assert forms[5:] == [
        "20.7.1969",
        "July 20th in the year one thousand nine hundred sixty-nine",
    ]
    assert [pairs.ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30, 31)] == (
        "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 23rd 30th 31st".split()
    )


@pytest.mark.parametrize("name", ["dates", "numbers"])
def test_what_is_held_out_is_never_trained_on(name: str) -> None:
    data = load(name, kind=ParallelData)
    answers = [{target for _, target in split} for split in (data.train, data.valid, data.test)]
    assert data.sizes() == {"train": 20_000, "valid": 1_000, "test": 1_000}
    assert len(set.union(*answers)) == 22_000, "a date is held out in all its forms"


def test_commands_have_right_answers_and_fresh_inputs() -> None:
    data = load("commands", kind=InstructionData)
    inputs = [{row.input for row in split} for split in (data.train, data.valid, data.test)]
    assert sum(map(len, inputs)) == len(set.union(*inputs)) == 8_800
    rows = {row.instruction: row for row in data.test}
    assert len(rows) == 8
    for row in data.test:  # said differently than the generator says it
        words, found = row.input.split(), row.output
        right = {
            "Repeat the words.": found == row.input,
            "Write the words in reverse order.": found.split()[::-1] == words,
            "Write the first word.": row.input.startswith(found) and found in words,
            "Write the last word.": row.input.endswith(found) and found in words,
            "Write the words in capital letters.": found.isupper() and found.lower() == row.input,
            "Sort the words from A to Z.": sorted(words) == found.split(),
            "Count the words.": int(found) == row.input.count(" ") + 1
            if found.isdigit()
            else False,
            "Join the words with commas.": found.replace(",", "") == row.input
            and found.count(",") == len(words) - 1,
        }
        assert right[row.instruction], row


def test_alpaca_rows_with_the_same_instruction_stay_together() -> None:
    rows = [Instruction(f"Do {i // 3}", f"{i}", "yes" if i % 7 else "") for i in range(900)]
    splits = instructions.split_rows(rows)
    assert sum(map(len, splits.values())) == sum(bool(row.output) for row in rows)
    texts = [{row.instruction for row in split} for split in splits.values()]
    assert sum(map(len, texts)) == len(set.union(*texts))
    assert all(5 <= len(splits[split]) < 90 for split in ("valid", "test"))
    assert splits["train"][0] == Instruction("Do 0", "1", "yes"), "row 0 had no output"


def test_altered_copies_are_refused(tmp_path: Path) -> None:
    (tmp_path / "alpaca").mkdir()
    raw = gzip.compress(json.dumps([{"instruction": "a", "input": "", "output": "b"}]).encode())
    (tmp_path / "alpaca" / "random_9k.json.gz").write_bytes(raw)
    with pytest.raises(DataError, match="not the published file"):
        instructions.read_alpaca(tmp_path)
    (tmp_path / "alpaca" / "alpaca_52k.json.gz").write_bytes(raw)
    with pytest.raises(DataError, match="has 1 rows, Alpaca has 52,002"):
        instructions.read_alpaca(tmp_path)
    (tmp_path / "multi30k").mkdir()
    for file in pairs.MULTI30K_SHA256:
        (tmp_path / "multi30k" / file).write_bytes(raw)
    with pytest.raises(DataError, match="not the published file"):
        pairs.read_multi30k(tmp_path)


@needs_data
def test_real_pairs_and_instructions() -> None:
    registry._load.cache_clear()
    data = load("multi30k", kind=ParallelData)
    assert data.sizes() == {"train": 29_000, "valid": 1_014, "test": 1_000}
    assert data.languages == ("German", "English")
    assert data.test[0][1] == "A man in an orange hat starring at something."
    alpaca = load("alpaca", kind=InstructionData)
    total = sum(alpaca.sizes().values())
    assert total == {"alpaca_9k": 9_229 - 4}.get(alpaca.name, total)
    assert all(row.output for row in alpaca.train + alpaca.valid + alpaca.test)
