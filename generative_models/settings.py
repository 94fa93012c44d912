"""Settings of each method, typed as `vae.beta=4`; the methods stand beside this file.

They are here because `--help` needs them at once, without waiting for torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from labkit.config.bounds import NonNegativeFloat, PositiveFloat, PositiveInt, Share

Likelihood = Literal["bernoulli", "gaussian"]
Loss = Literal["non_saturating", "hinge"]
AUGMENTATIONS = ("color", "translation", "cutout")


@dataclass
class VAESettings:
    """Variational autoencoder."""

    likelihood: Likelihood = "gaussian"
    """bernoulli: of pictures binarised at random; gaussian: of grey levels, one learned deviation.
    """
    latent: PositiveInt = 128
    """Latents; with spatial=true, channels of the latents."""
    spatial: bool = False
    """Latents keep the height and width of the last level, as an autoencoder for week 10."""
    beta: NonNegativeFloat = 1.0
    """Weight of the KL term (Higgins et al. 2017); 1 is the ELBO."""
    free_bits: NonNegativeFloat = 0.0
    """Nats of KL for each latent that cost nothing (Kingma et al. 2016)."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""
    importance_samples: PositiveInt = 50
    """Samples of the importance-weighted bound, in the evaluation."""


@dataclass
class GANSettings:
    """Generative adversarial network."""

    latent: PositiveInt = 128
    """Numbers in the noise vector."""
    loss: Loss = "hinge"
    """Loss of both players."""
    spectral_norm: bool = True
    """Divide each weight of the discriminator by its largest singular value."""
    r1: NonNegativeFloat = 0.0
    """Weight of the R1 penalty, its gamma; 0 leaves it out. It costs about half as much again."""
    augment: list[str] = field(default_factory=lambda: ["translation"])
    """DiffAugment, before the discriminator: any of color, translation, cutout."""
    lr_generator: PositiveFloat = 2e-4
    """Peak learning rate of the generator's Adam."""
    lr_discriminator: PositiveFloat = 4e-4
    """Peak learning rate of the discriminator's Adam: a faster one (Heusel et al. 2017)."""
    discriminator_steps: PositiveInt = 1
    """Updates of the discriminator for each of the generator, on parts of the same batch."""
    ema_decay: Share = 0.999
    """Weight of the old average at an update of the generator's averaged weights."""


@dataclass
class VQSettings:
    """Vector-quantised autoencoder."""

    codes: PositiveInt = 512
    """Vectors in the codebook."""
    dimension: PositiveInt = 64
    """Numbers in each."""
    commitment: NonNegativeFloat = 0.25
    """Weight of the term that keeps the encoder's output near its code."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""
