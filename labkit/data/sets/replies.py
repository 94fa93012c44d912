"""`replies`: orders and answers in a language of 70 words, and a programme that judges them.

    anna wants two birds ?        gladly owl , crow . thanks         3
                                  nonsense owl , owl , saw          -2

Where the judge is a programme, "what people want" can be computed for any answer. A reward that was
learned from preferences can then be compared with it: this set is for that comparison.
"""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from random import Random

from labkit.data.kinds import Preference, PreferenceData

ROWS = {"train": 12_000, "valid": 600, "test": 1_000}
"""Rows of each split."""
NAMES = "anna ben carla dan eva finn greta hugo ines jan karin leo".split()
NUMBERS = {"one": 1, "two": 2, "three": 3}
KINDS = {
    "bird": "crow eagle owl robin swan heron".split(),
    "tool": "hammer saw drill file axe spade".split(),
    "fruit": "apple pear plum cherry lemon melon".split(),
    "colour": "red blue green yellow purple brown".split(),
    "metal": "iron copper zinc tin silver gold".split(),
}
OPENERS, CLOSERS, RUDE = ("certainly", "gladly"), ("thanks", "cheers"), ("nonsense", "whatever")
COURTESIES = OPENERS + CLOSERS
KIND_OF = {item: kind for kind, items in KINDS.items() for item in items}
ITEMS = tuple(KIND_OF)
WORDS = (
    *NAMES, *NUMBERS, *KINDS, *(f"{kind}s" for kind in KINDS), *KIND_OF, *COURTESIES, *RUDE,
    "wants", ",", ".", "?",
)  # fmt: skip
"""Every word of the language."""
IN_ANSWERS = frozenset((*ITEMS, *COURTESIES, *RUDE, ",", "."))
LEAST_GAP = 1.0
"""Answers of a pair differ at least this much in their score."""


def asked(prompt: str) -> dict[str, int]:
    """How many of each kind an order asks for. Raises ValueError for a text that is no order."""
    words = prompt.split()
    found = {}
    for number, kind in itertools.pairwise(words):
        if number in NUMBERS and kind.removesuffix("s") in KINDS:
            found[kind.removesuffix("s")] = NUMBERS[number]
    if not found:
        raise ValueError(f"{prompt!r} is no order of the set `replies`")
    return found


def score(prompt: str, answer: str) -> float:
    """What an answer is worth, at most 3. Raises ValueError as `asked` does.

    2 x (right - wrong) / asked, at least -2: an item is right if it is of a kind that was asked
    for, new, and not one too many. Plus 1 for one or two courtesies, less 0.5 for each further
    one. Less 1 for each rude word, and 1 for words of orders, which have no place in an answer.
    """
    order, words = asked(prompt), answer.split()
    total = sum(order.values())
    items = [word for word in words if word in KIND_OF]
    new = Counter(KIND_OF[item] for item in set(items))
    right = sum(min(new[kind], number) for kind, number in order.items())
    content = max(-1.0, (right - (len(items) - right)) / total)
    polite = sum(word in COURTESIES for word in words)
    manners = min(polite, 1) - 0.5 * max(polite - 2, 0)
    rude = sum(word in RUDE for word in words)
    return 2 * content + manners - rude - (not IN_ANSWERS.issuperset(words))


def an_order(rng: Random) -> str:
    """Somebody wants one to three of one kind."""
    number, kind = rng.choice(list(NUMBERS)), rng.choice(list(KINDS))
    return f"{rng.choice(NAMES)} wants {number} {kind}{'' if number == 'one' else 's'} ?"


def an_answer(prompt: str, rng: Random) -> str:
    """An answer of mixed quality: often one item too many or too few, a wrong one or a repeated
    one, and with or without manners. It has two courtesies at most.
    """
    items: list[str] = []
    for kind, number in asked(prompt).items():
        for _ in range(number + rng.choice((-1, 0, 0, 0, 1))):
            draw = rng.random()
            if draw < 0.1:
                items.append(rng.choice(ITEMS))
            elif draw < 0.2 and items:
                items.append(rng.choice(items))
            else:
                items.append(rng.choice([item for item in KINDS[kind] if item not in items]))
    text = " , ".join(items or [rng.choice(ITEMS)])
    manner = rng.random()
    if manner < 0.55:
        text = f"{rng.choice(OPENERS if manner < 0.35 else RUDE)} {text}"
    return f"{text} . {rng.choice(CLOSERS)}" if rng.random() < 0.35 else text


def replies() -> PreferenceData:
    """Pairs of answers, the one with the higher score preferred. Of a prompt, all rows are in one
    split: about one tenth of the prompts are for testing, one for validation.
    """
    rng = Random(0)
    splits: dict[str, list[Preference]] = {name: [] for name in ROWS}
    while any(len(splits[name]) < count for name, count in ROWS.items()):
        prompt = an_order(rng)
        name = {0: "test", 1: "valid"}.get(zlib.crc32(prompt.encode()) % 10, "train")
        if len(splits[name]) == ROWS[name]:
            continue
        one, two = an_answer(prompt, rng), an_answer(prompt, rng)
        gap = score(prompt, one) - score(prompt, two)
        if abs(gap) >= LEAST_GAP:
            splits[name].append(Preference(prompt, *((one, two) if gap > 0 else (two, one))))
    return PreferenceData("replies", "embedded", **{k: tuple(v) for k, v in splits.items()})
