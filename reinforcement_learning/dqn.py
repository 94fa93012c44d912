"""Deep Q-network: Q-learning with a network, a replay memory, and a target network.

Mnih et al. 2015, Nature 518, algorithm 1; with `dqn.double` the targets of double Q-learning (van
Hasselt et al. 2016, arXiv:1509.06461, equation 4).

    y = r + gamma max_a Q_target(s', a)         or  r  where s' is terminal         `td_target`
    L = E[ huber(Q(s, a) - y) ]

    python -m reinforcement_learning.train +size=tiny algo=dqn
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import exercise
from reinforcement_learning.envs import Environments, Transition
from reinforcement_learning.model import mlp
from reinforcement_learning.q_learning import epsilon_greedy
from reinforcement_learning.settings import DQNSettings


@exercise(minutes=10)
def td_target(reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """One-step targets (B,): r + gamma V(s'), and r alone where the episode terminated at s'.

    `terminated` is a bool (B,). A truncated episode is not terminated: its s' has value next_value.
    Targets are constants: no gradient flows through them, and the arguments stay as they are.
    Mnih et al. 2015, algorithm 1.
    """
    return reward + gamma * next_value * ~terminated


class Replay:
    """The last `capacity` transitions, from which batches are drawn uniformly."""

    def __init__(self, capacity: int, obs_dim: int) -> None:
        self.data: dict[str, np.ndarray] = {
            "obs": np.zeros((capacity, obs_dim), np.float32),
            "action": np.zeros(capacity, np.int64),
            "reward": np.zeros(capacity, np.float32),
            "next_obs": np.zeros((capacity, obs_dim), np.float32),
            "terminated": np.zeros(capacity, bool),
        }
        self.capacity, self.added = capacity, 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, step: Transition) -> None:
        """Store the valid rows of a step; they replace the oldest."""
        rows = np.flatnonzero(step.valid)
        place = (self.added + np.arange(len(rows))) % self.capacity
        for name, column in self.data.items():
            column[place] = getattr(step, name)[rows]
        self.added += len(rows)

    def sample(self, index: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """The transitions `index` (B,) as tensors."""
        return {k: torch.from_numpy(v[index]).to(device) for k, v in self.data.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"added": self.added, **self.data}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.added = state["added"]
        for name, column in self.data.items():
            column[:] = state[name]


class DQN:
    """Q-network, target network and replay memory."""

    def __init__(
        self,
        settings: DQNSettings,
        envs: Environments,
        gamma: float,
        hidden: int,
        device: torch.device,
        seed: int,
    ) -> None:
        self.settings, self.gamma, self.device = settings, gamma, device
        shape = (envs.obs_dim, hidden, envs.num_actions)
        self.policy = mlp(*shape, 1.0, nn.ReLU).to(device)
        self.target = mlp(*shape, 1.0, nn.ReLU).to(device)
        self.target.load_state_dict(self.policy.state_dict())
        self.optimizer = torch.optim.Adam(self.policy.parameters(), settings.lr, fused=True)
        self.replay = Replay(settings.buffer, envs.obs_dim)
        self.rng = np.random.default_rng(seed)
        self.count = {"updates": 0}

    @property
    def tracked(self) -> dict[str, Any]:
        """What resume must restore."""
        names = ("policy", "target", "optimizer", "replay", "rng", "count")
        return {name: getattr(self, name) for name in names}

    @torch.inference_mode()
    def q_values(self, obs: np.ndarray) -> np.ndarray:
        """Q(s, .), (N, A)."""
        return self.policy(torch.from_numpy(obs).to(self.device)).cpu().numpy()

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The actions of highest value (N,)."""
        return self.q_values(obs).argmax(axis=-1)

    def epsilon(self, env_steps: int) -> float:
        """Probability of a random action: 1, falling linearly to `epsilon`, then constant."""
        done = min(1.0, env_steps / (self.settings.exploration * self.settings.steps))
        return 1.0 + done * (self.settings.epsilon - 1.0)

    def collect(self, envs: Environments) -> Replay:
        """Act `collect` times in each environment and store the transitions."""
        for _ in range(self.settings.collect):
            q = self.q_values(envs.obs)
            self.replay.add(envs.step(epsilon_greedy(q, self.epsilon(envs.env_steps), self.rng)))
        return self.replay

    def update(self, replay: Replay) -> dict[str, Any]:
        """`updates` gradient steps; the target network is copied every `target_every`."""
        settings, loss, q = self.settings, torch.zeros(()), torch.zeros(())
        if replay.added < settings.warmup:
            return {"train/loss": loss, "train/q": q}
        for _ in range(settings.updates):
            index = self.rng.integers(len(replay), size=settings.batch)
            batch = replay.sample(index, self.device)
            with torch.no_grad():
                next_q = self.target(batch["next_obs"])  # (B, A)
                chooser = self.policy(batch["next_obs"]) if settings.double else next_q
                next_value = next_q.gather(1, chooser.argmax(1, keepdim=True)).squeeze(1)
                target = td_target(batch["reward"], batch["terminated"], next_value, self.gamma)
            q = self.policy(batch["obs"]).gather(1, batch["action"][:, None]).squeeze(1)
            loss = F.smooth_l1_loss(q, target)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.policy.parameters(), 10.0)
            self.optimizer.step()
            self.count["updates"] += 1
            if self.count["updates"] % settings.target_every == 0:
                self.target.load_state_dict(self.policy.state_dict())
        return {"train/loss": loss.detach(), "train/q": q.detach().mean()}
