"""Settings of each phase, typed as `rnn.hidden=256`; the phases stand beside this file.

They are here because `--help` needs them at once, without waiting for torch and gymnasium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from labkit.config.bounds import (
    Bounds,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

Exploration = Literal["smooth", "white"]
Features = Literal["v", "v_random", "v_m"]


@dataclass
class CollectSettings:
    """Rollouts of a random policy."""

    envs: Annotated[int, Bounds(least=4)] = 16
    """Streams, each of one copy of the environment; an eighth of them, or one, are for validation,
    and as many for the test of M."""
    steps: Annotated[int, Bounds(least=8)] = 20_000
    """Frames of each stream."""
    exploration: Exploration = "smooth"
    """smooth: a random walk of the actions; white: new actions in every frame."""
    seed: NonNegativeInt = 0
    """Seed of the rollouts, apart from the run's, so that all runs use the same ones."""


@dataclass
class VAESettings:
    """V, the variational autoencoder."""

    latent: PositiveInt = 32
    """Latents."""
    width: PositiveInt = 32
    """Channels of the first level; they double from level to level."""
    steps: PositiveInt = 20_000
    """Steps of its training."""
    batch: PositiveInt = 128
    """Frames a step."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""
    error_weight: PositiveFloat = 1.0
    """Weight of the squared error beside the KL; 1 is the paper's, for 64 x 64 pixels."""
    free_bits: NonNegativeFloat = 0.5
    """Nats of KL for each latent that cost nothing."""


@dataclass
class RNNSettings:
    """M, the recurrent network with a mixture density output."""

    hidden: PositiveInt = 256
    """Units of the LSTM."""
    mixtures: PositiveInt = 5
    """Gaussians in the mixture of each latent."""
    steps: PositiveInt = 20_000
    """Steps of its training."""
    batch: PositiveInt = 100
    """Sequences a step."""
    length: PositiveInt = 100
    """Frames of a sequence."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""


@dataclass
class SearchSettings:
    """C, the linear controller, found by CMA-ES."""

    generations: PositiveInt = 300
    """Generations of CMA-ES."""
    population: Annotated[int, Bounds(least=4)] = 64
    """Candidates in a generation."""
    episodes: PositiveInt = 16
    """Episodes, dreamed or driven, by which each candidate is judged."""
    horizon: PositiveInt = 1000
    """Frames of a dream."""
    temperature: PositiveFloat = 1.0
    """Temperature of the dream: above 1 it is less certain than M, below 1 more."""
    sigma: PositiveFloat = 0.1
    """First step size of CMA-ES."""


@dataclass
class DreamerSettings:
    """Dreamer: a model of categorical latents, actor and critic."""

    sees: Literal["frames", "latents"] = "frames"
    """frames: it learns an encoder and a decoder of its own. latents: V, which learns first, sees
    for it; a step costs a fraction of that with frames."""
    rounds: PositiveInt = 500
    """Rounds: the first one trains the model alone, the others drive and learn."""
    envs: PositiveInt = 4
    """Copies of the environment that the actor drives."""
    drive: PositiveInt = 1000
    """Frames that each of them is driven in a round, from a new episode on."""
    pretrain: PositiveInt = 500
    """Updates of the model alone, on the rollouts, in the first round: an actor that follows an
    untrained model may never come back."""
    updates: PositiveInt = 100
    """Updates in each later round."""
    batch: PositiveInt = 50
    """Windows in an update."""
    length: PositiveInt = 50
    """Steps of a window; at most as many as `drive`."""
    remembered: PositiveInt = 100
    """Rounds that are remembered; with the rollouts of the random policy, which always are."""
    starts: PositiveInt = 2500
    """Imagined trajectories in an update."""
    horizon: PositiveInt = 15
    """Steps of an imagined trajectory."""
    width: PositiveInt = 32
    """Channels of the first level of encoder and decoder of frames."""
    hidden: PositiveInt = 256
    """Units of the GRU and of all hidden layers."""
    groups: PositiveInt = 32
    """Categorical latents."""
    classes: Annotated[int, Bounds(least=2)] = 32
    """Classes of each."""
    error_weight: PositiveFloat = 1.0
    """Weight of the squared error of what is seen, pixels or latents, beside the KL."""
    beta: NonNegativeFloat = 0.1
    """Weight of the KL term."""
    balance: Fraction = 0.8
    """Share of the KL's gradient that moves the prior; the rest moves the posterior."""
    lam: Fraction = 0.95
    """Weight of later values in the lambda-return."""
    entropy: NonNegativeFloat = 1e-3
    """Weight of the actor's entropy."""
    lr: PositiveFloat = 3e-4
    """Learning rate of the model."""
    actor_lr: PositiveFloat = 1e-4
    """Learning rate of actor and critic."""
