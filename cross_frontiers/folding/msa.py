"""Attention over an alignment: along its rows, along its columns, and the outer product mean.

Jumper et al. 2021, supplement, algorithms 7, 8, 9 and 10. The rows of an alignment have no order:
permute them, and the outputs are permuted in the same way, or not changed.

B alignments, S rows, L columns, H heads; C channels of the alignment, Z of the pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import exercise


class GatedAttention(nn.Module):
    """Attention of each of N places to all N, with a bias for each pair and a gate for the output.

    The last layer begins at 0, so that a residual block begins as the identity.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide {width} channels")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.gate.weight)
        nn.init.ones_(self.gate.bias)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (B, R, N, C) -> (B, R, N, C); rows do not see each other. bias (B, 1, H, N, N)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        mask = None if bias is None else bias.expand(*q.shape[:3], -1, -1)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(torch.sigmoid(self.gate(x)) * found.transpose(2, 3).flatten(-2))


class RowAttention(nn.Module):
    """Each residue attends to the others of its row, with a bias from the pair representation."""

    def __init__(self, width: int, pair_width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pair_norm = nn.LayerNorm(pair_width)
        self.bias = nn.Linear(pair_width, heads, bias=False)
        self.attention = GatedAttention(width, heads)

    def forward(self, msa: Tensor, pair: Tensor) -> Tensor:
        """msa (B, S, L, C) and pair (B, L, L, Z) -> what is added to msa."""
        bias = self.bias(self.pair_norm(pair)).permute(0, 3, 1, 2)[:, None]
        found: Tensor = self.attention(self.norm(msa), bias)
        return found


class ColumnAttention(nn.Module):
    """Each residue attends to the same column of all rows."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = GatedAttention(width, heads)

    def forward(self, msa: Tensor) -> Tensor:
        """msa (B, S, L, C) -> what is added to it."""
        found: Tensor = self.attention(self.norm(msa).transpose(1, 2)).transpose(1, 2)
        return found


@exercise(minutes=15)
def outer_product_mean(a: Tensor, b: Tensor) -> Tensor:
    """How columns vary together: o_ij = mean over the rows s of a_si b_sjᵀ (algorithm 10).

    a (B, S, L, c), b (B, S, L, d) -> (B, L, L, c, d). Element [n, i, j] is of column i of a and
    column j of b.
    """
    return torch.einsum("nsic,nsjd->nijcd", a, b) / a.shape[1]


class OuterProductMean(nn.Module):
    """From the alignment to the pair representation."""

    def __init__(self, width: int, pair_width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.sides = nn.Linear(width, 2 * hidden)
        self.out = nn.Linear(hidden * hidden, pair_width)

    def forward(self, msa: Tensor) -> Tensor:
        """msa (B, S, L, C) -> what is added to the pairs, (B, L, L, Z)."""
        a, b = self.sides(self.norm(msa)).chunk(2, dim=-1)
        found: Tensor = self.out(outer_product_mean(a, b).flatten(-2))
        return found


class Transition(nn.Module):
    """A two-layer network for each place (algorithm 9), with SwiGLU, as in AlphaFold 3."""

    def __init__(self, width: int, factor: int = 2) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * factor * width, bias=False)
        self.out = nn.Linear(factor * width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> what is added to it."""
        gate, value = self.wide(self.norm(x)).chunk(2, dim=-1)
        found: Tensor = self.out(F.silu(gate) * value)
        return found
