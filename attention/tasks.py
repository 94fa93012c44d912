"""Copy, reverse, sort: generated sequences on which correct attention is easy to see.

    copy  d b a c = d b a c        reverse  d b a c = c a b d        sort  d b a c = a b c d

One row is [task] x_1 ... x_n [=] y_1 ... y_n; a model reads it from the left and is tested on the
n answers. A hash of x decides which split a sequence x belongs to: one in ten is for testing, one
in ten for choosing settings, and no x is ever in two splits, whatever the task.

Letters: N rows, n symbols in a sequence, T = 2n + 2 tokens in a row.
"""

import hashlib
import string
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

TASKS = ("copy", "reverse", "sort")
SPLITS = ("test", "valid", "train")
PRIME = 1_000_003


def split_of(x: Array) -> Array:
    """Index into SPLITS of each sequence x (N, n): 0 and 1 for a tenth each, 2 for the rest."""
    powers = np.array([pow(31, i, PRIME) for i in range(x.shape[1])])
    return np.minimum((x + 1) @ powers % PRIME % 10, 2)


def answer(task: str, x: Array) -> Array:
    """The correct answers for sequences x (N, n), by the name of the task."""
    if task == "sort":
        return np.sort(x, axis=1)
    return x[:, ::-1] if task == "reverse" else x


@dataclass(frozen=True)
class Sequences:
    """Rows over an alphabet of `symbols`, whose sequences have `length`."""

    length: int
    symbols: int

    @property
    def vocabulary(self) -> int:
        """The symbols, one token for each task, and the equals sign."""
        return self.symbols + len(TASKS) + 1

    @property
    def prompt(self) -> int:
        """Tokens before the first answer: [task] x_1 ... x_n [=]."""
        return self.length + 2

    def draw(self, split: str, count: int, rng: np.random.Generator) -> Array:
        """`count` random sequences of a split, int64 (count, n)."""
        kept, index = np.empty((0, self.length), np.int64), SPLITS.index(split)
        while len(kept) < count:
            x = rng.integers(self.symbols, size=(4 * count, self.length))
            kept = np.concatenate([kept, x[split_of(x) == index]])
        return kept[:count]

    def rows(self, task: str, x: Array) -> Array:
        """Whole rows of a task, int64 (N, 2n + 2), from sequences x (N, n)."""
        ones = np.ones((len(x), 1), np.int64)
        begin, equals = self.symbols + TASKS.index(task), self.symbols + len(TASKS)
        return np.concatenate([begin * ones, x, equals * ones, answer(task, x)], axis=1)

    def batch(self, tasks: tuple[str, ...], count: int, seed: int, step: int) -> Array:
        """Training rows (count, 2n + 2), equally many of each task: a function of (seed, step)."""
        x = self.draw("train", count, np.random.default_rng((seed, step)))
        parts = np.array_split(x, len(tasks))
        return np.concatenate([self.rows(t, part) for t, part in zip(tasks, parts, strict=True)])

    def held_out(self, split: str, task: str, count: int) -> Array:
        """Rows (count, 2n + 2) for measuring, the same in every run whatever its seed."""
        rng = np.random.default_rng((SPLITS.index(split), TASKS.index(task)))
        return self.rows(task, self.draw(split, count, rng))

    def label(self, token: int) -> str:
        """How a token is written in a picture."""
        if token < self.symbols:
            return string.ascii_lowercase[token] if self.symbols <= 26 else str(token)
        return (*TASKS, "=")[token - self.symbols]


def digest(tests: dict[str, Array]) -> str:
    """SHA-256 of the test rows of each task, in the order of the tasks' names."""
    total = hashlib.sha256()
    for name in sorted(tests):
        total.update(np.ascontiguousarray(tests[name]).data)
    return total.hexdigest()
