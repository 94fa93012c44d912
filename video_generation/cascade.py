"""What each stage of the cascade is given in training, and the three chained.

    base -> temporal -> spatial         (Ho et al. 2022, "Imagen Video", figure 6, in small)

The networks are trained apart from each other, each on true clips. What a super-resolution network
is given in training is therefore better than what it will be given in the chain; the noise on it
makes the two alike.
"""

import torch
from torch import Tensor

from video_generation.flow import augmented, given_frames
from video_generation.pipeline import Pipeline, enlarge, shrink


def conditions(
    x0: Tensor, stage: str, first: int, unconditional: float, augmentation: float
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """What a stage is given in training with true clips x0, (B, T, C, H, W).

    Returns:
        which frames, bool (B, T); their noise level (B,); and what else the network takes.
    """
    B, device = len(x0), x0.device
    if stage == "base":
        given = given_frames(B, x0.shape[1], stage, first)
        given[torch.rand(B) < unconditional] = False
        return given.to(device), torch.zeros(B, device=device), {}
    level = augmentation * torch.rand(B).to(device)
    if stage == "temporal":
        return given_frames(B, x0.shape[1], stage, 0).to(device), level, {}
    low = augmented(enlarge(shrink(x0)), level)
    nothing = torch.zeros(x0.shape[:2], dtype=torch.bool, device=device)
    return nothing, level, {"low": low, "level": level}


class Cascade:
    """The three stages, one after the other."""

    def __init__(self, base: Pipeline, temporal: Pipeline, spatial: Pipeline) -> None:
        self.base, self.temporal, self.spatial = base, temporal, spatial

    def generate(self, n: int, seed: int = 0) -> Tensor:
        """n clips of nothing given: uint8 (n, 2 frames - 1, C, 2 side, 2 side)."""
        return self._finish(self.base.generate(n, seed), seed)

    def predict(self, clips: Tensor, seed: int = 0) -> Tensor:
        """Continue clips, uint8 (N, T', C, side, side) at the base rate, and refine them."""
        return self._finish(self.base.predict(clips, seed), seed)

    def _finish(self, clips: Tensor, seed: int) -> Tensor:
        return self.spatial.larger(self.temporal.between(clips, seed + 1), seed + 2)
