"""Where is the object? Finding it in frames, and the simplest guesses of where it will be.

Pixels say little about a video: a sharp digit two pixels off is worse, by mean squared error, than
an empty frame. The clips of this week have known dynamics, so the error can be stated in pixels of
position.

Letters: N clips, T frames, J objects, C channels, S side of a picture, k side of an object.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise


def vertex(scores: Tensor, best: Tensor) -> Tensor:
    """By how much the peak of the parabola through three neighbours lies beside the middle one.

    scores (..., n) and index best (...) -> (...) in [-1/2, 1/2]; 0 at the ends, where a neighbour
    is missing.
    """
    inside = best.clamp(1, max(scores.shape[-1] - 2, 1))
    if scores.shape[-1] < 3:
        return torch.zeros_like(best, dtype=scores.dtype)
    index = inside[..., None] + torch.tensor([-1, 0, 1], device=scores.device)
    left, middle, right = scores.gather(-1, index).unbind(-1)
    bend = (left - 2 * middle + right).clamp(max=-1e-9)
    beside = ((left - right) / (2 * bend)).clamp(-0.5, 0.5)
    return torch.where(best == inside, beside, 0.0)


@exercise(minutes=30)
def track(frames: Tensor, sprites: Tensor) -> Tensor:
    """Positions of known objects in frames, by a matched filter.

    The score of a position is the sum, over the object's pixels and channels, of frame times
    sprite. The best whole position is refined, in each direction by itself, by `vertex`: the peak
    of the parabola through the scores of it and its two neighbours.

    Args:
        frames: uint8 (N, T, C, S, S).
        sprites: float (N, J, C, k, k).
    Returns:
        float32 (N, T, J, 2): row and column of the upper left corner, in pixels, from 0 to S - k.
    """
    N, T, C, S = frames.shape[:4]
    J, k = sprites.shape[1], sprites.shape[-1]
    pictures = frames.float().transpose(0, 1).reshape(T, N * C, S, S)
    scores = F.conv2d(pictures, sprites.float().flatten(0, 1), groups=N)  # (T, N J, M, M)
    M = S - k + 1
    scores = scores.view(T, N, J, M, M).transpose(0, 1)
    best = scores.flatten(-2).argmax(dim=-1)  # (N, T, J)
    row, column = best // M, best % M
    of_row = scores.gather(-2, row[..., None, None].expand(*row.shape, 1, M)).squeeze(-2)
    of_column = scores.gather(-1, column[..., None, None].expand(*row.shape, M, 1)).squeeze(-1)
    return torch.stack([row + vertex(of_column, row), column + vertex(of_row, column)], dim=-1)


def constant_velocity(positions: np.ndarray, given: int, room: float) -> np.ndarray:
    """Go on as between the last two given frames, and stop at a wall: (N, T, J, 2) -> the same.

    Only positions[:, :given] are used; given >= 2.
    """
    last = positions[:, given - 1]
    steps = np.arange(1 - given, positions.shape[1] - given + 1)[:, None, None]
    line = last[:, None] + (last - positions[:, given - 2])[:, None] * steps
    guess: np.ndarray = np.clip(line, 0, room)
    return guess


def copy_last(positions: np.ndarray, given: int) -> np.ndarray:
    """Stay where the last given frame has the object: (N, T, J, 2) -> the same."""
    return np.broadcast_to(positions[:, given - 1 : given], positions.shape)


def distance(found: np.ndarray, true: np.ndarray, where: np.ndarray) -> float:
    """Mean distance in pixels over the frames and objects in `where`, bool (N, T, J).

    found and true: (N, T, J, 2). NaN when there is nothing in `where`.
    """
    error = np.linalg.norm(found - true, axis=-1)[where]
    return float(error.mean()) if error.size else float("nan")
