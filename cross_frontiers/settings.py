"""Settings of the fields, apart from their code: `--help` reads them without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from labkit.config.bounds import Bounds, NonNegativeInt, PositiveFloat, PositiveInt, Share


@dataclass
class GridSettings:
    """A voxel grid (grid.py)."""

    resolutions: list[PositiveInt] = field(default_factory=lambda: [64, 128, 256])
    """Cells along an axis, from the first stage to the last."""
    degree: Annotated[int, Bounds(least=0, most=2)] = 2
    """Highest degree of the colours' spherical harmonics at the last stage; 0: the same from
    everywhere. Before it, while the shape is found, the degree is 0."""
    lr: PositiveFloat = 0.1
    """First learning rate of densities and colours."""


@dataclass
class HashSettings:
    """A hash grid with a small network (hashgrid.py)."""

    levels: PositiveInt = 12
    """Resolutions."""
    coarsest: PositiveInt = 16
    """Cells along an axis of the coarsest."""
    finest: PositiveInt = 512
    """Cells along an axis of the finest."""
    log2_rows: Annotated[int, Bounds(least=4, most=24)] = 19
    """Logarithm of the rows of a level's table."""
    width: PositiveInt = 64
    """Width of the networks."""
    lr: PositiveFloat = 1e-2
    """First learning rate."""


@dataclass
class SplatSettings:
    """A cloud of Gaussians (gaussians.py)."""

    count: PositiveInt = 100_000
    """Gaussians."""
    degree: Annotated[int, Bounds(least=0, most=2)] = 2
    """Highest degree of the colours' spherical harmonics; 0: the same from everywhere."""
    relocate_every: PositiveInt = 100
    """Steps after which transparent Gaussians move to opaque ones, up to 70 % of the steps."""
    lr: PositiveFloat = 1e-2
    """First learning rate of scales and colours; the others' are in proportion."""


@dataclass
class MLPSettings:
    """NeRF's network (mlp.py)."""

    width: PositiveInt = 256
    """Width of the layers."""
    layers: Annotated[int, Bounds(least=2)] = 8
    """Layers before density and colour part."""
    frequencies: NonNegativeInt = 10
    """Frequencies of the positional encoding; 0: bare coordinates."""
    crop: Share = 0.02
    """Share of the steps at the beginning that see only the middle of the pictures."""
    lr: PositiveFloat = 5e-4
    """First learning rate."""
