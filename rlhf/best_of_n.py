"""Best of n: draw n answers, keep the one with the highest reward. No training at all.

    KL(best of n || reference) <= log n - (n - 1) / n          Stiennon et al. 2020, appendix G.3

with equality when no two answers have the same reward. It is the yardstick for every other method:
a policy that reaches a reward at a higher KL than this wastes it.

Letters: S samples for each prompt, B prompts.
"""

import math

import torch
from torch import Tensor

from labkit import exercise


@exercise(minutes=10)
def best_of_n_kl(n: int) -> float:
    """The upper bound of the module's docstring in nats. Raises ValueError for n below 1."""
    if n < 1:
        raise ValueError(f"n must be 1 or more, got {n}")
    return math.log(n) - (n - 1) / n


@exercise(minutes=25)
def expected_best(reward: Tensor, value: Tensor, n: int) -> Tensor:
    """For each prompt, the expected `value` of the best of n of its samples: (B,).

    Drawing one group of n wastes the others; instead, take the mean over *all* groups of n that can
    be drawn from the S samples without replacement (Nakano et al. 2021, appendix I). Sort the
    samples by reward. The one at place i (counted from 1, the lowest first) is the best of exactly
    C(i - 1, n - 1) of the C(S, n) groups. Compute these shares with exact whole numbers
    (`math.comb`): they are huge.

    Args:
        reward: what the choice is made by, (B, S). Of equal rewards the later sample counts as
            better.
        value: what is averaged, (B, S): the same reward, or another judge's.
        n: from 1 to S.
    Returns:
        In the type of `value`; it is to be looked at, so no gradient is needed.
    Raises:
        ValueError for another n.
    """
    samples = reward.shape[1]
    if not 1 <= n <= samples:
        raise ValueError(f"n must be from 1 to the {samples} samples of a prompt, got {n}")
    groups = math.comb(samples, n)
    share = [math.comb(place - 1, n - 1) / groups for place in range(1, samples + 1)]
    order = reward.argsort(stable=True)
    return value.gather(1, order) @ torch.tensor(share, dtype=value.dtype, device=value.device)


def measured_kl(reward: Tensor, n: int) -> Tensor:
    """KL of best-of-n to the reference on the samples' own distribution of rewards, (B,).

    Answers of equal reward form a group g of probability p_g; the best of n falls into it with
    probability q_g = F_g^n - F_g-1^n, where F is the cumulative sum of p. Inside a group both are
    alike, so KL = sum q_g log(q_g / p_g). It is below the bound where rewards are tied.
    """
    found = []
    for row in reward:
        _, counts = row.unique(sorted=True, return_counts=True)
        cumulative = counts.cumsum(0).double() / len(row)
        above = cumulative.pow(n)
        q = above - torch.cat([above.new_zeros(1), above[:-1]])
        p = counts.double() / len(row)
        found.append(torch.special.xlogy(q, q / p).sum())
    return torch.stack(found)
