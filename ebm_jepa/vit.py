"""Vision Transformers of a JEPA: an encoder of some or all patches, and a narrow predictor.

A picture is cut into patches, each a token (Dosovitskiy et al. 2021). Positions are sines and
cosines of row and column, week 5's, so tokens can be left out: what remains still knows where it
is. Attention is week 5's too.

Letters: B batch, T = R C patches of the grid, N tokens given, M targets of n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attention import MultiHeadAttention, sinusoidal


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens (B, T, d) at positions int64 (B, N): (B, N, d); of (B, M, n): (B, M, n, d)."""
    flat = index.flatten(1)
    chosen = tokens.gather(1, flat[:, :, None].expand(-1, -1, tokens.shape[2]))
    return chosen.view(*index.shape, tokens.shape[2])


def grid_positions(rows: int, columns: int, width: int) -> Tensor:
    """Codes (R C, d) of all patches: half of the numbers for the row, half for the column.

    `width` is a multiple of 4.
    """
    row, column = sinusoidal(rows, width // 2), sinusoidal(columns, width // 2)
    both = [row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)]
    return torch.cat(both, dim=2).flatten(0, 1)


class Block(nn.Module):
    """One layer with the norms before its parts: (B, N, d) -> (B, N, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, bias=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Encoder(nn.Module):
    """Pictures (B, C, H, W) in [0, 1] -> tokens (B, T, d), or those of the kept patches alone."""

    mean: Tensor
    std: Tensor
    positions: Tensor

    def __init__(
        self,
        image: tuple[int, int, int],
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """`patch` divides both sides of the image; mean and std of each channel are the data's."""
        super().__init__()
        channels, height, side = image
        self.patch, self.width = patch, width
        self.rows, self.columns = height // patch, side // patch
        self.embed = nn.Linear(channels * patch * patch, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.register_buffer("positions", grid_positions(self.rows, self.columns, width))

    def patches(self, images: Tensor) -> Tensor:
        """Standardised pixels of each patch, row by row: (B, C, H, W) -> (B, T, C patch^2)."""
        x = (images - self.mean) / self.std
        B, C = x.shape[:2]
        x = x.view(B, C, self.rows, self.patch, self.columns, self.patch)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(B, self.rows * self.columns, -1)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """`keep` int64 (B, N): patches that are looked at; the others do not exist."""
        patches, positions = self.patches(images), self.positions.expand(len(images), -1, -1)
        if keep is not None:  # before the first layer: what is left out costs nothing
            patches, positions = take(patches, keep), take(positions, keep)
        tokens: Tensor = self.norm(self.blocks(self.embed(patches) + positions))
        return tokens

    def pooled(self, images: Tensor) -> Tensor:
        """The representation of whole pictures: the mean of their tokens, (B, d)."""
        return self(images).mean(dim=1)


class Predictor(nn.Module):
    """From the context's tokens to the target encoder's tokens at other places.

    Each target block is predicted by itself: its places are filled with one learned mask token plus
    their positions, and attend, with the context, to all of both (Assran et al. 2023, section 3).
    """

    positions: Tensor

    def __init__(
        self, rows: int, columns: int, outside: int, width: int, depth: int, heads: int
    ) -> None:
        """`outside` is the encoder's width."""
        super().__init__()
        self.enter = nn.Linear(outside, width)
        self.mask = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outside))
        self.register_buffer("positions", grid_positions(rows, columns, width))

    def forward(self, tokens: Tensor, context: Tensor, targets: Tensor) -> Tensor:
        """tokens (B, N, d) at places context (B, N); targets int64 (B, M, n) -> (B, M, n, d)."""
        B, M, n = targets.shape
        known = self.enter(tokens) + self.positions[context]  # (B, N, p)
        asked = self.mask + self.positions[targets]  # (B, M, n, p)
        known = known[:, None].expand(-1, M, -1, -1).flatten(0, 1)  # (B M, N, p)
        x = torch.cat([known, asked.flatten(0, 1).to(known.dtype)], dim=1)
        predicted: Tensor = self.leave(self.blocks(x)[:, -n:])
        return predicted.view(B, M, n, -1)
