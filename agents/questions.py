"""Questions with their answers, and the trace that a teacher would write for each.

    arithmetic    What is 47 times 85 plus 12?                            a call of the calculator
    lookup        What is the population of the capital of Kadelo?        two searches in a row
    chain         What is the population of Bati, Rosu and Mefa in all?   n searches, n - 1 sums

The teacher's trace is Yao et al. 2022's: a thought, an action, the observation, and so on, and
`finish[answer]`. Which numbers belong to a test is decided by a hash of the expression, which names
by a hash of the name, and some wordings are kept for tests alone. Pages of the training say more
than their fact (`noise`); those of the tests do not, except where that is what is tested.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from agents.atlas import Country, Town, draw_country, draw_name, draw_town
from agents.calculator import calculate
from agents.tokens import ACTION, OBSERVATION, QUESTION, THOUGHT

SPLITS = ("test", "valid", "train")
WORDINGS = {
    "What is {a} plus {b}?": "{a}+{b}",
    "What is {a} minus {b}?": "{a}-{b}",
    "What is {a} times {b}?": "{a}*{b}",
    "What is {a} divided by {d}?": "{a}/{d}",
    "What is {c} percent of {a}?": "{a}*{c}%",
    "What is {c} to the power of {e}?": "{c}**{e}",
    "What is {a} times {b} plus {c}?": "{a}*{b}+{c}",
    "What is {a} plus {b} times {c}?": "{a}+{b}*{c}",
    "What is the sum of {a} and {b}, times {c}?": "({a}+{b})*{c}",
    "What is {a} minus {b}, divided by {d}?": "({a}-{b})/{d}",
    "A box holds {a} pens. How many pens are in {c} boxes?": "{a}*{c}",
    "{name} has {a} coins and finds {c} more. How many coins are that?": "{a}+{c}",
    "A train has {c} cars with {b} seats, and {a} are taken. How many are free?": "{c}*{b}-{a}",
    "{name} shares {a} pens among {d} people. How many does each get?": "{a}/{d}",
    "How much is {a} plus {b}?": "{a}+{b}",
    "How much is {a} times {b}?": "{a}*{b}",
    "How many are {a} minus {b}?": "{a}-{b}",
    "How many is {a} divided by {d}?": "{a}/{d}",
    "How much is {a} times {b} plus {c}?": "{a}*{b}+{c}",
    "{name} has {a} boxes of {c} pens. How many pens are that?": "{a}*{c}",
    "{name} has {a} pens and {b} coins. How many are that?": "{a}+{b}",
    "{name} has {a} coins and {b} boxes of {c} coins. How many coins are that?": "{a}+{b}*{c}",
    "A box holds {a} pens, and {c} are taken. How many are left?": "{a}-{c}",
    "A train has {a} seats and gets {c} more. How many seats are that?": "{a}+{c}",
}
"""Of training and tests: a wording, and the expression that it asks for."""
OTHER_WORDINGS = {
    "How many is {a} plus {b}?": "{a}+{b}",
    "How many are {a} times {b}?": "{a}*{b}",
    "{name} has {a} pens and {b} boxes of {c} pens. How many pens are that?": "{a}+{b}*{c}",
    "A train has {a} seats, and {c} are taken. How many are free?": "{a}-{c}",
}
"""Of tests alone: words of the training in combinations that it does not have."""
TWO_HOPS = "What is the population of the capital of {name}?"
CHAIN = "What is the population of {names} in all?"
ONE = "What is the population of {names}?"
CALCULATE = "This is a calculation."
FIND = "I need to read about {name}."
ADD = "I can add them now."
DONE = "That is the answer."
TEXTS = (
    *WORDINGS, TWO_HOPS, CHAIN, ONE, CALCULATE, FIND, ADD, DONE, "is a town in It",
    "is a country. Its capital", " and error",
)  # fmt: skip
"""What words are taken from for the vocabulary (see tokens.py)."""

WORDS = sorted({word for text in TEXTS for word in re.findall(r"[A-Za-z]{2,}", text)})
MOST = 3
"""Sentences that say nothing, on a page of the training."""

Kind = Literal["arithmetic", "lookup", "chain"]


@dataclass(frozen=True, slots=True)
class Step:
    """What a teacher does: a thought, a call, and what the tool says; None after `finish`."""

    thought: str
    tool: str
    argument: str
    observation: str | None = None

    def __str__(self) -> str:
        said = "" if self.observation is None else f"{OBSERVATION}{self.observation}"
        return f"{THOUGHT}{self.thought}{ACTION}{self.tool}[{self.argument}]{said}"


@dataclass(frozen=True, slots=True)
class Task:
    """A question, its answer, and the teacher's steps; `length` counts its calls of tools."""

    kind: Kind
    question: str
    answer: str
    steps: tuple[Step, ...]

    @property
    def length(self) -> int:
        return len(self.steps) - 1

    @property
    def trace(self) -> str:
        """The whole trace, as the model learns it."""
        return f"{QUESTION}{self.question}{''.join(map(str, self.steps))}"

    @property
    def direct(self) -> str:
        """The answer without a tool: what a language model alone would have to write."""
        return f"{QUESTION}{self.question}{Step(DONE, 'finish', self.answer)}"


