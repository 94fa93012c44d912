"""Block masks of I-JEPA: what is seen and what must be predicted (Assran et al. 2023, section 3).

A picture is a grid of patches. Some blocks of it, the targets, are predicted from one large block,
the context, out of which the targets are cut. Large targets cannot be filled in from the
neighbouring pixels, so predicting them takes knowledge of what is in the picture.

All pictures of a batch have blocks of the same size in different places, so that a batch is one
tensor. The context of each picture has as many patches as the smallest of the batch.

Letters: B batch, M targets, R rows and C columns of the grid.
"""

import math

import torch
from torch import Tensor

from labkit import exercise

ASPECTS = (0.75, 1.5)
"""Least and greatest height over width of a target block."""
TRIES = 100
"""Draws for a picture until its targets leave a context."""


def block_size(share: float, aspect: float, rows: int, columns: int) -> tuple[int, int]:
    """Height and width in patches of a block with that share of the grid and height over width.

    Each is at least 1 and at most the grid's.
    """
    area = share * rows * columns
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return min(max(height, 1), rows), min(max(width, 1), columns)


def blocks(
    count: int, size: tuple[int, int], rows: int, columns: int, generator: torch.Generator
) -> Tensor:
    """`count` rectangles of that size (height, width), anywhere on the grid, each place equally
    likely: bool (count, R, C), True inside.
    """
    height, width = size
    top = torch.randint(rows - height + 1, (count, 1), generator=generator)
    left = torch.randint(columns - width + 1, (count, 1), generator=generator)
    row, column = torch.arange(rows), torch.arange(columns)
    inside_rows = (row >= top) & (row < top + height)  # (count, R)
    inside_columns = (column >= left) & (column < left + width)  # (count, C)
    return inside_rows[:, :, None] & inside_columns[:, None, :]


@exercise(minutes=25)
def split(context: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which patches the context encoder sees, and which are predicted, as indices.

    A patch is in the context when it is in the context block and in *no* target of the same
    picture: otherwise its answer would be part of the question. The counts differ from picture to
    picture, so each keeps as many as the smallest count in the batch, a random choice of its own
    (always the first ones, in reading order, would leave out the bottom of the pictures). Indices
    count patches row by row, r C + c, and ascend within a picture and within a target.

    Args:
        context: bool (B, R, C), one block of each picture.
        targets: bool (B, M, R, C); all targets of the batch have equally many patches. Two
            targets of a picture may overlap.
        generator: for the random choice, with `torch.rand`.
    Returns:
        context int64 (B, N) and targets int64 (B, M, n).
    Raises:
        ValueError: a picture has no patch left for its context.
    """
    seen = (context & ~targets.any(dim=1)).flatten(1)  # (B, R C)
    keep = int(seen.sum(dim=1).min())
    if keep == 0:
        raise ValueError("the targets cover the whole context of a picture")
    score = torch.rand(seen.shape, generator=generator).masked_fill(~seen, -1.0)
    chosen = score.topk(keep, dim=1).indices.sort(dim=1).values
    batch, count = targets.shape[:2]
    places = targets.flatten(2).nonzero()[:, 2]  # row-major: ascending within each target
    return chosen, places.view(batch, count, -1)


def draw(
    batch: int,
    rows: int,
    columns: int,
    targets: int,
    target_scale: float,
    context_scale: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Masks of a batch, as indices: context (B, N) and targets (B, M, n).

    The target's aspect ratio is drawn once for the batch; a picture whose targets leave less than a
    tenth of the grid for its context is drawn again. Everything depends on the generator alone.

    Raises ValueError when a picture is still without a context after 100 draws.
    """
    low, high = ASPECTS
    aspect = low + (high - low) * float(torch.rand((), generator=generator))
    size = block_size(target_scale, aspect, rows, columns)
    large = block_size(context_scale, 1.0, rows, columns)
    least = max(1, rows * columns // 10)
    context = torch.zeros(batch, rows, columns, dtype=torch.bool)
    target = torch.zeros(batch, targets, rows, columns, dtype=torch.bool)
    redo = torch.arange(batch)
    for _ in range(TRIES):
        n = len(redo)
        target[redo] = blocks(n * targets, size, rows, columns, generator).view(
            n, targets, rows, columns
        )
        context[redo] = blocks(n, large, rows, columns, generator)
        left = (context & ~target.any(dim=1)).flatten(1).sum(dim=1)
        redo = (left < least).nonzero().flatten()
        if not len(redo):
            return split(context, target, generator)
    raise ValueError(
        f"{targets} targets of {size[0]} x {size[1]} patches leave no context on a grid of "
        f"{rows} x {columns}"
    )
