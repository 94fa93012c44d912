"""Which examples make up which batch: a pure function of (seed, step), so resume needs no loader
state.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)
def epoch_order(n: int, epoch: int, seed: int) -> np.ndarray:
    """A permutation of 0..n-1, int64 (n,), that depends on epoch and seed only. Read-only."""
    order = np.random.default_rng((seed, epoch)).permutation(n)
    order.setflags(write=False)
    return order


def batch_indices(n: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Indices of batch number `step`, int64 (batch_size,): shuffled epochs without replacement.

    The last n % batch_size examples of an epoch's order are left out, other ones every epoch.
    Raises ValueError when a batch is larger than the set.
    """
    if not 0 < batch_size <= n:
        raise ValueError(f"batch_size={batch_size} must be from 1 to the {n} examples there are")
    epoch, position = divmod(step, n // batch_size)
    order = epoch_order(n, epoch, seed)
    return order[position * batch_size : (position + 1) * batch_size].copy()
