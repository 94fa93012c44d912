"""The structure module: frames that all begin at the origin are moved until they are a protein.

Jumper et al. 2021, supplement, algorithms 20, 23 and 28. Lengths are in Å outside of the module and
in units of 10 Å inside of it, where the network's numbers are about 1.

... batch axes, L residues, C channels, Z channels of the pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cross_frontiers.folding import frames as rigid
from cross_frontiers.folding.frames import Frames
from cross_frontiers.folding.ipa import InvariantPointAttention
from cross_frontiers.folding.msa import Transition
from labkit import exercise

UNIT = 10.0
"""Å of one unit inside of the module."""


@exercise(minutes=25)
def fape(
    predicted: Frames,
    true: Frames,
    predicted_points: Tensor,
    true_points: Tensor,
    clamp: float = 10.0,
    scale: float = 10.0,
    eps: float = 1e-4,
) -> Tensor:
    """Frame aligned point error (algorithm 28): every point as seen from every frame.

    frames (..., F) and points (..., P, 3), in Å -> (...). With x_ij the coordinates of point j in
    frame i (`frames.invert_apply`), d_ij = √(|x_ij predicted - x_ij true|² + eps), which is cut to
    at most `clamp`; the result is the mean over all i and j, divided by `scale`. It does not change
    if the prediction is rotated and moved as a whole, or the truth, and unlike a distance it
    notices a mirror image.
    """

    def seen(frames: Frames, points: Tensor) -> Tensor:
        each = Frames(frames.rotation[..., :, None, :, :], frames.translation[..., :, None, :])
        return rigid.invert_apply(each, points[..., None, :, :])

    apart = seen(predicted, predicted_points) - seen(true, true_points)
    distance = (apart.square().sum(-1) + eps).sqrt()
    return distance.clamp(max=clamp).mean(dim=(-1, -2)) / scale


class StructureModule(nn.Module):
    """Layers with shared weights; each looks at the frames and moves them."""

    def __init__(self, width: int, pair_width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.single_norm = nn.LayerNorm(width)
        self.pair_norm = nn.LayerNorm(pair_width)
        self.start = nn.Linear(width, width)
        self.attention = InvariantPointAttention(width, pair_width, heads)
        self.norm = nn.LayerNorm(width)
        self.transition = Transition(width)
        self.update_norm = nn.LayerNorm(width)
        self.update = nn.Linear(width, 6)
        nn.init.normal_(self.update.weight, std=0.02)
        nn.init.zeros_(self.update.bias)

    def forward(self, single: Tensor, pair: Tensor) -> list[Frames]:
        """single (..., L, C), pair (..., L, L, Z) -> frames (..., L) after each layer, in Å.

        A layer's rotation is a constant for the layers after it, as in line 20 of algorithm 20:
        gradients through a chain of rotations are unstable.
        """
        s = self.start(self.single_norm(single))
        z = self.pair_norm(pair)
        frames = rigid.identity(tuple(s.shape[:-1]), s)
        found = []
        for _ in range(self.layers):
            s = self.norm(s + self.attention(s, z, frames))
            s = s + self.transition(s)
            update = self.update(self.update_norm(s))
            frames = rigid.compose(frames, rigid.from_update(update))
            found.append(Frames(frames.rotation, UNIT * frames.translation))
            frames = Frames(frames.rotation.detach(), frames.translation)
        return found


def structure_loss(found: list[Frames], true: Frames, unclamped: float = 0.1) -> Tensor:
    """The mean over layers of the FAPE of all CA atoms in all frames, a scalar.

    Where a residue is further off than the clamp, it has no gradient. So a small share of the loss
    is not clamped, as are a tenth of the batches in the paper (supplement, section 1.11.5).
    """
    total = torch.zeros((), device=true.translation.device)
    for its in found:
        points = its.translation, true.translation
        total = total + (1 - unclamped) * fape(its, true, *points).mean()
        total = total + unclamped * fape(its, true, *points, clamp=math.inf).mean()
    return total / len(found)
