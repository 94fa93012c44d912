"""Invariant point attention: residues look at each other in space, wherever the whole may stand.

Jumper et al. 2021, supplement, algorithm 22. Each residue makes query, key and value points in its
own frame. They are compared in global coordinates, by distance, and the attended points are taken
back into the frame. Rotate and move all frames together, and nothing changes.

... batch axes, L residues, H heads, P points of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cross_frontiers.folding import frames as rigid
from cross_frontiers.folding.frames import Frames
from labkit import exercise


@exercise(minutes=20)
def point_scores(query: Tensor, key: Tensor, weight: Tensor) -> Tensor:
    """What distances in space add to the logits, before the factor that all terms share.

    query, key (..., L, H, P, 3) in global coordinates, weight (H,) -> (..., H, L, L), for query i
    and key j: - weight_h w_C / 2 Σ_p |query_ihp - key_jhp|², where w_C = √(2 / (9 P)) makes the
    variance independent of P (algorithm 22, line 7).
    """
    distance = (query[..., :, None, :, :, :] - key[..., None, :, :, :, :]).square().sum((-1, -2))
    scale = (2 / (9 * query.shape[-2])) ** 0.5
    return -0.5 * scale * (weight * distance).movedim(-1, -3)


class InvariantPointAttention(nn.Module):
    """Attention with scalar, pair and point terms."""

    def __init__(
        self, width: int, pair_width: int, heads: int, points: int = 4, value_points: int = 4
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide {width} channels")
        self.heads, self.points, self.value_points = heads, points, value_points
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_points = nn.Linear(width, heads * (2 * points + value_points) * 3)
        self.bias = nn.Linear(pair_width, heads, bias=False)
        self.weight = nn.Parameter(torch.full((heads,), 0.541))  # softplus of it is 1
        self.out = nn.Linear(width + heads * (pair_width + 4 * value_points), width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, single: Tensor, pair: Tensor, frames: Frames) -> Tensor:
        """single (..., L, C), pair (..., L, L, Z), frames (..., L) -> what is added to single."""
        q, k, v = self.qkv(single).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        points = self.to_points(single).unflatten(-1, (self.heads, -1, 3))
        wide = Frames(
            frames.rotation[..., None, None, :, :], frames.translation[..., None, None, :]
        )
        query, key, value = rigid.apply(wide, points).split(
            (self.points, self.points, self.value_points), dim=-2
        )
        logits = torch.einsum("...ihc,...jhc->...hij", q, k) / q.shape[-1] ** 0.5
        logits = logits + self.bias(pair).movedim(-1, -3)
        logits = logits + point_scores(query, key, nn.functional.softplus(self.weight))
        attention = (3**-0.5 * logits).softmax(dim=-1)
        seen = torch.einsum("...hij,...jhpx->...ihpx", attention, value)
        local = rigid.invert_apply(wide, seen)
        parts = (
            torch.einsum("...hij,...jhc->...ihc", attention, v).flatten(-2),
            torch.einsum("...hij,...ijz->...ihz", attention, pair).flatten(-2),
            local.flatten(-3),
            (local.square().sum(-1) + 1e-8).sqrt().flatten(-2),
        )
        found: Tensor = self.out(torch.cat(parts, dim=-1))
        return found
