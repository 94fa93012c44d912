"""Batches of lessons and pairs, and the loss of a step in each stage.

Letters: N lessons, P pairs, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from labkit.data import batch_indices
from pretraining import GPT
from rlhf import Rows, answer_logps, cdpo_loss, in_batches, token_logps


def by_length(rows: Rows, device: Any) -> Rows:
    """Lessons in order of their length, so that neighbours need little padding."""
    position = torch.arange(rows.mask.shape[1])
    order = (rows.mask * position).amax(dim=1).argsort(stable=True)
    return Rows(*(part[order].to(device) for part in rows))


def batch_of(rows: Rows, size: int, step: int, seed: int) -> list[Rows]:
    """A batch in two halves, each of neighbours: one of the shorter lessons, one of the longer.

    Dialogues are short, critiques and comparisons long; each step should learn from both.
    """
    half = len(rows.tokens) // 2
    found = []
    for part in range(2):
        blocks = max(1, 2 * half // size)
        block = int(batch_indices(blocks, 1, step, 2 * seed + part)[0])
        begin = part * half + block * (size // 2)
        found.append(Rows(*(each[begin : begin + size // 2] for each in rows)).trimmed())
    return found


def nll(model: GPT, batch: Sequence[Rows]) -> Tensor:
    """Mean negative log-likelihood of the tokens that are learned, in nats: a scalar."""
    total = torch.stack([token_logps(model, rows).sum() for rows in batch]).sum()
    return -total / sum(rows.mask.sum() for rows in batch)


def reference_logps(model: GPT, pairs: Rows, device: Any) -> Tensor:
    """Log-probabilities (P, 2) of the answers of pairs (P, 2, T) before the preference stage."""
    moved = Rows(*(part.to(device) for part in pairs))
    return in_batches(model, lambda part: answer_logps(model, part), moved, 128).cpu()


def pair_loss(
    model: GPT, pairs: Rows, reference: Tensor, index: Tensor, beta: float, device: Any
) -> Tensor:
    """DPO's loss of the pairs with these numbers: a scalar."""
    rows = Rows(*(part[index].to(device) for part in pairs)).trimmed()
    logps, known = answer_logps(model, rows), reference[index].to(device)
    return cdpo_loss(logps[:, 0], logps[:, 1], known[:, 0], known[:, 1], beta)
