"""Hash grids (Müller et al. 2022, instant-ngp): features at several resolutions in small tables,
and a small network that makes density and colour of them.

A fine grid has more corners than its table has rows. Corners then share rows, by `hash_index`.
Most corners are empty space and ask for nothing, so the few that matter decide what the row holds.
Letters: P points, L levels, F features of a level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cross_frontiers.encoding import hash_index, spherical_harmonics
from cross_frontiers.interpolation import corner_numbers, corners_of, trilinear, weighted_rows
from cross_frontiers.occupancy import Occupancy, cell_middles

FEATURES = 2
PASSED = 15
"""Numbers that the density's network hands on to the colour's, as in instant-ngp."""


def level_resolutions(levels: int, coarsest: int, finest: int) -> list[int]:
    """Cells along an axis of each level, growing by one factor (eq. 2 and 3)."""
    if levels == 1:
        return [coarsest]
    growth = (finest / coarsest) ** (1 / (levels - 1))
    return [int(coarsest * growth**level + 1e-6) for level in range(levels)]


class HashGrid(nn.Module):
    """A multi-resolution hash encoding with a small network behind it."""

    def __init__(
        self, bound: float, levels: int = 8, coarsest: int = 16, finest: int = 128,
        log2_rows: int = 15, width: int = 32, occupancy: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.bound = bound
        self.resolutions = level_resolutions(levels, coarsest, finest)
        self.occupancy = Occupancy(occupancy, bound)
        sizes = [min((r + 1) ** 3, 1 << log2_rows) for r in self.resolutions]
        self.tables = nn.ParameterList(
            nn.Parameter(torch.empty(size, FEATURES).uniform_(-1e-2, 1e-2)) for size in sizes
        )
        self.density_net = nn.Sequential(
            nn.Linear(levels * FEATURES, width), nn.ReLU(), nn.Linear(width, 1 + PASSED)
        )
        self.colour_net = nn.Sequential(
            nn.Linear(PASSED + 9, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 3),
        )  # fmt: skip

    def encode(self, points: Tensor) -> Tensor:
        """Features (P, L F) of points (P, 3) of the world."""
        unit, parts = points * (0.5 / self.bound) + 0.5, []
        for table, resolution in zip(self.tables, self.resolutions, strict=True):
            cells, weights = trilinear(unit, resolution)
            if (resolution + 1) ** 3 <= len(table):
                rows = corner_numbers(cells, resolution + 1)
            else:
                rows = hash_index(corners_of(cells), len(table))
            parts.append(weighted_rows(table, rows, weights))
        return torch.cat(parts, dim=1)

    def density(self, points: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Densities (P,) at points (P, 3), and what `colour` needs of the points."""
        out = self.density_net(self.encode(points))
        return torch.exp(out[:, 0].float().clamp(max=10)), (out[:, 1:],)

    def colour(self, features: tuple[Tensor, ...], directions: Tensor) -> Tensor:
        """Colours (P, 3) in [0, 1], seen along unit directions (P, 3)."""
        seen = torch.cat((features[0], spherical_harmonics(directions)), dim=1)
        return torch.sigmoid(self.colour_net(seen).float())

    @torch.no_grad()
    def prune(self, threshold: float) -> None:
        """Call those cells empty that hide less than `threshold` of what lies behind them, judged
        at one random point of each."""
        side = self.occupancy.side
        width = 2 * self.bound / side
        points = cell_middles(side, self.bound).to(self.tables[0].device)
        points = points + (torch.rand_like(points) - 0.5) * width
        parts = [self.density(part)[0] for part in points.split(1 << 17)]
        hidden = -torch.expm1(-torch.cat(parts) * width).view(side, side, side)
        self.occupancy.set_cells(hidden > threshold)
