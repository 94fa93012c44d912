"""Which cells of the cube hold something: what lies in the others is never computed.

Letters: P points, G cells along an axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Resizable(nn.Module):
    """A module whose own tensors take the shapes of the state that is loaded."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        own = (*self.named_parameters(recurse=False), *self.named_buffers(recurse=False))
        for name, tensor in own:
            if (saved := state_dict.get(prefix + name)) is not None:
                tensor.data = tensor.data.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Occupancy(Resizable):
    """G x G x G cells of the cube from -bound to bound; at first all are occupied."""

    cells: Tensor

    def __init__(self, side: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.register_buffer("cells", torch.ones(side, side, side, dtype=torch.bool))

    @property
    def side(self) -> int:
        """Cells along an axis."""
        return len(self.cells)

    def at(self, points: Tensor) -> Tensor:
        """Whether points (..., 3) lie in occupied cells: bool (...). None outside the cube do."""
        place = (points * (0.5 / self.bound) + 0.5) * self.side
        cell = place.to(torch.int32)  # towards 0, so the test for below 0 is on the place
        inside = (place.amin(dim=-1) >= 0) & (cell.amax(dim=-1) < self.side)
        cell = cell.clamp_(0, self.side - 1)
        flat = (cell[..., 0] * self.side + cell[..., 1]) * self.side + cell[..., 2]
        return inside & self.cells.view(-1).index_select(0, flat.view(-1)).view(flat.shape)

    def set_cells(self, cells: Tensor) -> None:
        """Take these cells (G, G, G) and their neighbours, since a cell may be missed by a hair. If
        there are none, training has not found anything yet, and all cells stay."""
        if not cells.any():
            return
        grown = F.max_pool3d(cells[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
        self.cells = grown

    def split(self, side: int) -> None:
        """Smaller cells, each occupied where the old cell around its middle is."""
        old = ((torch.arange(side, device=self.cells.device) + 0.5) * self.side / side).long()
        self.cells = self.cells[old][:, old][:, :, old].contiguous()

    def share(self) -> float:
        """Share of the cells that are occupied."""
        return self.cells.float().mean().item()


def cell_middles(side: int, bound: float) -> Tensor:
    """The middle of each cell, (side^3, 3), the last coordinate fastest."""
    line = ((torch.arange(side) + 0.5) / side * 2 - 1) * bound
    return torch.cartesian_prod(line, line, line)
