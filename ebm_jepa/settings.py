"""Settings of each method, typed as `jem.steps=2000`; the methods stand beside this file.

They are here because `--help` needs them at once, without waiting for torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from labkit.config.bounds import (
    Bounds,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Share,
)

Start = Literal["data", "uniform", "gaussian"]
ConvName = Literal["conv", "wide_resnet"]
AntiCollapse = Literal["ema", "vicreg", "sigreg"]
Task = Literal["blocks", "views"]
ViewEncoder = Literal["small", "resnet18"]
Density2D = Literal["ring", "moons", "checkerboard", "pinwheel"]


@dataclass
class SamplerSettings:
    """Langevin chains in a replay buffer: what all energy-based methods share."""

    steps: PositiveInt = 50_000
    """Optimiser steps."""
    batch_size: Annotated[int, Bounds(least=2)] = 64
    """Examples a step."""
    lr: PositiveFloat = 1e-4
    """Peak learning rate of AdamW; it rises and then falls along cosines."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient; longer ones are shortened to it."""
    ema_decay: Share = 0.999
    """Weight of the old average at an update of the averaged weights, which are measured."""
    chains: PositiveInt = 64
    """Chains that are moved in each step: so many negative examples."""
    langevin_steps: PositiveInt = 20
    """Langevin steps of each chain between two updates of the weights, K."""
    step_size: PositiveFloat = 2.0
    """Step size of the Langevin dynamics, alpha: x moves by -alpha / 2 times the gradient."""
    noise: NonNegativeFloat | None = 0.01
    """Deviation of the noise in a step; null: sqrt(step_size), which samples at temperature 1."""
    buffer: PositiveInt = 10_000
    """Chains in the replay buffer, which continue where they were left."""
    restart: Fraction = 0.05
    """Share of the chains that start anew instead."""
    start: Start = "uniform"
    """Where a new chain starts: uniform noise; gaussian: a Gaussian fitted to each class
    (JEM++); or data: a training example."""
    energy_penalty: NonNegativeFloat = 0.01
    """Weight of the squared energies, which keeps them near 0."""


@dataclass
class JEMSettings(SamplerSettings):
    """A classifier that is an energy-based model as well."""

    network: ConvName = "wide_resnet"
    """Network, without batch normalisation: a small convolutional one, or a wide ResNet."""
    width: PositiveInt = 10
    """conv: channels of the first layer. wide_resnet: times 16."""
    depth: PositiveInt = 28
    """Layers of the wide ResNet: 6 n + 4."""
    p_x: NonNegativeFloat = 1.0
    """Weight of log p(x) beside log p(y | x); 0 trains a plain classifier, without chains."""
    input_noise: NonNegativeFloat = 0.03
    """Deviation of the noise that is added to training pictures, which are in [-1, 1]."""
    shift: Annotated[int, Bounds(least=0)] = 4
    """Training pictures are shifted by up to so many pixels each way."""
    outliers: str = "shapes"
    """Image set that must be told from the test set: shapes and digits need no download."""


@dataclass
class EBMSettings(SamplerSettings):
    """An energy-based model of pictures alone, without labels."""

    objective: Literal["cd", "dsm"] = "cd"
    """cd: contrastive divergence, with chains; dsm: denoising score matching, without."""
    sigma: PositiveFloat = 0.3
    """dsm: deviation of the noise that is added."""
    network: ConvName = "wide_resnet"
    """Network, without batch normalisation: a small convolutional one, or a wide ResNet."""
    width: PositiveInt = 4
    """conv: channels of the first layer. wide_resnet: times 16."""
    depth: PositiveInt = 16
    """Layers of the wide ResNet: 6 n + 4."""
    input_noise: NonNegativeFloat = 0.03
    """Deviation of the noise that is added to training pictures, which are in [-1, 1]."""
    outliers: str = "shapes"
    """Image set that must be told from the test set."""


