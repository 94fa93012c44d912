"""Can a critic help a judge who misses errors? (Saunders et al. 2022; Bowman et al. 2022)

Somebody claims a class for a digit; half of the claims are false. The judge sees a few small places
of the picture, by lot, and one more. Then it accepts or rejects the claim. The last place is

    alone        by lot too
    critique     the one to which a critic points, who sees the whole picture and wants to convince
                 the judge of what it believes itself
    misled       the one to which a critic points who wants the opposite
    ceiling      none: the critic judges by itself

Sandwiching: the judge alone is the floor, the critic the ceiling, and the question is how far up
the help brings the judge. The critic is a trained model, not the truth: it errs too.

Letters: N images, H and W their sides, D = H W pixels, K classes, P places.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ai_safety.questions.debate import Judge, judge_input
from labkit import exercise
from labkit.learning.modes import evaluating


def places(height: int, width: int, side: int) -> Tensor:
    """Masks of all square places, half a side apart: bool (P, H W)."""
    stride = max(1, side // 2)
    found = []
    for top in range(0, height - side + 1, stride):
        for left in range(0, width - side + 1, stride):
            mask = torch.zeros(height, width, dtype=torch.bool)
            mask[top : top + side, left : left + side] = True
            found.append(mask.flatten())
    return torch.stack(found)


@exercise(minutes=20)
def claim_log_odds(logits: Tensor, claim: Tensor) -> Tensor:
    """The log-odds that a claim is true, for a judge that knows how claims are made: (N,).

    The judge's logits over classes give p(y), its belief before it hears the claim. A claim is true
    in half of all cases; else it is a class drawn uniformly from the K - 1 wrong ones. By Bayes'
    rule, the odds are

        p(c) / mean of p(y) over the K - 1 classes y that are not c

    Computed from log-probabilities, so that a belief near 0 or 1 gives a finite number.

    Args:
        logits: (N, K), K of 2 or more. claim: classes, int64 (N,). Neither is changed.
    """
    logps = logits.log_softmax(dim=-1)
    mine = F.one_hot(claim, logits.shape[-1]).bool()
    others = logps.masked_fill(mine, -torch.inf).logsumexp(dim=-1)
    others = others - torch.log(torch.tensor(logits.shape[-1] - 1.0))
    return logps[mine] - others


def claims(labels: Tensor, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A claim for each label (N,), and whether it is true, bool (N,): every second one is."""
    shift = torch.randint(1, classes, labels.shape, generator=generator)
    true = torch.arange(len(labels)) % 2 == 0
    return torch.where(true, labels, (labels + shift) % classes), true


def looked_at(count: int, masks: Tensor, looks: int, generator: torch.Generator) -> Tensor:
    """What a judge sees who looks at `looks` places by lot: bool (count, D) from masks (P, D)."""
    seen = torch.zeros(count, masks.shape[1], dtype=torch.bool)
    for _ in range(looks):
        seen |= masks[torch.randint(len(masks), (count,), generator=generator)]
    return seen


def judge_loss(judge: Judge, images: Tensor, labels: Tensor, seen: Tensor) -> Tensor:
    """Cross-entropy of a judge who sees the pixels `seen`, bool (N, D), of images (N, D)."""
    return F.cross_entropy(judge(judge_input(images, seen)), labels)


def odds_by_place(
    judge: Judge, images: Tensor, claim: Tensor, own: Tensor, masks: Tensor
) -> Tensor:
    """The judge's log-odds of each claim if each place is shown beside its own looks: (N, P).

    Args:
        images: (N, D). claim: (N,). own: what the judge sees anyway, bool (N, D). masks: (P, D).
    """
    found = []
    with evaluating(judge):
        for mask in masks:
            found.append(claim_log_odds(judge(judge_input(images, own | mask)), claim))
    return torch.stack(found, dim=1)


def point(odds: Tensor, accept: Tensor) -> Tensor:
    """The place, int64 (N,), at which the judge comes closest to accepting where `accept` (N,) is
    True, and to rejecting where it is not. `odds`: (N, P)."""
    return torch.where(accept, odds.argmax(dim=1), odds.argmin(dim=1))


class Rates(NamedTuple):
    """An overseer on claims: accuracy, wrong claims rejected, true claims rejected; 0 to 1."""

    accuracy: float
    errors_found: float
    false_alarms: float


def rates(accepts: Tensor, true: Tensor) -> Rates:
    """Of verdicts and truths, bool (N,) each.

    Raises ValueError without both true and false claims: a share is then not defined."""
    if true.all() or not true.any():
        raise ValueError("claims of one kind only: expected some true and some false ones")
    return Rates(
        (accepts == true).double().mean().item(),
        (~accepts[~true]).double().mean().item(),
        (~accepts[true]).double().mean().item(),
    )


def verdicts(
    judge: Judge, critic: Judge, images: Tensor, claim: Tensor, masks: Tensor, looks: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:  # fmt: skip
    """What the judge says, alone and with either critic, and what the critic says: bool (N,)."""
    own = looked_at(len(claim), masks, looks, generator)
    odds = odds_by_place(judge, images, claim, own, masks)
    with evaluating(critic):
        seen = judge_input(images, torch.ones_like(images).bool())
        believed = claim_log_odds(critic(seen), claim) > 0
    chosen = {
        "alone": torch.randint(len(masks), claim.shape, generator=generator),
        "critique": point(odds, believed),
        "misled": point(odds, ~believed),
    }
    found = {name: odds.gather(1, at[:, None])[:, 0] > 0 for name, at in chosen.items()}
    return {**found, "ceiling": believed}


def gain_interval(first: Tensor, second: Tensor, true: Tensor) -> tuple[float, float, float]:
    """How much more often the second verdicts are right than the first, with a 95 % interval.

    The two are of the same claims, so the interval is that of the paired differences.
    """
    difference = (second == true).double() - (first == true).double()
    half = 1.96 * difference.std().item() / len(true) ** 0.5
    mean = difference.mean().item()
    return mean, mean - half, mean + half
