"""Batches of lessons and pairs, and the loss of a step in each stage.

Letters: N lessons, P pairs, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


class Best:
    """The weights of the best look at validation requests so far.

    Preference learning goes on to make refusals likelier when harmful requests are refused already,
    and then only over-refusal grows. So the end is not always the best model.
    """

    def __init__(self) -> None:
        self.name, self.score = "", -math.inf
        self.weights: dict[str, Tensor] = {}

    def offer(self, model: GPT, name: str, found: Mapping[str, float]) -> None:
        """Keep a copy of the weights if the share of harmful requests refused less that of harmless
        ones is at least as large as ever; `found` is a `look`."""
        score = found["harmful_refused"] - found["over_refusal"]
        if score >= self.score:
            self.name, self.score = name, score
            self.weights = {key: value.clone() for key, value in model.state_dict().items()}

    def restore(self, model: GPT) -> None:
        """Give the model the weights that were kept, if there are any."""
        if self.weights:
            model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"name": self.name, "score": self.score, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        self.name, self.score, self.weights = state["name"], state["score"], state["weights"]
