"""REINFORCE with a learned baseline: play whole episodes, make good actions more probable.

Williams 1992, Machine Learning 8; Sutton and Barto 2018, section 13.4.

    G_t    = r_t + gamma G_t+1                                           `discounted_returns`
    grad J = E[ (G_t - V(s_t)) grad log pi(a_t|s_t) ]                    `policy_loss`

The baseline V keeps the gradient's mean and reduces its variance. The factor gamma^t of the book's
algorithm is left out, as in nearly all implementations.

    python -m reinforcement_learning.train +size=tiny algo=reinforce
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from labkit import exercise
from reinforcement_learning.envs import Environments, Transition
from reinforcement_learning.model import log_probability, mlp, sample
from reinforcement_learning.settings import ReinforceSettings


class Episodes(NamedTuple):
    """The B steps of N whole episodes, concatenated, on the learner's device."""

    obs: Tensor  # (B, obs)
    action: Tensor  # (B,)
    ret: Tensor  # (B,) discounted return from each step on


@exercise(minutes=10)
def discounted_returns(reward: np.ndarray, gamma: float) -> np.ndarray:
    """Returns (T, N) of rewards (T, N), one episode a column: G_t = r_t + gamma G_t+1, G_T = 0.

    Sutton and Barto 2018, equation 3.9. Episodes shorter than T are padded with zero rewards. The
    returns have the type of the rewards (float64 for whole numbers); the rewards stay as they are.
    """
    returns = np.zeros_like(reward, dtype=np.result_type(reward, 0.0))
    later = np.zeros_like(returns[0])
    for t in reversed(range(len(reward))):
        later = reward[t] + gamma * later
        returns[t] = later
    return returns


@exercise(minutes=10)
def policy_loss(log_prob: Tensor, ret: Tensor, baseline: Tensor) -> Tensor:
    """Loss whose gradient is minus REINFORCE's: a scalar, from three vectors (B,).

    -mean((G - V(s)) log pi(a|s)). The weight G - V(s) is a number here: no gradient may reach the
    baseline through it. Sutton and Barto 2018, equation 13.11.
    """
    return -((ret - baseline).detach() * log_prob).mean()


class Reinforce:
    """A policy and its baseline, updated once on every batch of whole episodes."""

    def __init__(
        self,
        settings: ReinforceSettings,
        envs: Environments,
        gamma: float,
        hidden: int,
        device: torch.device,
    ) -> None:
        self.gamma, self.device = gamma, device
        self.policy = mlp(envs.obs_dim, hidden, envs.num_actions, 0.01, nn.Tanh).to(device)
        self.baseline = mlp(envs.obs_dim, hidden, 1, 1.0, nn.Tanh).to(device)
        weights = [*self.policy.parameters(), *self.baseline.parameters()]
        self.optimizer = torch.optim.Adam(weights, settings.lr, fused=True)

    @property
    def tracked(self) -> dict[str, Any]:
        """What resume must restore."""
        return {"policy": self.policy, "baseline": self.baseline, "optimizer": self.optimizer}

    @torch.inference_mode()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """The most probable actions (N,)."""
        return self.policy(torch.from_numpy(obs).to(self.device)).argmax(dim=-1).cpu().numpy()

    @torch.no_grad()
    def collect(self, envs: Environments) -> Episodes:
        """One whole episode in each environment."""
        steps: list[Transition] = []
        envs.reset()
        running = np.ones(envs.num_envs, bool)
        while running.any():
            logits = self.policy(torch.from_numpy(envs.obs).to(self.device))
            steps.append(envs.step(sample(logits).cpu().numpy(), wanted=running))
            running = running & ~envs.done
        episodes = Transition(*(np.stack(rows) for rows in zip(*steps, strict=True)))
        reward = self._with_tail(episodes)
        ret = discounted_returns(reward, self.gamma)
        columns = (episodes.obs, episodes.action, ret.astype(np.float32))
        return Episodes(*(torch.from_numpy(x[episodes.valid]).to(self.device) for x in columns))

    def _with_tail(self, episodes: Transition) -> np.ndarray:
        """Rewards (T, N), 0 after each end; at a truncated end V of the rest is added."""
        reward = episodes.reward * episodes.valid
        cut = episodes.truncated & ~episodes.terminated & episodes.valid  # (T, N)
        if cut.any():
            rest = self.baseline(torch.from_numpy(episodes.next_obs[cut]).to(self.device))
            reward[cut] += self.gamma * rest.squeeze(-1).cpu().numpy()
        return reward

    def update(self, episodes: Episodes) -> dict[str, Any]:
        """One step of Adam for the policy, and for the baseline towards the returns."""
        baseline = self.baseline(episodes.obs).squeeze(-1)
        log_prob = log_probability(self.policy(episodes.obs), episodes.action)
        policy = policy_loss(log_prob, episodes.ret, baseline)
        value = (baseline - episodes.ret).square().mean()
        self.optimizer.zero_grad()
        (policy + value).backward()
        self.optimizer.step()
        return {"train/loss": policy, "train/value_loss": value}
