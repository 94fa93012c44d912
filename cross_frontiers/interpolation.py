"""Trilinear look-up in tables, with a backward pass that a CPU does fast. Letters: P points, V rows
of a table, C its columns, 8 the corners of a cell."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise

OFFSETS = tuple(itertools.product((0, 1), repeat=3))
"""The corners of a cell, counted from its lowest one: z changes fastest."""


@exercise(minutes=30)
def trilinear(points: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """The cell that each point lies in, and the trilinear weights of the cell's corners.

    The unit cube is cut into `resolution` cells along each axis, so there are resolution + 1
    corners along it, and corner k is at k / resolution. A point at p has the cell
    c = floor(p * resolution), and inside it the place f = p * resolution - c. A point on the upper
    face of the cube belongs to the last cell, and a point outside the cube is taken for the
    nearest one of the cube. The corner c + o, o one of OFFSETS, gets the weight

        product over the axes of (f where o is 1, 1 - f where o is 0)

    Args:
        points: (P, 3), not changed.
        resolution: cells along an axis.
    Returns:
        The cells' lowest corners c, int64 (P, 3), and weights (P, 8) in the order of OFFSETS, whose
        sum is 1.
    """
    scaled = points.clamp(0, 1) * resolution
    cell = scaled.floor().clamp(max=resolution - 1)
    f = scaled - cell
    # Points last, since a CPU multiplies long rows fast. Lower and upper corner: each (2, P).
    x, y, z = torch.stack((1 - f, f)).unbind(dim=2)
    weights = x[:, None, None] * y[None, :, None] * z[None, None, :]
    return cell.long(), weights.view(8, -1).T.contiguous()


def corners_of(cells: Tensor) -> Tensor:
    """The eight corners (P, 8, 3) of cells whose lowest ones are given, in the order of OFFSETS."""
    return cells[:, None] + torch.tensor(OFFSETS, device=cells.device)


def corner_numbers(cells: Tensor, side: int) -> Tensor:
    """The numbers (P, 8) of the corners of cells (P, 3) in a grid with `side` corners along an
    axis, counted with the last axis fastest."""
    first = (cells[:, 0] * side + cells[:, 1]) * side + cells[:, 2]
    steps = [(a * side + b) * side + c for a, b, c in OFFSETS]
    return first[:, None] + torch.tensor(steps, device=cells.device)


class _WeightedRows(torch.autograd.Function):
    """sum_k weights[p, k] table[rows[p, k]]. `embedding_bag` is fast forwards. Its own backward
    pass is an order of magnitude slower than sums column by column."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.length = len(table)
        return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        rows, weights = ctx.saved_tensors
        flat = rows.reshape(-1)
        result = grad.new_zeros(grad.shape[1], ctx.length)
        for column, part in zip(result, grad.T.contiguous(), strict=True):
            column.scatter_add_(0, flat, (part[:, None] * weights).reshape(-1))
        return result.T, None, None


def weighted_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """(P, C): for each point the weighted sum of rows of a table (V, C).

    Args:
        rows: int64 (P, K). weights: (P, K); no gradient flows to them.
    """
    result: Tensor = _WeightedRows.apply(table, rows, weights)
    return result
