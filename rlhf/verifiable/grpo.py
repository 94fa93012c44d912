"""Group relative policy optimisation: the mean reward of a group of answers is the baseline.

DeepSeekMath (Shao et al. 2024), equation 3, for G answers o_1 .. o_G to one question:

    A_i    = (r_i - mean r) / std r                                        `group_advantages`
    rho_it = pi(o_it | q, o_i<t) / pi_old(o_it | q, o_i<t)                 one ratio for each token
    L      = -1/G sum_i 1/|o_i| sum_t [ min(rho A, clip(rho, 1 - e, 1 + e) A) - beta KL_it ]
                                         `clipped_terms`, `aggregate`, k3 of `rlhf/kl.py`

Two corrections, by option:

    Dr. GRPO (Liu et al. 2025, section 3.1)   no 1/|o_i|: long wrong answers would cost less per
                                              token; no 1/std: easy questions would weigh most
    DAPO (Yu et al. 2025, section 3)          clip-higher, the mean over all tokens of the batch,
                                              and no groups without variance (`informative`)

At the first update on new answers every ratio is 1 and the advantages of a group sum to 0. So the
loss of equation 3 *is* 0 there, which people report as a bug. Its gradient is not 0: it is
-1/G sum_i A_i grad log pi(o_i) averaged over tokens, the policy gradient.

Letters: P questions, G answers to each, N = P G answers, T tokens of an answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from labkit import exercise
from rlhf.kl import kl_estimate
from rlhf.verifiable.settings import GRPOSettings, Loss

EPSILON = 1e-4
"""Added to the standard deviation, as trl does: a group without variance has advantages of 0."""


class Batch(NamedTuple):
    """What one update learns from; N answers, those of one group one after the other.

    Rows of groups whose rewards are all equal have advantages of 0, and need not be computed. They
    still count in the mean, unless sampling is dynamic: that is what `share` is for.
    """

    prompt: Tensor  # int64 (N, L)
    answer: Tensor  # int64 (N, T)
    mask: Tensor  # bool (N, T): tokens up to and including END
    old_logps: Tensor  # (N, T), of the sampler
    advantage: Tensor  # (N,)
    share: float = 1.0  # of what the loss is averaged over, that these rows are

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """All but `share`, row by row."""
        return self.prompt, self.answer, self.mask, self.old_logps, self.advantage

    def rows(self, kept: Tensor, loss: Loss, dynamic: bool) -> Batch:
        """The answers `kept`, bool (N,); without `dynamic` their loss is that of all answers."""
        prompt, answer, mask, old_logps, advantage = (column[kept] for column in self.columns)
        few = Batch(prompt, answer, mask, old_logps, advantage)
        if dynamic:
            return few
        tokens = few.mask.sum() / self.mask.sum()
        share = tokens.item() if loss == "dapo" else len(few.answer) / len(self.answer)
        return few._replace(share=share)


@exercise(minutes=15)
def group_advantages(reward: Tensor, scale: bool) -> Tensor:
    """Advantages (P, G) from rewards (P, G), one row for each question.

    Each reward minus the mean of its own row. With `scale` this is divided by the standard
    deviation of the row plus EPSILON; the deviation is the unbiased one (G - 1 in the denominator),
    as in trl. A row of equal rewards has advantages of 0, with `scale` or without. Rewards are
    constants, and stay as they are. Shao et al. 2024, section 4.1.2; without `scale`: Liu et al.
    2025, section 3.1.
    """
    centred = reward - reward.mean(dim=1, keepdim=True)
    return centred / (reward.std(dim=1, keepdim=True) + EPSILON) if scale else centred


@exercise(minutes=10)
def informative(reward: Tensor) -> Tensor:
    """Which questions teach anything: bool (P,) from rewards (P, G).

    False where all rewards of a row are equal, whatever their value: all advantages are 0 then, and
    the row would only make the batch smaller than it looks. Compare exactly, without a tolerance.
    Yu et al. 2025, section 3.2 (dynamic sampling).
    """
    return (reward != reward[:, :1]).any(dim=1)


@exercise(minutes=15)
def answer_mask(answer: Tensor, end: int) -> Tensor:
    """The tokens that the model decided about, bool (N, T), from answers int64 (N, T).

    True up to and including the first `end` of each row, False after it: those positions were
    filled up. A row without `end` is True throughout.
    """
    ends = (answer == end).long()
    return ends.cumsum(dim=1) - ends == 0


@exercise(minutes=20)
def clipped_terms(
    logps: Tensor, old_logps: Tensor, advantage: Tensor, low: float, high: float
) -> Tensor:
    """The loss of every token (N, T), before averaging: smaller is better.

    -min(rho A, clip(rho, 1 - low, 1 + high) A), where rho is the ratio of the token's probability
    to its probability when it was drawn, and A the advantage of its answer. The minimum keeps the
    pessimistic one of both: for A > 0 no gain above 1 + high, for A < 0 none below 1 - low, but in
    the other direction the loss counts in full. Positions after the end are computed like others;
    `aggregate` leaves them out.

    Args:
        logps: log-probabilities under the model in training, (N, T); the gradient is for these.
        old_logps: under the model that drew the answers, (N, T).
        advantage: (N,).
    """
    ratio = (logps - old_logps).exp()
    advantage = advantage[:, None]
    return -torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


@exercise(minutes=20)
def aggregate(terms: Tensor, mask: Tensor, loss: Loss) -> Tensor:
    """The scalar loss from the losses of tokens (N, T) and `mask` bool (N, T).

    grpo      the mean over the tokens of each answer, then the mean over answers
    dapo      the mean over all tokens of all answers
    dr_grpo   the sum over all tokens of all answers, divided by N T: the longest possible answer
              counts, not the actual one

    Tokens where `mask` is False count for nothing. Every answer has at least one token that counts.
    """
    kept = terms * mask
    if loss == "grpo":
        return (kept.sum(dim=1) / mask.sum(dim=1)).mean()
    return kept.sum() / (mask.sum() if loss == "dapo" else mask.numel())


def grpo_loss(
    logps: Tensor, batch: Batch, settings: GRPOSettings, reference: Tensor | None = None
) -> Tensor:
    """The loss of one update, a scalar; `reference` (N, T) is needed for a KL penalty."""
    terms = clipped_terms(
        logps, batch.old_logps, batch.advantage, settings.clip_low, settings.clip_high
    )
    if settings.beta > 0:
        assert reference is not None, "a KL penalty needs the reference's log-probabilities"
        kl = kl_estimate(logps, reference, "k3")  # equation 4
        if settings.kl_ratio:
            kl = kl * (logps - batch.old_logps).exp()
        terms = terms + settings.beta * kl
    return batch.share * aggregate(terms, batch.mask, settings.loss)


def clipped_share(logps: Tensor, batch: Batch, settings: GRPOSettings) -> Tensor:
    """Share of the tokens whose gradient the clip removes."""
    ratio, advantage = (logps - batch.old_logps).exp(), batch.advantage[:, None]
    above = (ratio > 1 + settings.clip_high) & (advantage > 0)
    below = (ratio < 1 - settings.clip_low) & (advantage < 0)
    return ((above | below) & batch.mask).sum() / batch.mask.sum()
