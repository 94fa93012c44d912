"""Settings of the stages, typed as `dpo.lr=1e-3`; `--help` needs them without waiting for torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from labkit.config.bounds import Bounds, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class StartSettings:
    """The supervised start: it helps with everything, and can criticise when asked to."""

    steps: PositiveInt = 6000
    """Optimiser steps."""
    lr: PositiveFloat = 2e-3
    """Peak learning rate of AdamW."""
    muon_lr: NonNegativeFloat = 0.01
    """Peak of Muon for the matrices inside the layers; 0: AdamW for everything."""
    lessons: PositiveInt = 100_000
    """Dialogues, critiques and comparisons."""
    definitions: Fraction = 0.4
    """Share of lessons that say what an object is."""
    critical: Fraction = 0.38
    """Share of critiques and comparisons, half each; the rest are requests that are helped with."""


@dataclass
class TuneSettings:
    """The first safety stage: imitation of revisions, or of people's answers."""

    steps: PositiveInt = 500
    """Optimiser steps."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""
    muon_lr: NonNegativeFloat = 0.005
    """Peak of Muon."""
    requests: PositiveInt = 8000
    """Requests that are answered."""
    replay: Fraction = 0.25
    """Lessons of the start that are learned beside, as a share of the requests: against forgetting
    what objects are, and how to criticise."""


@dataclass
class DPOSettings:
    """The second safety stage: preferences, by week 16's DPO."""

    steps: PositiveInt = 500
    """Optimiser steps."""
    lr: PositiveFloat = 2e-4
    """Peak learning rate of AdamW."""
    muon_lr: NonNegativeFloat = 0.0
    """Peak of Muon."""
    beta: PositiveFloat = 0.1
    """Strength of the pull towards the tuned model."""
    requests: PositiveInt = 8000
    """Requests whose answers are compared."""
    sure: Annotated[float, Bounds(least=0.5, below=1)] = 0.6
    """Pairs whose better answer has a smaller probability are left out."""
    looks: PositiveInt = 4
    """Looks at validation requests; the model of the best one is kept, or that before the stage."""


@dataclass(frozen=True)
class Stage:
    """Where a step is: the stage's name, the step inside it, and the steps it has."""

    name: str
    step: int
    steps: int


def stage_at(step: int, lengths: dict[str, int]) -> Stage:
    """The stage of a step; `lengths` are the steps of each stage, in their order."""
    for name, steps in lengths.items():
        if step < steps:
            return Stage(name, step, steps)
        step -= steps
    raise ValueError(f"step {step} is behind the last stage")
