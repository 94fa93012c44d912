"""A tiny Evoformer, with a head for contacts and one for structures.

Jumper et al. 2021, supplement, algorithms 3, 4 and 6. B alignments, S rows, L columns, C channels
of the alignment, Z of the pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cross_frontiers.folding.frames import Frames
from cross_frontiers.folding.msa import ColumnAttention, OuterProductMean, RowAttention, Transition
from cross_frontiers.folding.pdb import TOKENS
from cross_frontiers.folding.settings import EvoformerSettings
from cross_frontiers.folding.structure import StructureModule
from cross_frontiers.folding.triangle import TriangleAttention, TriangleMultiplication


class Block(nn.Module):
    """One block of the Evoformer (algorithm 6)."""

    def __init__(self, net: EvoformerSettings) -> None:
        super().__init__()
        self.row = RowAttention(net.width, net.pair_width, net.heads)
        self.column = ColumnAttention(net.width, net.heads)
        self.msa_transition = Transition(net.width)
        self.outer = OuterProductMean(net.width, net.pair_width, net.hidden)
        self.pair_updates = nn.ModuleList(
            (
                TriangleMultiplication(net.pair_width, outgoing=True),
                TriangleMultiplication(net.pair_width, outgoing=False),
                TriangleAttention(net.pair_width, net.heads, starting=True),
                TriangleAttention(net.pair_width, net.heads, starting=False),
                Transition(net.pair_width),
            )
        )

    def forward(self, msa: Tensor, pair: Tensor) -> tuple[Tensor, Tensor]:
        """msa (B, S, L, C) and pair (B, L, L, Z), both updated."""
        msa = msa + self.row(msa, pair)
        msa = msa + self.column(msa)
        msa = msa + self.msa_transition(msa)
        pair = pair + self.outer(msa)
        for update in self.pair_updates:
            pair = pair + update(pair)
        return msa, pair


class Evoformer(nn.Module):
    """From an alignment to a representation of its rows and one of its pairs.

    All rows are alike here: there is no query among them, and so the pairs do not depend on the
    order of the rows. Nothing is precomputed: no covariance, no profile.
    """

    def __init__(self, net: EvoformerSettings) -> None:
        super().__init__()
        self.reach = net.reach
        self.letter = nn.Embedding(TOKENS, net.width)
        self.distance = nn.Embedding(2 * net.reach + 1, net.pair_width)
        self.sides = nn.Linear(net.width, 2 * net.pair_width)
        self.blocks = nn.ModuleList(Block(net) for _ in range(net.blocks))

    def forward(self, tokens: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Numbers (B, S, L) -> (B, S, L, C) and (B, L, L, Z). `index` (L,) are the numbers of the
        residues in the chain; None counts them.
        """
        place = torch.arange(tokens.shape[2], device=tokens.device) if index is None else index
        apart = (place[:, None] - place).clamp(-self.reach, self.reach) + self.reach
        msa = self.letter(tokens)
        left, right = self.sides(msa.mean(dim=1)).chunk(2, dim=-1)
        pair = self.distance(apart) + left[:, :, None] + right[:, None]
        for block in self.blocks:
            msa, pair = block(msa, pair)
        return msa, pair


class ContactModel(nn.Module):
    """Logits of contacts."""

    def __init__(self, net: EvoformerSettings) -> None:
        super().__init__()
        self.evoformer = Evoformer(net)
        self.norm = nn.LayerNorm(net.pair_width)
        self.out = nn.Linear(net.pair_width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Numbers (B, S, L) -> logits (B, L, L), symmetric."""
        _, pair = self.evoformer(tokens)
        found: Tensor = self.out(self.norm(pair + pair.transpose(1, 2))).squeeze(-1)
        return found


class FoldingModel(nn.Module):
    """Frames of the residues, from sequence alone."""

    def __init__(self, net: EvoformerSettings, layers: int) -> None:
        super().__init__()
        self.evoformer = Evoformer(net)
        self.structure = StructureModule(net.width, net.pair_width, net.heads, layers)

    def forward(self, tokens: Tensor, index: Tensor) -> list[Frames]:
        """Numbers (B, S, L) and the residues' numbers (L,) -> frames (B, L) after each layer, Å."""
        msa, pair = self.evoformer(tokens, index)
        found: list[Frames] = self.structure(msa[:, 0], pair)
        return found
