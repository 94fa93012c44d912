"""From logits to tokens, for requests with settings of their own in one batch.

A draw is a pure function of the request's seed and the token's place in its answer: neither other
requests in the batch nor a preemption changes what a request gets.

Top-p needs no sorting: a token is inside the nucleus exactly when the tokens likelier than it have
less than p together. So draw from the whole distribution, and if the token is outside, draw again
from those likelier than it (Ye et al. 2025, FlashInfer, do this on GPUs). For a vocabulary
of 4,096 it takes a tenth of the time.

Letters: B rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labkit import exercise

WORD = 2**64 - 1


@dataclass(frozen=True)
class Sampling:
    """How a request wants its tokens."""

    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """Only the k likeliest; 0: all."""
    top_p: float = 1.0
    """Only the likeliest that together have p, of those that top_k leaves."""
    max_tokens: int = 16
    seed: int = 0
    stop_tokens: frozenset[int] = frozenset()
    """Tokens that end the answer; they are its last one."""

    def __post_init__(self) -> None:
        """Raises ValueError, naming the setting and its limits."""
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and up to 1, got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (all) or more, got {self.top_k}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be 1 or more, got {self.max_tokens}")


def uniforms(seeds: Sequence[int], places: Sequence[int], stream: int) -> Tensor:
    """Numbers from 0 to below 1, float64 (B,): a hash (SplitMix64) of seed, place and stream.

    Whole numbers of Python are faster here than arrays: there are few of them.
    """
    found = []
    for seed, place in zip(seeds, places, strict=True):
        x = seed
        for part in (place, stream):
            x = (x ^ part) + 0x9E3779B97F4A7C15 & WORD
            x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & WORD
            x = (x ^ x >> 27) * 0x94D049BB133111EB & WORD
            x ^= x >> 31
        found.append((x >> 11) * 2.0**-53)
    return torch.tensor(found, dtype=torch.float64)


@exercise(minutes=20)
def inside(probabilities: Tensor, tokens: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Whether each row's token survives its top-k and then its top-p.

    With the probabilities of the tokens that are strictly likelier than the token itself:
    it is among the k likeliest if fewer than k are likelier. It is inside the nucleus if the
    likelier ones together have less than p *of the mass of the k likeliest*, that is, less than p
    times that mass. So the token that crosses p is inside, and so is the likeliest, for any p
    above 0. Tokens of equal probability are inside or outside together.

    Args:
        probabilities: (B, V), each row sums to 1.
        tokens: int64 (B,). top_k: int64 (B,), 0 for all. top_p: (B,), above 0 and up to 1; where it
            is 1, nothing that top_k leaves is outside, whatever rounding does to sums.
    Returns:
        bool (B,).
    """
    own = probabilities.gather(1, tokens[:, None])
    likelier = probabilities > own
    before = torch.where(likelier, probabilities, 0).sum(dim=1)
    mass = torch.ones_like(before)
    for row in top_k.nonzero().flatten().tolist():
        count = min(int(top_k[row]), probabilities.shape[1])
        mass[row] = probabilities[row].topk(count).values.sum()
    among = (top_k == 0) | (likelier.sum(dim=1) < top_k)
    return among & ((top_p == 1) | (before < top_p * mass))


def pick(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """A token of each row (B, V) by the inverse of its distribution function: the first whose
    cumulative probability is above uniform · sum, int64 (B,). The rows need not sum to 1."""
    cumulative = probabilities.double().cumsum(dim=-1)
    found = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)
    return found.squeeze(1).clamp_(max=probabilities.shape[1] - 1)


def sample(logits: Tensor, samplings: Sequence[Sampling], places: Sequence[int]) -> list[int]:
    """A token for each row (B, V). `places`: how many tokens each answer has so far."""
    if all(s.temperature == 0 for s in samplings):
        return list(logits.argmax(dim=-1).tolist())
    heat = torch.tensor([s.temperature or 1.0 for s in samplings])
    whole = (logits.float() / heat[:, None]).softmax(dim=-1)
    seeds = [s.seed for s in samplings]
    tokens = pick(whole, uniforms(seeds, places, 0))
    if any(s.temperature == 0 for s in samplings):
        greedy = torch.tensor([s.temperature == 0 for s in samplings])
        tokens = torch.where(greedy, logits.argmax(dim=-1), tokens)  # always inside
    if all(s.top_k == 0 and s.top_p == 1 for s in samplings):
        return list(tokens.tolist())
    top_k = torch.tensor([s.top_k for s in samplings])
    top_p = torch.tensor([s.top_p for s in samplings])
    rows = (~inside(whole, tokens, top_k, top_p)).nonzero().squeeze(1)
    stream = 0
    while len(rows):  # all that are not likelier than a token that is outside are outside as well
        stream += 1
        rest = whole[rows]
        rest = rest.masked_fill(rest <= rest.gather(1, tokens[rows, None]), 0)
        chosen = rows.tolist()
        draw = uniforms([seeds[i] for i in chosen], [places[i] for i in chosen], stream)
        tokens[rows] = pick(rest, draw)
        rows = rows[~inside(whole[rows], tokens[rows], top_k[rows], top_p[rows])]
    return list(tokens.tolist())


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """The probabilities (n, V) from which `sample` draws for one request, for n of its rows."""
    if sampling.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).double()
    p = (logits.double() / sampling.temperature).softmax(dim=-1)
    ordered, order = p.sort(dim=-1, descending=True)
    if sampling.top_k:
        ordered[:, sampling.top_k :] = 0
    before = (ordered.cumsum(dim=-1) - ordered) / ordered.sum(dim=-1, keepdim=True)
    if sampling.top_p < 1:
        ordered = ordered.masked_fill(before >= sampling.top_p, 0)
    kept = torch.zeros_like(p).scatter_(1, order, ordered)
    return kept / kept.sum(dim=-1, keepdim=True)
