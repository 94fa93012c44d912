"""Settings of each stage, typed as `dpo.lr=1e-5`; `--help` needs them without waiting for torch."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.config.bounds import NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class ImitationSettings:
    """The supervised start, on the answers that people preferred."""

    steps: PositiveInt = 500
    """Optimiser steps."""
    lr: PositiveFloat = 5e-5
    """Peak learning rate of AdamW."""
    muon_lr: NonNegativeFloat = 0.0
    """Peak of Muon for the matrices inside the layers; 0: AdamW for everything."""


@dataclass
class RewardSettings:
    """A reward model of the comparisons."""

    steps: PositiveInt = 700
    """Optimiser steps."""
    lr: PositiveFloat = 1e-5
    """Peak learning rate of AdamW."""
    muon_lr: NonNegativeFloat = 0.0
    """Peak of Muon."""


@dataclass
class DPOSettings:
    """Direct preference optimisation (week 16's)."""

    steps: PositiveInt = 700
    """Optimiser steps."""
    lr: PositiveFloat = 5e-6
    """Peak learning rate of AdamW."""
    muon_lr: NonNegativeFloat = 0.0
    """Peak of Muon."""
    beta: PositiveFloat = 0.1
    """Strength of the pull towards the start."""
