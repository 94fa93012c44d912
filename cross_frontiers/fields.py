"""Which field is trained, by name."""

from __future__ import annotations

from cross_frontiers.grid import VoxelGrid
from cross_frontiers.hashgrid import HashGrid
from cross_frontiers.mlp import RadianceMLP
from cross_frontiers.settings import GridSettings, HashSettings, MLPSettings


def make(
    settings: GridSettings | HashSettings | MLPSettings, bound: float
) -> VoxelGrid | HashGrid | RadianceMLP:
    """The untrained field of these settings, in the cube from -bound to bound."""
    if isinstance(settings, GridSettings):
        return VoxelGrid(settings.resolutions[0], bound, settings.degree)
    if isinstance(settings, HashSettings):
        return HashGrid(
            bound, settings.levels, settings.coarsest, settings.finest, settings.log2_rows,
            settings.width,
        )  # fmt: skip
    return RadianceMLP(bound, settings.width, settings.layers, settings.frequencies)
