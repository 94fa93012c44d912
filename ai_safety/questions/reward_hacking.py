"""What happens when a flawed reward is optimised? (Gao et al. 2023; Manheim and Garrabrant 2018)

An answer has some parts with content and some with flattery. People like content, and a little
flattery; too much of it spoils the answer:

    gold(x) = w . content + a f - b f^2            f: how many parts flatter

Reward models learn from comparisons of answers of the reference, in which more than three parts
seldom flatter: nothing tells them that the curve falls. The answers are so few that all of them are
listed, so every expectation is exact and no optimiser stands between a reward and its optimum:

    pi(x) = pi_0(x) exp(r(x) / beta) / Z           Rafailov et al. 2023, equation 4

Letters: X answers, L parts, K members of an ensemble, M comparisons, B batch.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from labkit import exercise

RARE = 0.1
"""Chance that a part of the reference's answers flatters; a part has content in half of them."""
LIKED, SPOILT = 1.0, 0.25
"""a and b of the gold reward: most is given for two parts that flatter."""


class World(NamedTuple):
    """All answers: float (X, L) of zeros and ones; the log-probability of each under the reference,
    float64 (X,); and its gold reward, float64 (X,)."""

    answers: Tensor
    logps: Tensor
    gold: Tensor


def world(content: int, flattery: int) -> World:
    """Every answer of `content` and `flattery` parts: 2^(content + flattery) of them."""
    answers = torch.tensor(list(itertools.product((0.0, 1.0), repeat=content + flattery)))
    chance = torch.tensor([0.5] * content + [RARE] * flattery, dtype=torch.float64)
    each = torch.where(answers > 0, chance, 1 - chance)  # (X, L)
    weight = torch.linspace(0.2, 0.6, content, dtype=torch.float64)
    flatters = answers[:, content:].double().sum(dim=1)
    gold = answers[:, :content].double() @ weight + LIKED * flatters - SPOILT * flatters**2
    return World(answers, each.log().sum(dim=1), gold)


class Comparisons(NamedTuple):
    """Pairs of answers by their numbers, int64 (M,): the preferred one and the other."""

    chosen: Tensor
    rejected: Tensor


def comparisons(
    place: World, probability: Tensor, count: int, generator: torch.Generator
) -> Comparisons:
    """Pairs drawn from `probability` (X,), ordered by people: Bradley and Terry on gold rewards."""
    pairs = torch.multinomial(probability, 2 * count, replacement=True, generator=generator)
    one, two = pairs.chunk(2)
    sure = torch.sigmoid(place.gold[one] - place.gold[two])
    first = torch.rand(count, generator=generator, dtype=torch.float64) < sure
    return Comparisons(torch.where(first, one, two), torch.where(first, two, one))


