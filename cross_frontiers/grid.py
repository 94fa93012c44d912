"""A voxel grid of densities and colours, without any network (Fridovich-Keil et al. 2022,
Plenoxels; Sun et al. 2022, DVGO).

At each corner of a cell stands a number for the density, and for each colour channel coefficients
of spherical harmonics. Between corners they are interpolated, and only then made a density by
softplus: so one cell can hold a sharp surface (DVGO, section 4.2). Corners of empty cells are not
stored. Letters: P points, V corners stored, K harmonics.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cross_frontiers.encoding import spherical_harmonics
from cross_frontiers.interpolation import corner_numbers, trilinear, weighted_rows
from cross_frontiers.occupancy import Occupancy, Resizable


class VoxelGrid(Resizable):
    """Density and view-dependent colour in a cube, interpolated from the corners of its cells."""

    rows: Tensor

    def __init__(
        self, resolution: int, bound: float, degree: int = 1, scale: float = 25.0,
        opacity: float = 0.05,
    ) -> None:  # fmt: skip
        """
        Args:
            resolution: cells along an axis at first; `refine` makes more.
            degree: highest degree of the colours' harmonics, 0 to 2; `refine` can raise it.
            scale: density per unit of softplus.
            opacity: of the whole cube, seen along an axis, before training.
        """
        super().__init__()
        self.bound, self.scale = bound, scale
        self.occupancy = Occupancy(resolution, bound)
        count = (resolution + 1) ** 3
        raw = torch.tensor(opacity / (2 * bound * scale)).expm1().log().item()
        self.density_table = nn.Parameter(torch.full((count, 1), raw))
        self.colour_table = nn.Parameter(torch.zeros(count, 3 * (degree + 1) ** 2))
        self.register_buffer("rows", torch.arange(count))

    def look_up(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the tables (P, 8) around points (P, 3), and their weights (P, 8)."""
        cells, weights = trilinear(points * (0.5 / self.bound) + 0.5, self.occupancy.side)
        corners = corner_numbers(cells, self.occupancy.side + 1)
        return self.rows.index_select(0, corners.view(-1)).view(-1, 8), weights

    def density(self, points: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Densities (P,) at points (P, 3), and what `colour` needs of the points."""
        rows, weights = self.look_up(points)
        raw = weighted_rows(self.density_table, rows, weights)[:, 0]
        return F.softplus(raw) * self.scale, (rows, weights)

    def colour(self, features: tuple[Tensor, ...], directions: Tensor) -> Tensor:
        """Colours (P, 3) in [0, 1], seen along unit directions (P, 3)."""
        harmonics = self.colour_table.shape[1] // 3
        coefficients = weighted_rows(self.colour_table, *features).view(-1, 3, harmonics)
        shading = spherical_harmonics(directions)[:, None, :harmonics]
        # The constant harmonic is 0.28; without the factor colours would move that much slower.
        return torch.sigmoid((coefficients * shading).sum(dim=-1) / 0.28209479)

    @torch.no_grad()
    def prune(self, threshold: float) -> None:
        """Call those cells empty that hide less than `threshold` of what lies behind them. What was
        empty stays so, since its corners are no longer stored."""
        side, stored = self.occupancy.side, self.occupancy.cells
        raw = self.density_table[:, 0][self.rows].view(1, 1, *[side + 1] * 3)
        densest = F.max_pool3d(raw, 2, stride=1)[0, 0]
        hidden = -torch.expm1(-F.softplus(densest) * self.scale * 2 * self.bound / side)
        self.occupancy.set_cells((hidden > threshold) & stored)
        self.occupancy.cells &= stored

    @torch.no_grad()
    def refine(self, optimizer: torch.optim.Optimizer, resolution: int, degree: int) -> None:
        """Smaller cells, whose corners take the interpolated values; only those of occupied cells
        are kept. Harmonics that are new, up to `degree`, begin at 0. The optimiser, which has no
        other parameters, forgets the averages of the old ones."""
        before = self.occupancy.side
        self.occupancy.split(resolution)
        kept = self.needed()
        line = torch.arange(resolution + 1, device=kept.device) / resolution
        at = torch.stack((kept // (resolution + 1) ** 2, kept // (resolution + 1), kept), dim=1)
        points = line[at % (resolution + 1)]
        coarse, weights = trilinear(points, before)
        rows = self.rows[corner_numbers(coarse, before + 1)]
        density = weighted_rows(self.density_table, rows, weights)
        colours = weighted_rows(self.colour_table, rows, weights).view(len(kept), 3, -1)
        new = (degree + 1) ** 2 - colours.shape[2]
        optimizer.state.clear()
        self._take(optimizer, kept, density, F.pad(colours, (0, new)).flatten(1))

    @torch.no_grad()
    def compact(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the corners of empty cells, in the optimiser's averages too."""
        kept = self.needed()
        rows = self.rows[kept]
        states = [optimizer.state.pop(parameter, {}) for parameter in self.parameters()]
        self._take(optimizer, kept, self.density_table[rows], self.colour_table[rows])
        for parameter, state in zip(self.parameters(), states, strict=True):
            optimizer.state[parameter] = {
                name: value[rows] if value.ndim else value for name, value in state.items()
            }

    def needed(self) -> Tensor:
        """The corners of occupied cells, by their numbers, rising."""
        side = self.occupancy.side + 1
        needed = torch.zeros(side**3, dtype=torch.bool, device=self.rows.device)
        needed[corner_numbers(self.occupancy.cells.nonzero(), side)] = True
        return needed.nonzero()[:, 0]

    def _take(
        self, optimizer: torch.optim.Optimizer, kept: Tensor, density: Tensor, colours: Tensor
    ) -> None:
        """These tables, whose rows belong to the corners `kept`, are the parameters from now on."""
        self.density_table, self.colour_table = nn.Parameter(density), nn.Parameter(colours)
        self.rows = torch.zeros((self.occupancy.side + 1) ** 3, dtype=torch.int64).to(kept.device)
        self.rows[kept] = torch.arange(len(kept), device=kept.device)
        optimizer.param_groups[0]["params"] = list(self.parameters())
