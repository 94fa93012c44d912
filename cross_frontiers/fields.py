"""Which field is trained, by name."""

from __future__ import annotations

from cross_frontiers.grid import VoxelGrid
from cross_frontiers.hashgrid import HashGrid
from cross_frontiers.mlp import RadianceMLP
from cross_frontiers.settings import GridSettings, HashSettings, MLPSettings


def make(
    kind: str, bound: float, grid: GridSettings, hashed: HashSettings, mlp: MLPSettings
) -> VoxelGrid | HashGrid | RadianceMLP:
    """The untrained field of that kind, in the cube from -bound to bound; only the settings of
    that kind are read."""
    if kind == "grid":
        degree = grid.degree if len(grid.resolutions) == 1 else 0
        return VoxelGrid(grid.resolutions[0], bound, degree)
    if kind == "hash":
        return HashGrid(
            bound, hashed.levels, hashed.coarsest, hashed.finest, hashed.log2_rows, hashed.width
        )
    return RadianceMLP(bound, mlp.width, mlp.layers, mlp.frequencies)
