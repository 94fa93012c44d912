"""Rows that repeat: a random pattern of random length, again and again, up to the context's end.

    period 5:    7 2 9 4 1 7 2 9 4 1 7 2 9 ...

No token stands twice in a pattern, so from the second copy on the next token is certain for a model
that finds the last place of the present token and looks at what followed. Guessing reaches
ln V nats before, and cannot do better. Periods differ from row to row: a head that looks back a
fixed distance does not help.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robustness.mechanistic.rows import check_patterns

VALID, TEST = 1_000_003, 1_000_033
"""First numbers of the seeds of validation and test data; those of training are (seed, step)."""


def repeated(
    count: int, length: int, vocabulary: int, periods: tuple[int, int], seed: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Rows of repeated patterns, a function of the seed alone.

    Args:
        length: T, tokens of a row.
        periods: shortest and longest, both included; each is equally likely.
    Returns:
        tokens int64 (count, T), and the period of each row int64 (count,).
    Raises:
        UsageError as `check_patterns` does.
    """
    check_patterns(vocabulary, length, *periods)
    draw = np.random.default_rng(seed)
    period = draw.integers(periods[0], periods[1] + 1, size=count)
    pattern = draw.random((count, vocabulary), dtype=np.float32).argsort(axis=1)
    places = np.arange(length) % period[:, None]
    tokens = np.take_along_axis(pattern, places, axis=1)
    return torch.from_numpy(tokens), torch.from_numpy(period)


def is_repeat(period: Tensor, length: int) -> Tensor:
    """Inputs whose next token is certain: bool (B, T - 1) from periods (B,).

    Input t is the second of its kind from t = P on. Input P - 1 is the last one of the first copy:
    what follows it was not seen yet.
    """
    return torch.arange(length - 1, device=period.device) >= period[:, None]


def generator_at(*seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is a function of these numbers alone, so that resume needs no state."""
    word = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(word >> np.uint64(1)))
