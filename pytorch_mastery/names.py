"""Names drawn from a source whose entropy is known, so that a language model's best loss is too.

A name is a walk of an order-2 Markov chain over 27 symbols: `.` (start and end) and a to z. The
next letter c after a, b has probability proportional to exp(U[a, c] + V[b, c]), U and V drawn once
from a fixed seed, with consonants preferred after vowels and vowels after consonants; the name ends
with a probability that depends on b alone, never before its second letter. A bigram model cannot
be perfect, since c depends on a; a model that sees two letters can.

No model's expected loss is below `entropy()`: it is computed from the chain exactly, by the
expected number of visits to each context, not estimated from names.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

SYMBOLS = ".abcdefghijklmnopqrstuvwxyz"
"""Symbol 0 starts and ends a name."""

K = len(SYMBOLS)
VOWELS = np.isin(list(SYMBOLS), list("aeiouy"))
END_AFTER_VOWEL, END_AFTER_CONSONANT = 0.3, 0.15


@cache
def source(seed: int = 2003) -> NDArray:
    """P[a, b, c] (27, 27, 27): probability of symbol c after a, b. The seed fixes the language."""
    rng = np.random.default_rng(seed)
    far, near = rng.normal(0, 1.0, (K, K)), rng.normal(0, 1.5, (K, K))
    near += np.where(VOWELS[:, None] == VOWELS[None], -1.5, 1.5)  # vowels and consonants alternate
    near[0] *= 0.5  # many letters can begin a name
    logits = far[:, None, :] + near[None, :, :]
    logits[..., 0] = -np.inf
    p = np.exp(logits - logits.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    end = np.where(VOWELS, END_AFTER_VOWEL, END_AFTER_CONSONANT)
    end[0] = 0
    stop = np.broadcast_to(end[None, :], (K, K)).copy()
    stop[0] = 0  # context (., b): the first letter was just written
    p *= 1 - stop[..., None]
    p[..., 0] = stop
    p.setflags(write=False)
    return p


def visits(p: NDArray) -> NDArray:
    """Expected number of times (27, 27) that a name is in context (a, b), for P (27, 27, 27).

    v = start + Q^T v, where Q moves (a, b) to (b, c) with probability P[a, b, c] unless c ends the
    name. The sum of v is the expected number of symbols of a name, its end included.
    """
    step = np.zeros((K, K, K, K))
    for b in range(K):
        step[:, b, b, 1:] = p[:, b, 1:]
    start = np.zeros(K * K)
    start[0] = 1
    v = np.linalg.solve(np.eye(K * K) - step.reshape(K * K, K * K).T, start)
    return v.reshape(K, K)


def cross_entropy(q: NDArray, p: NDArray | None = None) -> float:
    """Expected loss of a model, in nats a character (the end counts as one), exactly.

    Args:
        q: (27, 27, 27), the model's probability of c after a, b.
        p: the source's (`source()`).
    """
    p = source() if p is None else p
    weight = visits(p)[..., None] * p
    used = weight > 0
    with np.errstate(divide="ignore"):
        loss = -(weight[used] * np.log(np.broadcast_to(q, p.shape)[used])).sum()
    return float(loss / visits(p).sum())


def entropy(p: NDArray | None = None) -> float:
    """The source's entropy in nats per character: the least expected loss of any model."""
    p = source() if p is None else p
    return cross_entropy(p, p)


def bigram(p: NDArray | None = None) -> NDArray:
    """The best bigram model (27, 27): P(c | b) under the source, exactly."""
    p = source() if p is None else p
    joint = (visits(p)[..., None] * p).sum(axis=0)  # (b, c)
    total = joint.sum(axis=1, keepdims=True)
    return np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)


def draw(count: int, seed: int, p: NDArray | None = None) -> list[str]:
    """Independent names, all drawn at once."""
    p = source() if p is None else p
    rng = np.random.default_rng(seed)
    cumulative = p.cumsum(axis=2)
    a, b = np.zeros(count, int), np.zeros(count, int)
    columns, alive = [], np.ones(count, bool)
    while alive.any():
        uniform = rng.random(count)[:, None]
        c = np.where(alive, (uniform >= cumulative[a, b]).sum(axis=1).clip(max=K - 1), 0)
        columns.append(c)
        alive &= c > 0
        a, b = b, c
    letters = np.array(list(SYMBOLS))[np.stack(columns, axis=1)]
    return ["".join(row).rstrip(".") for row in letters]


def splits(
    train: int = 20_000, validation: int = 2_000, test: int = 5_000, seed: int = 0
) -> tuple[list[str], list[str], list[str]]:
    """Three independent samples of names.

    A short name may occur in more than one sample. That is correct here. Splitting by distinct
    names would be wrong: the test names would no longer follow the source (likely names would be
    missing), and the entropy would not be the lower bound. Real names are a fixed list and not
    random draws: split those by distinct names.
    """
    names = draw(train + validation + test, seed)
    return names[:train], names[train : train + validation], names[train + validation :]