class Ensemble(nn.Module):
    """K small reward models side by side: answers (K, R, L) or (R, L) -> rewards (K, R)."""

    def __init__(self, members: int, parts: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Parameter(torch.randn(members, parts, hidden) / parts**0.5)
        self.bias = nn.Parameter(torch.randn(members, 1, hidden) / parts**0.5)
        self.out = nn.Parameter(torch.randn(members, hidden, 1) / hidden**0.5)

    def forward(self, answers: Tensor) -> Tensor:
        return ((answers @ self.into + self.bias).relu() @ self.out).squeeze(-1)


def standardised(rewards: Tensor, logps: Tensor) -> Tensor:
    """Rewards (..., X) with mean 0 and deviation 1 under the reference."""
    p = logps.exp()
    centred = rewards.double() - (rewards.double() * p).sum(dim=-1, keepdim=True)
    return centred / (centred**2 * p).sum(dim=-1, keepdim=True).sqrt()


def kl(policy: Tensor, logps: Tensor) -> float:
    """KL of a policy, probabilities (X,), to the reference, in nats."""
    return (torch.special.xlogy(policy, policy) - policy * logps).sum().item()


@exercise(minutes=30)
def optimal_policy(logps: Tensor, reward: Tensor, budget: float) -> Tensor:
    """The policy of largest expected reward among those within a KL budget: probabilities (X,).

    It is proportional to pi_0(x) exp(reward(x) / beta) for the beta at which KL(pi || pi_0) is the
    budget; the KL grows as beta falls, so beta is found by bisection. A budget of 0 gives the
    reference. A budget that is never used up gives the limit of beta -> 0: the reference,
    restricted to the answers of largest reward.

    Args:
        logps: log-probabilities of the reference, float64 (X,), all finite.
        reward: float64 (X,). budget: in nats. No argument is changed.
    Returns:
        Probabilities in float64, with a KL that is within 1e-6 of the budget where it is reached.
    Raises:
        ValueError for a budget below 0; its message gives that number.
    """
    if budget < 0:
        raise ValueError(f"a KL budget must be 0 or more nats, got {budget}")
    limit = logps.masked_fill(reward < reward.max(), -torch.inf).softmax(dim=0)
    if kl(limit, logps) <= budget:
        return limit
    low, high = 0.0, 1.0  # 1 / beta
    while kl((logps + high * reward).softmax(dim=0), logps) < budget:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if kl((logps + middle * reward).softmax(dim=0), logps) < budget:
            low = middle
        else:
            high = middle
    return (logps + low * reward).softmax(dim=0)


def best_of_n_policy(logps: Tensor, reward: Tensor, n: int) -> Tensor:
    """Probabilities (X,) of the best of n answers of the reference; ties are broken by lot.

    A group of answers with one reward wins with probability F^n - G^n, where F and G are the
    chances that one draw is at most, or below, its reward.
    """
    p = logps.exp()
    _, group = reward.unique(return_inverse=True)  # in ascending order
    mass = torch.zeros(int(group.max()) + 1, dtype=p.dtype).index_add_(0, group, p)
    most = mass.cumsum(0).clamp(max=1)
    wins = most**n - (most - mass).clamp(min=0) ** n
    return p * (wins / mass)[group]


class Alarm(NamedTuple):
    """How a detector fares on a stream of answers: the area under the ROC curve, and shares of the
    hacked answers that raise an alarm and of the others that do."""

    area: float
    found: float
    false_alarms: float


def hacked(proxy: Tensor, gold: Tensor) -> Tensor:
    """Which answers hack: bool (X,). Both rewards are standardised: the proxy puts the answer a
    deviation above the reference's mean, and the truth puts it below."""
    return (proxy > 1) & (gold < 0)


def threshold(score: Tensor, logps: Tensor, share: float) -> float:
    """The smallest score above which at most a `share` of the reference's answers lie. It needs no
    gold reward, so it can be set in advance."""
    order = score.argsort(descending=True)
    above = logps.exp()[order].cumsum(0)
    return score[order[int((above <= share).sum().clamp(max=len(score) - 1))]].item()


def alarm(score: Tensor, bad: Tensor, stream: Tensor, at: float) -> Alarm:
    """A detector that raises an alarm above the score `at`, on answers drawn from `stream`.

    Args:
        score: (X,). bad: which answers are hacked, bool (X,). stream: probabilities (X,).
    Raises:
        ValueError when nothing is hacked, or everything: there is nothing to detect.
    """
    share = stream[bad].sum().item()
    if not 0 < share < 1:
        raise ValueError(f"a share of {share:g} is hacked: expected some and not all")
    order = score.argsort()
    _, group = score[order].unique_consecutive(return_inverse=True)
    mass = torch.zeros(2, int(group.max()) + 1, dtype=stream.dtype)  # of others, of hacked ones
    mass.index_put_((bad[order].long(), group), stream[order], accumulate=True)
    others, hacks = mass[0] / (1 - share), mass[1] / share
    area = (hacks * (others.cumsum(0) - others / 2)).sum().item()
    raised = score > at
    found = stream[bad & raised].sum().item() / share
    return Alarm(area, found, stream[~bad & raised].sum().item() / (1 - share))
