"""A reward model: week 7's GPT with one number for each answer, learned from pairs.

    P(y_w > y_l) = sigmoid( r(x, y_w) - r(x, y_l) )            Bradley and Terry 1952
    L = -log sigmoid( r(x, y_w) - r(x, y_l) )                  Ouyang et al. 2022, equation 1

Only differences of rewards of one prompt are learned: adding a constant to all rewards of a prompt
changes nothing. So at the end the rewards are standardised, which gives their unit a meaning: one
standard deviation over the answers of pairs.

Letters: N rows, T tokens, C width, P pairs.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import exercise
from pretraining import GPT
from rlhf.preferences import Pair, Rows, in_batches, table


class RewardModel(nn.Module):
    """A GPT whose head for words is replaced by one for a single number, at the last token."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, base: GPT) -> None:
        """`base` is copied. The new head begins at 0, so that every answer is worth 0 at first."""
        super().__init__()
        self.trunk = copy.deepcopy(base)
        self.score = nn.Linear(base.shape.width, 1, bias=False)
        nn.init.zeros_(self.score.weight)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def forward(self, rows: Rows) -> Tensor:
        """Rewards (N,) of rows (N, T), or (P, 2) of pairs (P, 2, T)."""
        tokens, mask = (part.reshape(-1, part.shape[-1]) for part in rows)
        states = self.trunk.hidden(tokens)  # (N, T, C)
        rewards: Tensor = self.score(last_state(states, mask)).float()
        return (rewards.view(rows.mask.shape[:-1]) - self.mean) / self.deviation

    def standardise(self, rewards: Tensor) -> None:
        """From now on, let answers whose rewards were these have mean 0 and deviation 1."""
        self.mean += rewards.mean() * self.deviation
        self.deviation *= rewards.std(correction=0) + 1e-8


@exercise(minutes=10)
def last_state(states: Tensor, mask: Tensor) -> Tensor:
    """The state at the last token of each answer, which has seen all of it: (N, C).

    Args:
        states: (N, T, C). mask: bool (N, T), True at the tokens of the answer; padding follows it.
    """
    position = torch.arange(mask.shape[1], device=mask.device)
    last = (position * mask).argmax(dim=1)  # (N,)
    return states[torch.arange(len(states), device=states.device), last]


@exercise(minutes=10)
def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean over pairs of -log sigmoid(reward of the chosen - reward of the rejected answer).

    Ouyang et al. 2022, equation 1, from rewards (P,) each. Differences of any size give a finite
    loss and gradient.
    """
    return -F.logsigmoid(chosen - rejected).mean()


@exercise(minutes=20)
def calibration_error(probability: Tensor, correct: Tensor, bins: int = 10) -> Tensor:
    """Expected calibration error (Guo et al. 2017, equation 3): a scalar in [0, 1].

    The interval [0, 1] is divided into `bins` bins of equal width, closed on the right: bin k,
    counted from 0, is (k / bins, (k + 1) / bins], and a probability of 0 is in the first. The error
    is the sum over bins of the share of predictions in it times |mean of correct - mean of
    probability| in it. Empty bins count nothing.

    Args:
        probability: the model's probability of being right, (N,) in [0, 1].
        correct: whether it was, bool (N,).
    Returns:
        In the type of `probability`; it is to be looked at, so no gradient is needed.
    """
    index = (probability * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=probability.dtype, device=probability.device)
    gap.index_add_(0, index, correct.to(probability.dtype) - probability)
    return gap.abs().sum() / len(probability)


def pair_quality(rewards: Tensor) -> dict[str, float]:
    """Accuracy (%) and calibration error (%) of the rewards (P, 2) of held-out pairs."""
    margin = (rewards[:, 0] - rewards[:, 1]).double()
    right = margin > 0
    confidence = torch.sigmoid(margin.abs())
    return {
        "accuracy": 100 * right.double().mean().item(),
        "calibration_error": 100 * calibration_error(confidence, right).item(),
    }


def rewards_of(model: RewardModel, pairs: Sequence[Pair], device: Any) -> Tensor:
    """The rewards of both answers of each pair, (P, 2)."""
    return in_batches(model, model, table(pairs, device), 256)


def accuracy_of(model: RewardModel, pairs: Sequence[Pair], device: Any) -> float:
    """Share (%) of pairs whose chosen answer has the higher reward."""
    return pair_quality(rewards_of(model, pairs, device))["accuracy"]
