"""Updates of pairs that look at triangles: if i is near k and j is near k, i cannot be far from j.

Jumper et al. 2021, supplement, algorithms 11 to 14. The edge ij is updated from the two other edges
of every triangle ijk. Edges have a direction: "outgoing" takes ik and jk, "incoming" ki and kj.

B pair representations of L residues, Z channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cross_frontiers.folding.msa import GatedAttention
from labkit import exercise


@exercise(minutes=20)
def triangle_product(a: Tensor, b: Tensor, outgoing: bool) -> Tensor:
    """Sums over the third residue k of every triangle, for each channel (algorithms 11 and 12).

    a and b (B, L, L, Z) -> (B, L, L, Z): Σ_k a_ik b_jk if `outgoing`, else Σ_k a_ki b_kj.
    """
    if outgoing:
        return torch.einsum("nikz,njkz->nijz", a, b)
    return torch.einsum("nkiz,nkjz->nijz", a, b)


class TriangleMultiplication(nn.Module):
    """The triangle update without attention."""

    def __init__(self, width: int, outgoing: bool) -> None:
        super().__init__()
        self.outgoing = outgoing
        self.norm = nn.LayerNorm(width)
        self.sides = nn.Linear(width, 2 * width)
        self.gates = nn.Linear(width, 2 * width)
        self.inner_norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, pair: Tensor) -> Tensor:
        """pair (B, L, L, Z) -> what is added to it."""
        z = self.norm(pair)
        a, b = (torch.sigmoid(self.gates(z)) * self.sides(z)).chunk(2, dim=-1)
        found = self.inner_norm(triangle_product(a, b, self.outgoing) / z.shape[1] ** 0.5)
        return torch.sigmoid(self.gate(z)) * self.out(found)


class TriangleAttention(nn.Module):
    """The edge ij attends to the edges ik that begin where it begins, with a bias from jk; with
    `starting=False` to the edges kj that end where it ends, with a bias from ki.
    """

    def __init__(self, width: int, heads: int, starting: bool) -> None:
        super().__init__()
        self.starting = starting
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Linear(width, heads, bias=False)
        self.attention = GatedAttention(width, heads)

    def forward(self, pair: Tensor) -> Tensor:
        """pair (B, L, L, Z) -> what is added to it."""
        z = self.norm(pair)
        z = z if self.starting else z.transpose(1, 2)
        found: Tensor = self.attention(z, self.bias(z).permute(0, 3, 1, 2)[:, None])
        return found if self.starting else found.transpose(1, 2)
