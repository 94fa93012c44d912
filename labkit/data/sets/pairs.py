"""Sentence pairs: Multi30k in German and English, and two sets that need no download.

`dates` and `numbers` are made here, from a fixed seed. Every source is in one split only, and a
date is held out in all of its forms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from labkit.data.fetch import download
from labkit.data.files import decode, unzip
from labkit.data.kinds import DataError, Pairs, ParallelData
from labkit.data.sets.images import source_of

MULTI30K_URL = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56/data/task1/raw/"
MULTI30K_FILES = {
    "train": ("train", 29_000),
    "valid": ("val", 1_014),
    "test": ("test_2016_flickr", 1_000),
}
"""Name of each split's files, and its pairs."""
MULTI30K_SHA256 = {
    "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
}
GENERATED = {"train": 20_000, "valid": 1_000, "test": 1_000}
"""Pairs of `dates` and of `numbers`."""

UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
FIRST_DAY, DAYS = date(1900, 1, 1), 73_049
"""`dates` are those of 1900 to 2099."""


def read_multi30k(folder: Path) -> ParallelData | None:
    """Multi30k (Elliott et al. 2016), German to English: multi30k/{train,val,test_2016_flickr}."""
    root = folder / "multi30k"
    if not all((root / file).is_file() for file in MULTI30K_SHA256):
        return None

    def lines(file: str) -> list[str]:
        raw = (root / file).read_bytes()
        if hashlib.sha256(raw).hexdigest() != MULTI30K_SHA256[file]:
            raise DataError(
                f"{root / file} is not the published file (SHA-256 differs): replace or remove it"
            )
        text = decode(unzip(root / file), root / file)
        return [line.strip() for line in text.split("\n")[:-1]]

    splits: dict[str, Pairs] = {}
    for split, (stem, count) in MULTI30K_FILES.items():
        sources, targets = lines(f"{stem}.de.gz"), lines(f"{stem}.en.gz")
        if not len(sources) == len(targets) == count:
            raise DataError(
                f"{root}/{stem}.de.gz has {len(sources):,} lines and {stem}.en.gz "
                f"{len(targets):,}, Multi30k has {count:,} in each: remove the folder"
            )
        splits[split] = tuple(zip(sources, targets, strict=True))
    return ParallelData("multi30k", source_of(folder), ("German", "English"), **splits)


def fetch_multi30k(folder: Path) -> None:
    for file, sha256 in MULTI30K_SHA256.items():
        download(MULTI30K_URL + file, folder / file, sha256)


def words(number: int) -> str:
    """English words of a number from 0 to 999,999: 1,042 is `one thousand forty-two`."""
    if number >= 1000:
        rest = number % 1000
        return f"{words(number // 1000)} thousand" + (f" {words(rest)}" if rest else "")
    if number >= 100:
        rest = number % 100
        return f"{UNITS[number // 100]} hundred" + (f" {words(rest)}" if rest else "")
    if number < 20:
        return UNITS[number]
    return TENS[number // 10] + (f"-{UNITS[number % 10]}" if number % 10 else "")


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ... 11th, 12th, 13th, ..., 31st."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number in (11, 12, 13) else ending}"


def _month(day: date) -> str:
    """Its English name, in any locale."""
    return MONTHS[day.month - 1]


DATE_FORMS: tuple[Callable[[date], str], ...] = (
    lambda day: f"{day.day} {_month(day)} {day.year}",
    lambda day: f"{_month(day)} {day.day}, {day.year}",
    lambda day: f"{day.day} {_month(day)[:3]} {day.year}",
    lambda day: f"{WEEKDAYS[day.weekday()]}, {_month(day)} {day.day}, {day.year}",
    lambda day: f"the {ordinal(day.day)} of {_month(day)}, {day.year}",
    lambda day: f"{day.day}.{day.month}.{day.year}",
    lambda day: f"{_month(day)} {ordinal(day.day)} in the year {words(day.year)}",
)
"""The ways in which `dates` writes a day."""


def dates() -> ParallelData:
    """Dates of two centuries in seven English forms, to be written as ISO 8601: 1987-03-03."""

    def pair(index: int, rng: np.random.Generator) -> tuple[str, str]:
        day = FIRST_DAY + timedelta(days=index)
        return DATE_FORMS[rng.integers(len(DATE_FORMS))](day), day.isoformat()

    return _generated("dates", ("English", "ISO 8601"), DAYS, pair)


def numbers() -> ParallelData:
    """Numbers below a million in digits, to be written in English words."""
    return _generated(
        "numbers",
        ("digits", "English"),
        1_000_000,
        lambda index, _: (str(index), words(index)),
    )


def _generated(
    name: str,
    languages: tuple[str, str],
    things: int,
    pair: Callable[[int, np.random.Generator], tuple[str, str]],
) -> ParallelData:
    """Each example is drawn once, and so is in one split only."""
    rng = np.random.default_rng(0)
    drawn = rng.permutation(things)[: sum(GENERATED.values())]
    pairs = [pair(int(index), rng) for index in drawn]
    splits: dict[str, Pairs] = {}
    for split, count in GENERATED.items():
        splits[split], pairs = tuple(pairs[:count]), pairs[count:]
    return ParallelData(name, "embedded", languages, **splits)
