"""Actor and critic that learn from imagined trajectories alone.

Hafner et al. 2020, arXiv:2010.02193, section 3. The return of each imagined step is the
lambda-return (equation 4), and the actor follows its gradient through the model, as the paper does
for continuous actions.

Letters: H steps of imagination, B trajectories.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from labkit import exercise
from world_models import controller
from world_models.rssm import RSSM, Belief, head


@exercise(minutes=20)
def lambda_returns(reward: Tensor, value: Tensor, discount: Tensor, lam: float) -> Tensor:
    """The lambda-return of each of H steps (equation 4).

        V_t = r_t + d_t ((1 - lam) v_t+1 + lam V_t+1),   V_H = v_H

    At lam = 0 it is r_t + d_t v_t+1; at lam = 1 the discounted sum of all rewards, and the value
    of the last state.

    Args:
        reward: r_0 ... r_H-1, (H, B): r_t is paid for the step from state t to state t + 1.
        value: v_0 ... v_H, (H + 1, B), of the states.
        discount: d_0 ... d_H-1, (H, B): what the future after step t counts; 0 after an end.
        lam: from 0 to 1. No argument is changed.
    Returns:
        V_0 ... V_H-1, (H, B), in the type of the rewards; differentiable in all three.
    """
    later, returns = value[-1], []
    for t in reversed(range(len(reward))):
        later = reward[t] + discount[t] * ((1 - lam) * value[t + 1] + lam * later)
        returns.append(later)
    return torch.stack(returns[::-1])


REACH = 1.5
"""The mean stays within this of 0: the squashing tanh has no gradient left far from there, and an
actor that has run into full steer and full brake would never come back.
"""
NARROW, WIDE = 0.05, 1.0
"""Bounds of the deviation. Without the upper one the entropy has no end, and its bonus drowns the
rewards of a model that is not good yet.
"""


class Actor(nn.Module):
    """A Gaussian before the squashing of `controller.squash`."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.net = head(features, hidden, 2 * controller.ACTIONS)

    def forward(self, features: Tensor, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Actions (..., 3) for features (..., F), and the entropy (...) of the Gaussian."""
        mean, spread = self.net(features).chunk(2, dim=-1)
        mean = REACH * (mean / REACH).tanh()
        deviation = NARROW + (WIDE - NARROW) * spread.sigmoid()
        raw = mean if greedy else mean + deviation * torch.randn_like(mean)
        entropy = (deviation.log() + 1.418938533).sum(dim=-1)  # log sqrt(2 pi e)
        return controller.squash(raw), entropy


class Imagined(NamedTuple):
    """H steps of B trajectories."""

    features: Tensor  # (H + 1, B, F)
    reward: Tensor  # (H, B)
    discount: Tensor  # (H, B)
    entropy: Tensor  # (H, B)


def imagine(model: RSSM, actor: Actor, start: Belief, horizon: int, gamma: float) -> Imagined:
    """Follow the actor for `horizon` steps from states (B,), without a frame."""
    belief, states, entropies = start, [start.features], []
    for _ in range(horizon):
        action, entropy = actor(states[-1].detach())
        belief = model.imagine(belief, action)
        states.append(belief.features)
        entropies.append(entropy)
    features = torch.stack(states)
    reward, goes_on = model.rewards(features[1:])
    return Imagined(features, reward, gamma * goes_on, torch.stack(entropies))


class ActorCritic(nn.Module):
    """Both networks, and the slow copy of the critic that its targets come from."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.actor = Actor(features, hidden)
        self.critic = head(features, hidden, 1)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)

    def losses(self, trip: Imagined, lam: float, entropy: float) -> tuple[Tensor, Tensor]:
        """The actor's loss and the critic's, from a trip through the model."""
        value = self.slow_critic(trip.features).squeeze(-1)  # (H + 1, B)
        returns = lambda_returns(trip.reward, value, trip.discount, lam)
        with torch.no_grad():  # a step counts as much as it is likely to be reached
            weight = torch.cat([torch.ones_like(trip.discount[:1]), trip.discount[:-1]]).cumprod(0)
        actor = -(weight * (returns + entropy * trip.entropy)).mean()
        guess = self.critic(trip.features[:-1].detach()).squeeze(-1)
        critic = 0.5 * (weight * (guess - returns.detach()).square()).mean()
        return actor, critic
