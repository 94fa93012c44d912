"""A reward learned from comparisons of trajectory segments.

Christiano et al. 2017, Deep Reinforcement Learning from Human Preferences, section 2.2.3:

    P[1 > 2] = exp sum_t r(o1_t, a1_t) / (exp sum_t r(o1_t, a1_t) + exp sum_t r(o2_t, a2_t))   eq. 1
    loss     = -sum mu(1) log P[1 > 2] + mu(2) log P[2 > 1]

The reward of a segment is the *sum* over its steps: it is Bradley and Terry's strength of a player.
People are mistaken at times, whatever the difference, so a part of the probability is uniform.
Several networks are fitted, each on its own resample; where they disagree, a question is worth
asking (sections 2.2.3 and 2.2.4).

Letters: B comparisons, k steps of a segment, D numbers of an observation, A actions, E networks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import RunFailed, exercise
from reinforcement_learning import mlp


@exercise(minutes=25)
def log_preference(rewards: Tensor, error: float) -> Tensor:
    """Log-probabilities that each segment of a pair is preferred: (B, 2, k) -> (B, 2).

    Column 0 is log P[first > second], column 1 log P[second > first]. The judge follows equation 1,
    with the sums of the rewards over the k steps, except that with probability `error` the choice
    is a coin toss: P = (1 - error) P_eq1 + error / 2. `error` is from 0 to below 1; with 0 it is
    equation 1 alone. Rewards may be so different that exp of them overflows: the result is finite
    all the same, and so is its gradient. Christiano et al. 2017, section 2.2.3.
    """
    total = rewards.sum(dim=2)  # (B, 2)
    gap = total[:, 0] - total[:, 1]
    logs = F.logsigmoid(torch.stack([gap, -gap], dim=1))
    coin = torch.full_like(logs, error / 2).log()  # -inf without mistakes: adds nothing
    return torch.logaddexp(logs + math.log1p(-error), coin)


@exercise(minutes=10)
def preference_loss(logs: Tensor, choice: Tensor) -> Tensor:
    """Mean cross-entropy of the judge's choices, a scalar.

    Args:
        logs: (B, 2), as `log_preference` gives them.
        choice: (B,), 1 where the judge preferred the first segment, 0 where the second, and 0.5
            where it found them equal: mu of the paper is (choice, 1 - choice). A constant.
    """
    return -(choice * logs[:, 0] + (1 - choice) * logs[:, 1]).mean()


class RewardEnsemble(nn.Module):
    """E small networks of observation and action; their mean is the reward."""

    low: Tensor
    scale: Tensor

    def __init__(self, obs_dim: int, actions: int, hidden: int, members: int) -> None:
        super().__init__()
        self.actions = actions
        self.members = nn.ModuleList(
            mlp(obs_dim + actions, hidden, 1, 1.0, nn.Tanh) for _ in range(members)
        )
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Unscaled rewards of every member: (..., D), int64 (...) -> (E, ...)."""
        x = torch.cat([obs, F.one_hot(action, self.actions).to(obs.dtype)], dim=-1)
        return torch.stack([member(x).squeeze(-1) for member in self.members])

    @torch.no_grad()
    def reward(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The mean of the members, shifted and scaled: (..., D), (...) -> (...).

        Raises RunFailed when one is not a finite number.
        """
        device = self.low.device
        mean = self(torch.from_numpy(obs).to(device), torch.from_numpy(action).to(device)).mean(0)
        found: np.ndarray = ((mean - self.low) / self.scale).cpu().numpy()
        if not np.isfinite(found).all():
            raise RunFailed(
                "the learned reward is not a finite number: the reward model has diverged; try a "
                "smaller reward_lr="
            )
        return found

    @torch.no_grad()
    def normalise(self, obs: Tensor, action: Tensor) -> None:
        """Choose shift and scale by the steps (M, D), (M,) that were compared.

        Comparisons of equally long segments do not determine a constant that is added to every
        step. It matters here, since an episode ends when the pole falls: with rewards around 0 an
        early end would often be best. So the lowest rewards become 0 (those below the 5 % quantile
        stay a little negative), and one standard deviation becomes 1.
        """
        mean = self(obs, action).mean(dim=0)
        self.low.copy_(torch.quantile(mean, 0.05))
        self.scale.copy_(mean.std().clamp(min=1e-6))


class Comparisons:
    """The comparisons so far, room for `capacity` of them; its arrays can be saved."""

    def __init__(self, capacity: int, length: int, obs_dim: int) -> None:
        self.obs = np.zeros((capacity, 2, length, obs_dim), np.float32)
        self.action = np.zeros((capacity, 2, length), np.int64)
        self.choice = np.zeros(capacity, np.float32)
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, obs: np.ndarray, action: np.ndarray, choice: np.ndarray) -> None:
        """Append pairs (M, 2, k, D), (M, 2, k) and choices (M,)."""
        rows = slice(self.count, self.count + len(choice))
        self.obs[rows], self.action[rows], self.choice[rows] = obs, action, choice
        self.count += len(choice)

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """All of them: (M, 2, k, D), (M, 2, k), (M,)."""
        columns = (self.obs, self.action, self.choice)
        obs, action, choice = (torch.from_numpy(x[: self.count]).to(device) for x in columns)
        return obs, action, choice

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {
            "obs": self.obs, "action": self.action, "choice": self.choice, "count": self.count,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a checkpoint."""
        for name in ("obs", "action", "choice"):
            getattr(self, name)[:] = state[name]
        self.count = int(state["count"])


def fit(
    model: RewardEnsemble,
    optimizer: torch.optim.Optimizer,
    comparisons: Comparisons,
    updates: int,
    batch_size: int,
    error: float,
    rng: np.random.Generator,
) -> dict[str, float]:
    """`updates` steps on the comparisons, each member on draws of its own, with replacement.

    Returns the last loss, and the share of the decided comparisons that the mean orders as judged.
    """
    device = model.low.device
    obs, action, choice = comparisons.tensors(device)
    for _ in range(updates):
        index = torch.from_numpy(rng.integers(len(choice), size=(len(model.members), batch_size)))
        index = index.to(device)
        loss = torch.zeros((), device=device)
        for member, rows in enumerate(index):
            hot = F.one_hot(action[rows], model.actions).float()
            x = torch.cat([obs[rows], hot], dim=-1)
            rewards = model.members[member](x).squeeze(-1)  # (B, 2, k)
            loss = loss + preference_loss(log_preference(rewards, error), choice[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        total = model(obs, action).mean(dim=0).sum(dim=2)
    model.normalise(obs.flatten(0, 2), action.flatten())
    decided = choice != 0.5
    agrees = ((total[:, 0] > total[:, 1]) == (choice > 0.5))[decided].float().mean()
    return {"reward/loss": loss.item() / len(index), "reward/agreement": agrees.item()}