def split_of(expression: str) -> str:
    """A tenth of all expressions each for test and valid, the others for train."""
    return SPLITS[min(zlib.crc32(expression.encode()) % 10, 2)]


def arithmetic(
    rng: np.random.Generator, split: str, wordings: dict[str, str] = WORDINGS, digits: int = 3
) -> Task:
    """A question for the calculator, of numbers with up to `digits` digits."""
    words = list(wordings)
    while True:
        wording = words[int(rng.integers(len(words)))]
        largest = 10 ** int(rng.integers(min(2, digits), digits + 1))
        numbers = {
            "a": int(rng.integers(2, largest)), "b": int(rng.integers(2, largest)),
            "c": int(rng.integers(2, 100)), "d": int(rng.choice([2, 4, 5, 8])),
            "e": int(rng.integers(2, 4)),
        }  # fmt: skip
        expression = wordings[wording].format(**numbers)
        if split_of(expression) == split:
            break
    name = draw_name(rng, "train" if split == "train" else "test")
    answer = calculate(expression)
    steps = (Step(CALCULATE, "calculate", expression, answer), Step(DONE, "finish", answer))
    return Task("arithmetic", wording.format(name=name, **numbers), answer, steps)


def lookup(country: Country) -> Task:
    """A question of two hops: the country's page names the capital, whose page has the answer."""
    answer = str(country.capital.population)
    steps = (
        Step(FIND.format(name=country.name), "search", country.name, country.page),
        Step(
            FIND.format(name=country.capital.name), "search", country.capital.name,
            country.capital.page,
        ),
        Step(DONE, "finish", answer),
    )  # fmt: skip
    return Task("lookup", TWO_HOPS.format(name=country.name), answer, steps)


def chain(towns: list[Town]) -> Task:
    """The people of several towns together: a search for each, and from the second on a sum of what
    was found so far. So each step needs the last two observations only, however many towns come."""
    names = [town.name for town in towns]
    steps, total = list[Step](), ""
    for town in towns:
        steps.append(Step(FIND.format(name=town.name), "search", town.name, town.page))
        if total:
            expression = f"{total}+{town.population}"
            total = calculate(expression)
            steps.append(Step(ADD, "calculate", expression, total))
        else:
            total = str(town.population)
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    question = (ONE if len(names) == 1 else CHAIN).format(names=listed)
    return Task("chain", question, total, (*steps, Step(DONE, "finish", total)))


def noise(rng: np.random.Generator) -> str:
    """Up to MOST sentences of words, numbers and letters in no order: half of all pages have none.

    A page can say anything. What an agent reads with such pages in its training is the fact, and
    not what stands at the end.
    """
    said = ""
    for _ in range(min(int(rng.geometric(0.5)) - 1, MOST)):
        words = []
        for kind in rng.random(int(rng.integers(3, 7))):
            if kind < 0.7:
                words.append(WORDS[int(rng.integers(len(WORDS)))])
            elif kind < 0.85:
                words.append(str(int(rng.integers(10 ** int(rng.integers(1, 6))))))
            else:
                letters = rng.integers(97, 123, size=int(rng.integers(2, 6)))
                words.append("".join(map(chr, letters)))
        said += f" {' '.join(words).capitalize()}."
    return said


def teacher(rng: np.random.Generator, longest: int) -> Iterator[Task]:
    """Training tasks without end: half arithmetic, and chains of up to `longest` towns."""
    while True:
        kind = int(rng.integers(4))
        if kind < 2:
            yield arithmetic(rng, "train")
        elif kind == 2:
            country = draw_country(rng, "train")
            capital = replace(country.capital, more=noise(rng))
            yield lookup(replace(country, capital=capital, more=noise(rng)))
        else:
            count = int(rng.integers(1, longest + 1))
            towns = [draw_town(rng, "train") for _ in range(count)]
            yield chain([replace(town, more=noise(rng)) for town in towns])


def several(make: Callable[[], Task], count: int) -> list[Task]:
    """`count` different questions."""
    found: dict[str, Task] = {}
    while len(found) < count:
        task = make()
        found.setdefault(task.question, task)
    return list(found.values())
