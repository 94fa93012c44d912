"""Proximal policy optimisation: several epochs on each rollout, with a limit on policy change.

Schulman et al. 2017, arXiv:1707.06347, equation 7 and algorithm 1, with generalised advantage
estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

    delta_t = r_t + gamma V(s_t+1) - V(s_t)                              TD error
    A_t     = delta_t + gamma lambda A_t+1                               `gae`
    rho     = pi(a|s) / pi_old(a|s)
    L       = E[ min(rho A, clip(rho, 1 - eps, 1 + eps) A) ]             `clipped_objective`

    python -m reinforcement_learning.train +size=tiny algo=ppo
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from labkit import UsageError, exercise
from reinforcement_learning.envs import Environments, Transition
from reinforcement_learning.model import log_probability, mlp, sample
from reinforcement_learning.settings import PPOSettings


class Rollout(NamedTuple):
    """T steps of N environments, the resets dropped: B <= T N rows, on the learner's device."""

    obs: Tensor  # (B, obs)
    action: Tensor  # (B,)
    log_prob: Tensor  # (B,) of the policy that acted
    advantage: Tensor  # (B,)
    value_target: Tensor  # (B,)


@exercise(minutes=25)
def gae(
    reward: np.ndarray,
    value: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    gamma: float,
    lam: float,
) -> np.ndarray:
    """Generalised advantage estimation: advantages (T, N) from T steps of N environments.

    Args:
        reward: (T, N).
        value: (T + 1, N), value[t] = V(s_t). value[t + 1] belongs to the observation that followed
            step t before any reset, so it may be used where an episode was truncated.
        terminated, truncated: (T, N) bool. A terminated episode has no future: V(s_t+1) counts
            as 0. The sum of later TD errors stops at both kinds of end: another episode follows.
        gamma, lam: discount, and weight of later TD errors.
    Returns:
        In the type of `reward` and `value`: float32 stays float32. The arguments stay as they are.

    Schulman et al. 2016, equation 16: A_t = sum_k (gamma lam)^k delta_t+k.
    """
    delta = reward + gamma * value[1:] * ~terminated - value[:-1]  # (T, N)
    carry = gamma * lam * ~(terminated | truncated)  # (T, N)
    advantage = np.zeros_like(delta)
    later = np.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        later = delta[t] + carry[t] * later
        advantage[t] = later
    return advantage


@exercise(minutes=15)
def clipped_objective(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float
) -> Tensor:
    """PPO's clipped surrogate objective, to be maximised: a scalar, from three vectors (B,).

    Schulman et al. 2017, equation 7: the mean of min(rho A, clip(rho, 1 - eps, 1 + eps) A). The
    minimum makes it a lower bound: the clip removes the gain of a large step, never its loss. Its
    gradient is taken with respect to `log_prob`; the other two are constants of the rollout.
    """
    ratio = (log_prob - old_log_prob).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return torch.min(ratio * advantage, clipped * advantage).mean()


class PPO:
    """Actor and critic, two networks, learning from rollouts of all environments at once."""

    def __init__(
        self,
        settings: PPOSettings,
        envs: Environments,
        gamma: float,
        hidden: int,
        device: torch.device,
    ) -> None:
        self.settings, self.gamma, self.device = settings, gamma, device
        if settings.rollout < 2:
            raise UsageError(
                f"ppo.rollout must be > 1, got {settings.rollout}: one step may be a restart alone"
            )
        self.policy = mlp(envs.obs_dim, hidden, envs.num_actions, 0.01, nn.Tanh).to(device)
        self.critic = mlp(envs.obs_dim, hidden, 1, 1.0, nn.Tanh).to(device)
        self.weights = [*self.policy.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.weights, settings.lr, eps=1e-5, fused=True)

    @property
    def tracked(self) -> dict[str, Any]:
        """What resume must restore."""
        return {"policy": self.policy, "critic": self.critic, "optimizer": self.optimizer}

    @torch.inference_mode()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """The most probable actions (N,)."""
        return self.policy(torch.from_numpy(obs).to(self.device)).argmax(dim=-1).cpu().numpy()

    @torch.no_grad()
    def collect(self, envs: Environments) -> Rollout:
        """Follow the policy for `rollout` steps; then value every observation in one batch."""
        steps = []
        for _ in range(self.settings.rollout):
            logits = self.policy(torch.from_numpy(envs.obs).to(self.device))
            steps.append(envs.step(sample(logits).cpu().numpy()))
        rollout = Transition(*(np.stack(rows) for rows in zip(*steps, strict=True)))  # (T, N, ...)
        seen = np.concatenate([rollout.obs, rollout.next_obs[-1:]])  # (T + 1, N, obs)
        value = self.critic(torch.from_numpy(seen).to(self.device)).squeeze(-1).cpu().numpy()
        ends = rollout.terminated, rollout.truncated
        advantage = gae(rollout.reward, value, *ends, self.gamma, self.settings.gae_lambda)
        columns = (rollout.obs, rollout.action, advantage, advantage + value[:-1])
        kept = (torch.from_numpy(x[rollout.valid]).to(self.device) for x in columns)
        obs, action, advantages, target = kept
        log_prob = log_probability(self.policy(obs), action)
        if len(advantages) > 1:  # a single one has no deviation
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        return Rollout(obs, action, log_prob, advantages.float(), target.float())

    def update(self, rollout: Rollout) -> dict[str, Any]:
        """`epochs` passes over the rollout in shuffled minibatches."""
        settings = self.settings
        for _ in range(settings.epochs):
            order = torch.randperm(len(rollout.obs), device=self.device)
            for index in order.chunk(settings.minibatches):
                batch = Rollout(*(column[index] for column in rollout))
                logits = self.policy(batch.obs)
                log_prob = log_probability(logits, batch.action)
                gain = clipped_objective(log_prob, batch.log_prob, batch.advantage, settings.clip)
                value = self.critic(batch.obs).squeeze(-1)
                value_loss = (value - batch.value_target).square().mean()
                loss = 0.5 * value_loss - gain
                if settings.entropy:
                    entropy = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()
                    loss = loss - settings.entropy * entropy
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.weights, 0.5)
                self.optimizer.step()
        # E[rho - 1 - log rho] estimates KL(old || new) without bias and is never negative.
        log_ratio = log_prob.detach() - batch.log_prob
        approx_kl = (log_ratio.exp() - 1 - log_ratio).mean()
        return {"train/loss": loss, "train/value_loss": value_loss, "train/approx_kl": approx_kl}