@dataclass
class DensitySettings(SamplerSettings):
    """An energy in the plane, compared with a density that is known exactly."""

    target: Density2D = "ring"
    """The density: a ring of Gaussians, two moons, a checkerboard or a pinwheel."""
    objective: Literal["cd", "dsm", "exact"] = "cd"
    """cd: contrastive divergence, with chains; dsm: denoising score matching; exact: maximum
    likelihood with the normaliser by quadrature, which needs neither."""
    sigma: PositiveFloat = 0.1
    """dsm: deviation of the noise that is added."""
    width: PositiveInt = 128
    """Units of each hidden layer."""
    layers: PositiveInt = 3
    """Hidden layers."""
    grid: Annotated[int, Bounds(least=2)] = 200
    """Points of the quadrature along each side of the square [-4, 4] x [-4, 4]."""


@dataclass
class JEPASettings:
    """A joint-embedding predictive architecture."""

    task: Task = "views"
    """What is predicted. blocks: hidden blocks of the picture, at their places, by a Transformer
    (I-JEPA). views: the whole of another view of the picture, by a convolutional network."""
    anti_collapse: AntiCollapse = "sigreg"
    """What prevents collapse: ema, a teacher whose weights follow the encoder's; vicreg or
    sigreg, a regulariser without a teacher."""
    steps: PositiveInt = 100_000
    """Optimiser steps."""
    batch_size: Annotated[int, Bounds(least=2)] = 256
    """Pictures a step."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW; it rises and then falls along cosines."""
    weight_decay: NonNegativeFloat = 5e-4
    """Decoupled weight decay of AdamW."""
    clip: PositiveFloat = 3.0
    """Largest norm of the gradient; longer ones are shortened to it."""
    network: ViewEncoder = "resnet18"
    """views: the encoder, one of week 4's."""
    channels: PositiveInt = 64
    """views, network=small: channels of its first trained layer; the representation has 4 times
    as many numbers."""
    head_hidden: PositiveInt = 512
    """views: hidden units of the projection (and, with a teacher, of the predictor)."""
    head_dim: PositiveInt = 128
    """views: numbers of the embedding, which is predicted; the representation is before it."""
    colour: Fraction = 0.5
    """views: strength of the colour jitter, 0.5 as in week 4."""
    patch: PositiveInt = 4
    """blocks: side of a patch in pixels; a patch is a token."""
    width: PositiveInt = 192
    """blocks: numbers of a token in the encoder."""
    depth: PositiveInt = 9
    """blocks: layers of the encoder."""
    heads: PositiveInt = 3
    """blocks: heads of each attention, in encoder and predictor; they divide width and
    predictor_width."""
    predictor_width: PositiveInt = 96
    """blocks: numbers of a token in the predictor."""
    predictor_depth: PositiveInt = 4
    """blocks: layers of the predictor."""
    targets: PositiveInt = 4
    """blocks: blocks of a picture that are predicted, each by itself."""
    target_scale: Annotated[float, Bounds(above=0, below=1)] = 0.18
    """blocks: share of the picture in a target block; its aspect ratio is drawn."""
    context_scale: Annotated[float, Bounds(above=0, most=1)] = 1.0
    """blocks: share of the picture in the context block, out of which the targets are cut."""
    crop: Annotated[float, Bounds(above=0, most=1)] = 0.25
    """Smallest share of a picture that the random crop keeps."""
    flip: Fraction = 0.5
    """Probability that a picture is mirrored; 0 where that changes what it shows, as of digits."""
    ema_decay: Share = 0.996
    """ema: weight of the old teacher at the first update; it rises to 1 along a line."""
    regulariser: NonNegativeFloat = 20.0
    """vicreg, sigreg: weight of the regulariser beside the prediction error."""
    covariance: NonNegativeFloat = 0.04
    """vicreg: weight of the covariance term relative to the variance term; 1 / 25 in the paper."""
    slices: PositiveInt = 256
    """sigreg: random directions that are looked at in each step."""
