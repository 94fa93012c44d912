"""What a person sees of a run, from films uint8 (T, H, W, 3) of one episode."""

from __future__ import annotations

import numpy as np

GAP = 2
"""Pixels between two pictures."""
MOMENTS = 10
"""Frames of a film that `moments` shows."""


def beside(*films: np.ndarray, scale: int = 4) -> list[np.ndarray]:
    """Films side by side: T frames (H', W', 3), each pixel repeated `scale` times both ways."""
    gap = np.full((*films[0].shape[:2], GAP, 3), 255, np.uint8)
    parts = [part for film in films for part in (film, gap)][:-1]
    joined = np.concatenate(parts, axis=2)
    return list(joined.repeat(scale, axis=1).repeat(scale, axis=2))


def moments(*films: np.ndarray) -> np.ndarray:
    """A row of MOMENTS frames of each film, evenly spaced: (films MOMENTS, H, W, 3)."""
    chosen = np.linspace(0, len(films[0]) - 1, MOMENTS).round().astype(int)
    return np.concatenate([film[chosen] for film in films])
