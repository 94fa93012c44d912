"""Settings of each method, typed as `ppo.lr=3e-4`; the methods themselves are in other files.

They are here because `--help` needs them at once, without waiting for torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from labkit import LabConfig
from labkit.config.bounds import (
    Bounds,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)


@dataclass
class SFTSettings:
    """The supervised start, on both answers of each pair."""

    steps: PositiveInt = 1000
    """Optimiser steps."""
    lr: PositiveFloat = 5e-5
    """Peak learning rate of AdamW."""
    muon_lr: NonNegativeFloat = 0.0
    """Peak of Muon for the matrices inside the layers; 0: AdamW for everything."""


@dataclass
class RewardSettings:
    """The reward model."""

    steps: PositiveInt = 1000
    """Optimiser steps."""
    lr: PositiveFloat = 2e-5
    """Peak learning rate of AdamW."""
    muon_lr: NonNegativeFloat = 0.0
    """Peak of Muon for the matrices inside the layers; 0: AdamW for everything."""
    pairs: PositiveInt | None = None
    """Training pairs that it sees; all when left out. Few give a reward that is easy to hack."""


@dataclass
class DPOSettings:
    """Direct preference optimisation."""

    lr: PositiveFloat = 1e-5
    """Peak learning rate."""
    beta: PositiveFloat = 0.1
    """Strength of the pull towards the reference."""
    smoothing: Annotated[float, Bounds(least=0, below=0.5)] = 0.0
    """Share of labels taken to be wrong (cDPO)."""


@dataclass
class IPOSettings:
    """Identity preference optimisation, averaged over tokens."""

    lr: PositiveFloat = 1e-5
    """Peak learning rate."""
    tau: PositiveFloat = 0.5
    """The margin per token that is aimed at is 1 / (2 tau)."""


@dataclass
class KTOSettings:
    """Kahneman-Tversky optimisation."""

    lr: PositiveFloat = 1e-5
    """Peak learning rate."""
    beta: PositiveFloat = 0.1
    """Steepness of the value function."""
    desirable: NonNegativeFloat = 1.0
    """Weight of good answers."""
    undesirable: NonNegativeFloat = 1.0
    """Weight of bad answers."""


@dataclass
class SimPOSettings:
    """Simple preference optimisation: no reference."""

    lr: PositiveFloat = 1e-5
    """Peak learning rate."""
    beta: PositiveFloat = 2.0
    """Scale of the reward, the mean log-probability of a token."""
    gamma: NonNegativeFloat = 1.0
    """Margin of reward that is aimed at."""


@dataclass
class ORPOSettings:
    """Odds ratio preference optimisation: no reference."""

    lr: PositiveFloat = 1e-5
    """Peak learning rate."""
    weight: PositiveFloat = 0.5
    """Weight of the odds ratio beside the likelihood of the preferred answers."""


@dataclass
class PPOSettings:
    """Proximal policy optimisation on the reward model, with a KL penalty."""

    steps: PositiveInt = 500
    """Rounds of answering and learning."""
    lr: PositiveFloat = 1e-5
    """Peak learning rate."""
    beta: NonNegativeFloat = 0.05
    """Price of a nat of KL to the reference, in units of reward."""
    rollout: Annotated[int, Bounds(least=2)] = 256
    """Answers of each round."""
    epochs: PositiveInt = 2
    """Passes over them."""
    minibatches: PositiveInt = 2
    """Minibatches of each pass."""
    clip: PositiveFloat = 0.2
    """Range of the ratio to the policy that answered."""
    value_clip: PositiveFloat = 0.5
    """Range in which a value may change in a round."""
    value_weight: PositiveFloat = 0.5
    """Weight of the value's loss."""
    gae_lambda: Fraction = 0.95
    """Weight of later TD errors in the advantage."""


MethodSettings = (
    SFTSettings | RewardSettings | DPOSettings | IPOSettings | KTOSettings | SimPOSettings
    | ORPOSettings | PPOSettings
)  # fmt: skip


@dataclass
class MethodConfig(LabConfig):
    """The method of a run, and the settings of each."""

    method: Literal["sft", "reward", "dpo", "ipo", "kto", "simpo", "orpo", "ppo", "trl"] = "dpo"
    """sft: the supervised start. reward: the reward model. trl: DPO by trl's trainer."""
    steps: PositiveInt = 600
    """Optimiser steps of dpo, ipo, kto, simpo, orpo and trl."""
    sft: SFTSettings = field(default_factory=SFTSettings)
    """Settings of method=sft."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    """Settings of method=reward."""
    dpo: DPOSettings = field(default_factory=DPOSettings)
    """Settings of method=dpo and method=trl."""
    ipo: IPOSettings = field(default_factory=IPOSettings)
    """Settings of method=ipo."""
    kto: KTOSettings = field(default_factory=KTOSettings)
    """Settings of method=kto."""
    simpo: SimPOSettings = field(default_factory=SimPOSettings)
    """Settings of method=simpo."""
    orpo: ORPOSettings = field(default_factory=ORPOSettings)
    """Settings of method=orpo."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """Settings of method=ppo."""

    @property
    def chosen(self) -> MethodSettings:
        """The settings of the method that `method=` names."""
        return getattr(self, {"trl": "dpo"}.get(self.method, self.method))

    @property
    def total(self) -> int:
        """Steps of the loop."""
        return getattr(self.chosen, "steps", self.steps)
