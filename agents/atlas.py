"""A small encyclopedia of countries and towns that do not exist.

Their names are drawn anew, so that no language model can know a fact by heart: what an agent
answers it must have read. Names of tests never occur in training (a hash decides).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


@dataclass(frozen=True)
class Town:
    """A town with its number of inhabitants."""

    name: str
    country: str
    population: int
    more: str = ""
    """What else the page says, which no question asks for."""

    @property
    def page(self) -> str:
        fact = f"{self.name} is a town in {self.country}. Its population is {self.population}."
        return fact + self.more


@dataclass(frozen=True)
class Country:
    """A country and its capital."""

    name: str
    capital: Town
    more: str = ""

    @property
    def page(self) -> str:
        return f"{self.name} is a country. Its capital is {self.capital.name}.{self.more}"


def split_of(name: str) -> str:
    """`test` for a fifth of all names, `train` for the others."""
    return "train" if zlib.crc32(name.encode()) % 5 else "test"


def draw_name(rng: np.random.Generator, split: str) -> str:
    """A name of three syllables that belongs to the split."""
    while True:
        name = "".join(SYLLABLES[i] for i in rng.integers(len(SYLLABLES), size=3)).capitalize()
        if split_of(name) == split:
            return name


def draw_town(rng: np.random.Generator, split: str, country: str | None = None) -> Town:
    """A town of 10 to 9999 people; the number of digits is drawn first, so each is common."""
    digits = int(rng.integers(2, 5))
    people = int(rng.integers(10 ** (digits - 1), 10**digits))
    return Town(draw_name(rng, split), country or draw_name(rng, split), people)


def draw_country(rng: np.random.Generator, split: str) -> Country:
    """A country with its capital."""
    name = draw_name(rng, split)
    return Country(name, draw_town(rng, split, name))


def make_atlas(seed: int, split: str, countries: int) -> list[Country]:
    """Countries with capitals, every name different from all others."""
    rng = np.random.default_rng((seed, 18))
    found: list[Country] = []
    used: set[str] = set()
    while len(found) < countries:
        country = draw_country(rng, split)
        names = {country.name, country.capital.name}
        if len(names) == 2 and not names & used:
            found.append(country)
            used |= names
    return found


def pages_of(countries: list[Country]) -> dict[str, str]:
    """Title to text, a page for each country and for each town."""
    pages = {country.name: country.page for country in countries}
    return pages | {country.capital.name: country.capital.page for country in countries}
