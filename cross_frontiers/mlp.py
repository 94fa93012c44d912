"""The network of NeRF (Mildenhall et al. 2020, figure 7), narrower: position to density, position
and direction to colour. Letters: P points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cross_frontiers.encoding import positional_encoding, spherical_harmonics
from cross_frontiers.occupancy import Occupancy


class RadianceMLP(nn.Module):
    """Density and view-dependent colour from a network of `layers` layers with one skip."""

    def __init__(
        self, bound: float, width: int = 128, layers: int = 4, frequencies: int = 8
    ) -> None:
        """
        Args:
            frequencies: of the positional encoding; 0 leaves the bare coordinates, and the network
                then smooths everything (section 5.1, table 2 row 2).
        """
        super().__init__()
        self.bound, self.frequencies = bound, frequencies
        self.occupancy = Occupancy(1, bound)  # one cell, always occupied: NeRF skips nothing
        inputs = 3 * (1 + 2 * frequencies)
        self.skip = layers // 2
        sizes = [inputs if i == 0 else width + inputs * (i == self.skip) for i in range(layers)]
        self.trunk = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.to_density = nn.Linear(width, 1)
        self.to_colour = nn.Sequential(
            nn.Linear(width + 9, width // 2), nn.ReLU(), nn.Linear(width // 2, 3)
        )

    def density(self, points: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Densities (P,) at points (P, 3), and what `colour` needs of the points."""
        encoded = positional_encoding(points / self.bound, self.frequencies)
        hidden = encoded
        for number, layer in enumerate(self.trunk):
            if number == self.skip and number > 0:
                hidden = torch.cat((hidden, encoded), dim=1)
            hidden = F.relu(layer(hidden))
        # Not ReLU as in the paper: a density that is 0 everywhere would have no gradient, and some
        # seeds would stay blank for ever.
        return 10 * F.softplus(self.to_density(hidden)[:, 0].float() - 1), (hidden,)

    def colour(self, features: tuple[Tensor, ...], directions: Tensor) -> Tensor:
        """Colours (P, 3) in [0, 1], seen along unit directions (P, 3)."""
        seen = torch.cat((features[0], spherical_harmonics(directions)), dim=1)
        return torch.sigmoid(self.to_colour(seen).float())

    def prune(self, threshold: float) -> None:
        """Nothing: the cube is one cell."""
