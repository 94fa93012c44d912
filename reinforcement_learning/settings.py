"""Settings of each algorithm, typed as `ppo.lr=3e-4`; the algorithms stand beside this file.

They are here because `--help` needs them at once, without waiting for torch and gymnasium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from labkit.config.bounds import (
    Bounds,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)


@dataclass
class PPOSettings:
    """Proximal policy optimisation."""

    steps: PositiveInt = 2_000_000
    """Budget of environment steps."""
    envs: PositiveInt = 16
    """Environments stepped together."""
    rollout: Annotated[int, Bounds(least=2)] = 512
    """Steps of each environment between two updates."""
    lr: PositiveFloat = 1e-3
    """Step size of Adam."""
    epochs: PositiveInt = 4
    """Passes over each rollout."""
    minibatches: PositiveInt = 16
    """Minibatches per pass."""
    gae_lambda: Fraction = 0.98
    """Weight of later TD errors in the advantage."""
    clip: PositiveFloat = 0.2
    """Clip range of the probability ratio to the rollout's policy."""
    entropy: NonNegativeFloat = 0.01
    """Weight of the policy's entropy in the objective."""

    @property
    def rounds(self) -> int:
        """Rounds of acting and learning in the budget."""
        return self.steps // (self.envs * self.rollout)


@dataclass
class ReinforceSettings:
    """REINFORCE with a learned baseline."""

    updates: PositiveInt = 2000
    """Budget of policy updates."""
    envs: PositiveInt = 32
    """Whole episodes in an update."""
    lr: PositiveFloat = 3e-3
    """Step size of Adam."""

    @property
    def rounds(self) -> int:
        """Rounds of acting and learning in the budget."""
        return self.updates


@dataclass
class DQNSettings:
    """Deep Q-network."""

    steps: PositiveInt = 500_000
    """Budget of environment steps."""
    envs: PositiveInt = 8
    """Environments stepped together."""
    collect: PositiveInt = 1
    """Steps of each environment between two rounds of updates."""
    updates: PositiveInt = 4
    """Gradient steps in a round."""
    lr: PositiveFloat = 5e-4
    """Step size of Adam."""
    batch: PositiveInt = 128
    """Transitions in a gradient step."""
    buffer: PositiveInt = 100_000
    """Transitions in the replay memory."""
    warmup: NonNegativeInt = 1000
    """Transitions stored before learning begins."""
    target_every: PositiveInt = 500
    """Gradient steps between two copies to the target network."""
    exploration: Annotated[float, Bounds(above=0, most=1)] = 0.2
    """Part of the budget over which the probability of a random action falls from 1."""
    epsilon: Fraction = 0.1
    """Probability of a random action after that."""
    double: bool = True
    """Double Q-learning: the online network chooses the action, the target one values it."""

    @property
    def rounds(self) -> int:
        """Rounds of acting and learning in the budget."""
        return self.steps // (self.envs * self.collect)


@dataclass
class QSettings:
    """Q-learning with a table."""

    steps: PositiveInt = 2_000_000
    """Budget of environment steps."""
    envs: PositiveInt = 16
    """Environments stepped together."""
    lr: PositiveFloat = 0.5
    """Step size at the first visit of a state and action."""
    lr_visits: PositiveFloat = 100.0
    """Visits after which the step size has halved."""
    epsilon: Fraction = 0.1
    """Probability of a random action in the second half of the budget."""
    initial: float = 0.0
    """First value of all entries; optimistic ones make it explore."""
    bins: PositiveInt = 14
    """Bins on each axis of a continuous observation."""

    @property
    def rounds(self) -> int:
        """Rounds of acting and learning in the budget."""
        return self.steps // self.envs
