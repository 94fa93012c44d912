"""Which examples make up which batch: a pure function of (seed, step), so resume needs no loader
state.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from labkit.errors import UsageError


@lru_cache(maxsize=2)
def epoch_order(n: int, epoch: int, seed: int) -> np.ndarray:
    """A permutation of 0..n-1, int64 (n,), that depends on epoch and seed only. Read-only."""
    order = np.random.default_rng((seed, epoch)).permutation(n)
    order.setflags(write=False)
    return order


def batch_indices(n: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Indices of batch number `step`, int64 (batch_size,): shuffled epochs without replacement.

    The last n % batch_size examples of an epoch's order are left out, different ones every epoch.
    Raises UsageError as `check_batch_size` does.
    """
    check_batch_size(n, batch_size)
    epoch, position = divmod(step, n // batch_size)
    order = epoch_order(n, epoch, seed)
    return order[position * batch_size : (position + 1) * batch_size].copy()


def check_batch_size(n: int, batch_size: int, name: str = "batch_size") -> None:
    """To be called before the first step. Raises UsageError, which names the setting, when a batch
    is empty or larger than the n training examples.
    """
    if not 0 < batch_size <= n:
        raise UsageError(
            f"{name}={batch_size} must be from 1 to the {n} training examples there are; "
            f"try {name}={max(1, min(n, 32))}"
        )


def check_share(n: int, share: float, name: str = "validation") -> None:
    """To be called before n training examples are divided. Raises UsageError, which names the
    setting, when round(share * n) leaves one side empty.
    """
    if not 0 < round(share * n) < n:
        raise UsageError(
            f"{name}={share:g} of the {n} training examples is {round(share * n)}: it must leave "
            f"at least one on either side; try {name}=0.1"
        )
