"""Addition, written for a language model, and the programme that judges its answers.

    order=units_first   47+85=231 END     the sum's digits from the units on: 132 backwards
    order=plain         47+85=132 END     as people write it

A model writes from the left. Units first, a digit needs only the digits above it and a carry from
the digit just written; as people write it, the first digit already needs every carry. The first is
much easier to learn (Lee et al. 2023, Teaching Arithmetic to Small Transformers, section 3).

Which split a sum belongs to is decided by a hash of its two numbers, whatever their order: 85+47
must not be in training when 47+85 is in the test.

Letters: P sums, N answers, L tokens of a prompt, T tokens of an answer.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from labkit import RunFailed, UsageError, exercise

Order = Literal["units_first", "plain"]
Judge = Callable[[str, int, int], float]
"""The answer as it was written, and the two numbers, to a reward."""

SYMBOLS = "+0123456789="
"""The characters in the order of their tokens, which is that of week 7's tokenizer."""
END, PAD, MASK = (len(SYMBOLS) + i for i in range(3))
VOCABULARY = len(SYMBOLS) + 3
PLUS, ZERO, EQUALS = (SYMBOLS.index(c) for c in "+0=")
SPLITS = ("test", "valid", "train")
PRIME = 1_000_003


@exercise(minutes=15)
def is_correct(written: str, a: int, b: int, units_first: bool) -> float:
    """The judge: 1.0 when `written` is exactly the sum of a and b, else 0.0.

    The answer must be the decimal digits of a + b and nothing else: no sign, no space, no leading
    zero, no further character, and not a part of them. With `units_first` the digits stand from
    the units on: 132 is written 231. Anything may have been written, the empty text as well: it
    is wrong, and no error.
    """
    right = str(a + b)
    return float(written == (right[::-1] if units_first else right))


def score(judge: Judge, written: Sequence[str], pairs: np.ndarray) -> np.ndarray:
    """Rewards of answers to the sums `pairs` (N, 2), float32 (N,).

    Raises RunFailed when the judge raises, or gives something that is not a finite number: a
    reward that is NaN would make every weight NaN in one step.
    """
    rewards = np.empty(len(written), np.float32)
    for i, (text, (a, b)) in enumerate(zip(written, pairs.tolist(), strict=True)):
        about = f"the answer {text!r} to {a}+{b}"
        try:
            rewards[i] = judge(text, a, b)
        except Exception as error:
            raise RunFailed(
                f"the judge raised {type(error).__name__} for {about}: {error}\n"
                "A judge must take any text, also an empty one, and return a number"
            ) from error
        if not math.isfinite(rewards[i]):
            raise RunFailed(
                f"the judge gave {rewards[i]} for {about}; a reward must be a finite number"
            )
    return rewards


def find_judge(name: str, order: Order) -> Judge:
    """`strict`, or a function of your own as `module:function`, called with (written, a, b).

    Raises UsageError when there is no such function.
    """
    if name == "strict":
        return partial(is_correct, units_first=order == "units_first")
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"judge={name} cannot be imported: {error}; type judge=strict, or module:function for "
            "a function of your own that takes (written, a, b) and returns a number"
        ) from error
    if not callable(found):
        raise UsageError(f"judge={name} is not a function; type judge=strict")
    judge: Judge = found
    return judge


@dataclass(frozen=True)
class Addition:
    """Sums of two numbers of `digits` digits, whose answers have room for `longest` tokens."""

    digits: int
    order: Order
    longest: int

    def __post_init__(self) -> None:
        """Raises UsageError when an answer and its END do not fit into `longest`."""
        if self.longest < self.digits + 2:
            raise UsageError(
                f"longest={self.longest} has no room for the {self.digits + 1} digits of a sum and "
                f"END; type longest={self.digits + 2} or more"
            )

    @property
    def prompt_length(self) -> int:
        """L: both numbers, plus and equals."""
        return 2 * self.digits + 2

    @property
    def context(self) -> int:
        """Tokens of a prompt with its longest answer."""
        return self.prompt_length + self.longest

    def pairs(self, split: str) -> np.ndarray:
        """All sums of a split, shuffled the same way in every run: int64 (P, 2)."""
        low = 10 ** (self.digits - 1) if self.digits > 1 else 0
        numbers = np.arange(low, 10**self.digits)
        both = np.stack(np.meshgrid(numbers, numbers), axis=-1).reshape(-1, 2)
        found = both[split_of(both) == SPLITS.index(split)]
        return np.random.default_rng(0).permutation(found)

    def prompts(self, pairs: np.ndarray) -> np.ndarray:
        """Tokens of `47+85=`, int64 (P, L)."""
        plus, equals = np.full((len(pairs), 1), PLUS), np.full((len(pairs), 1), EQUALS)
        left, right = (ZERO + _digits(pairs[:, i], self.digits) for i in (0, 1))
        return np.concatenate([left, plus, right, equals], axis=1)

    def answers(self, pairs: np.ndarray) -> np.ndarray:
        """Tokens of the right answers, filled up with END: int64 (P, T)."""
        total = pairs.sum(axis=1)
        width = self.digits + 1
        digits = _digits(total, width)  # with leading zeros
        count = 1 + sum((total >= 10**k).astype(np.int64) for k in range(1, width))
        place = np.arange(width)
        if self.order == "units_first":
            digits = digits[:, ::-1]
        else:  # shift each row to the left by its leading zeros
            shifted = np.minimum(place + (width - count)[:, None], width - 1)
            digits = np.take_along_axis(digits, shifted, axis=1)
        rows = np.full((len(pairs), self.longest), END)
        rows[:, :width] = np.where(place < count[:, None], ZERO + digits, END)
        return rows

    def text(self, tokens: np.ndarray) -> list[str]:
        """What rows of tokens (N, T) say before END; tokens that are no character become `?`."""
        characters = np.array([*SYMBOLS, "", "?", "?"])
        ended = np.maximum.accumulate(tokens == END, axis=1)
        letters = characters[np.where(ended, END, tokens)]
        return ["".join(row) for row in letters.tolist()]

    def digest(self) -> str:
        """SHA-256 of the three splits and how they are written."""
        total = hashlib.sha256(self.order.encode())
        for split in SPLITS:
            pairs = self.pairs(split)
            total.update(np.ascontiguousarray(self.prompts(pairs)).data)
            total.update(np.ascontiguousarray(self.answers(pairs)).data)
        return total.hexdigest()


def split_of(pairs: np.ndarray) -> np.ndarray:
    """Index into SPLITS of each sum (P, 2): 0 and 1 for a tenth each, 2 for the rest."""
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    mixed = (low * 7919 + high * 104_729 + low * high * 31 + 17) % PRIME
    return np.minimum(mixed % 10, 2)


def _digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """Decimal digits of numbers (P,), the highest first: (P, width)."""
    return numbers[:, None] // 10 ** np.arange(width)[::-1] % 10
