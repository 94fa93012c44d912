"""Settings of the test: attacks, certificate, explanations. Nothing here needs torch."""

from dataclasses import dataclass
from typing import Annotated

from labkit.config.bounds import Bounds, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class AttackSettings:
    """How strongly the test attacks."""

    images: PositiveInt = 10_000
    """Test images attacked by FGSM and PGD (at most all), a random subset."""
    steps: PositiveInt = 20
    """Steps of PGD, and of Auto-PGD."""
    restarts: PositiveInt = 3
    """Random starts of PGD; an image counts as right only if right after all."""
    few: PositiveInt = 1000
    """Images under the dearer attacks, Square and Auto-PGD: the first of those attacked."""
    queries: PositiveInt = 5000
    """Queries of the Square attack for each image."""


@dataclass
class CertifySettings:
    """Randomised smoothing."""

    images: PositiveInt = 500
    """Test images certified, the first of those attacked."""
    deviation: PositiveFloat = 0.25
    """Standard deviation of the noise, in pixel units; method=gaussian trains with it too."""
    samples: PositiveInt = 10_000
    """Draws of noise counted for each image; more allow larger radii."""
    alpha: Annotated[float, Bounds(above=0, below=1)] = 0.001
    """Chance that a certificate is wrong."""
    radius: NonNegativeFloat = 0.5
    """L2 radius of `certified_accuracy`, in pixel units."""


@dataclass
class ExplainSettings:
    """Explanations of single answers."""

    images: PositiveInt = 100
    """Test images explained, the first of those attacked."""
    path: PositiveInt = 50
    """Steps of integrated gradients."""
    noisy: PositiveInt = 25
    """Noisy copies that SmoothGrad averages over."""
    deviation: PositiveFloat = 0.15
    """Standard deviation of SmoothGrad's noise, in pixel units."""
    cells: PositiveInt = 7
    """LIME's segments: a grid of cells x cells."""
    samples: PositiveInt = 1000
    """Samples that LIME's linear model is fitted to."""
    deletions: PositiveInt = 28
    """Steps of the deletion curve, at most the pixels of an image."""
