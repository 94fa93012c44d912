"""The forward pass of a GPT-2 over a flat batch of tokens from many sequences.

All matrix products see one matrix (N, C) of all tokens. Only attention knows sequences: those with
equally many tokens in this step (one, while they write) form a group, whose keys and values are
gathered from the pool by the block tables. A GPU kernel reads them through the table in place;
with PyTorch's own operations a gather is the fastest way.

Letters: N tokens in the step, C width, H heads, d = C / H; in a group B sequences, t tokens of
each, T cached positions, padded to whole blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from pretraining import GPT
from systems.engine.block_table import slots
from systems.engine.scheduler import Work


class Runner:
    """A model and its pool of keys and values."""

    def __init__(self, model: GPT, blocks: int, size: int) -> None:
        """Raises ValueError for a model that is not a causal GPT-2."""
        if model.architecture != "gpt2" or not model.causal:
            raise ValueError("the engine serves causal GPT-2 models only")
        self.model, self.size, self.heads = model.eval(), size, model.shape.heads
        self.vocabulary = model.shape.vocabulary
        like = model.embedding.weight
        row = (blocks * size, 2 * model.shape.width)  # keys and values of a position side by side
        self.pool = [torch.zeros(row, dtype=like.dtype, device=like.device) for _ in model.blocks]

    @torch.inference_mode()
    def forward(self, work: Iterable[Work]) -> list[tuple[Work, Tensor]]:
        """Compute the tokens of a step; their keys and values go into the pool.

        Returns each piece of work with logits (n, V): at the sequence's last known token and the
        guesses after it, n of them in this piece; n = 0 for a prompt that is not read to its end.
        """
        ordered = sorted(work, key=lambda w: w.count)
        device = self.pool[0].device
        tokens = [token for w in ordered for token in w.tokens()]
        place = [p for w in ordered for p in range(w.start, w.start + w.count)]
        slot = [s for w in ordered for s in slots(w.sequence.table, w.start, w.count, self.size)]
        numbers = torch.tensor([tokens, place, slot], device=device)
        x = self.model.embedding(numbers[0]) + F.embedding(numbers[1], self._positions())
        groups = [
            self._group(list(same), device) for _, same in groupby(ordered, lambda w: w.count)
        ]
        for layer, pool in zip(self.model.layers, self.pool, strict=True):
            qkv = layer.attention.qkv(layer.norm1(x))
            pool.index_copy_(0, numbers[2], qkv[:, x.shape[1] :])
            x = x + layer.attention.out(self._attend(qkv[:, : x.shape[1]], pool, groups))
            up = layer.mlp.up(layer.norm2(x))
            x = x + layer.mlp.down(F.gelu(up, approximate="tanh"))
        wanted, ends, row = [], [], 0
        for w in ordered:
            last = max(0, len(w.sequence.tokens) - 1 - w.start)  # the first with a use for logits
            wanted += range(row + last, row + w.count)
            ends.append(max(0, w.count - last))
            row += w.count
        if len(wanted) < len(x):
            x = x[torch.tensor(wanted, dtype=torch.int64, device=device)]
        logits = self.model.logits(self.model.norm(x))
        return list(zip(ordered, logits.split(ends), strict=True))

    def _positions(self) -> Tensor:
        assert self.model.positions is not None
        return self.model.positions.weight

    def _group(self, work: list[Work], device: torch.device) -> tuple[int, Tensor, Tensor]:
        """Tokens of each sequence t, block numbers (B · T / size,), and the mask (B, 1, t, T) that
        is added to the scores: -inf for positions after the query's own."""
        count, end = work[0].count, max(w.start + w.count for w in work)
        blocks = -(-end // self.size)
        tables = [(w.sequence.table[:blocks] + [0] * blocks)[:blocks] for w in work]
        starts = torch.tensor([w.start for w in work], device=device)
        query = starts[:, None] + torch.arange(count, device=device)  # (B, t)
        later = torch.arange(blocks * self.size, device=device) > query[:, :, None]
        mask = torch.zeros(later.shape, device=device, dtype=self.pool[0].dtype)
        mask.masked_fill_(later, -torch.inf)
        return count, torch.tensor(tables, device=device).flatten(), mask[:, None]

    def _attend(self, q: Tensor, pool: Tensor, groups: list[tuple[int, Tensor, Tensor]]) -> Tensor:
        """Queries (N, C) to outputs (N, C), group by group."""
        parts, row, head = [], 0, q.shape[1] // self.heads
        by_block = pool.view(-1, self.size * pool.shape[1])
        for count, tables, mask in groups:
            batch = len(mask)
            kv = by_block.index_select(0, tables).view(batch, -1, 2, self.heads, head)
            mine = q[row : row + batch * count].view(batch, count, self.heads, head)
            y = F.scaled_dot_product_attention(
                mine.transpose(1, 2), kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2), mask
            )
            parts.append(y.transpose(1, 2).reshape(batch * count, -1))
            row += batch * count
        return parts[0] if len(parts) == 1 else torch.cat(parts)
