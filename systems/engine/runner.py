"""The forward pass of a GPT-2 over a flat batch of tokens from many sequences.

All matrix products see one matrix (N, C) of all tokens. Only attention knows sequences: those with
equally many tokens in this step (one, while they write) and similar lengths form a group, whose
keys and values are gathered from the pool by the block tables. A GPU kernel reads them through the
table in place; with PyTorch's own operations a gather of whole blocks is the fastest way.

Letters: N tokens in the step, C width, H heads, d = C / H; in a group B sequences, t tokens of
each, T cached positions, padded to whole blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pretraining import GPT
from systems.engine.block_table import slots
from systems.engine.scheduler import Work

PADDING = 256
"""Padded positions that cost about as much as one more group."""


@dataclass
class Group:
    """Sequences whose attention is computed together."""

    shape: tuple[int, int]
    """B, t."""
    blocks: Tensor
    """Rows of the pool, (2 B H T / size,): for keys and values, sequence, head, block of it."""
    mask: Tensor
    """(B H, t, T), added to the scores: -inf for positions after the query's own."""


class Runner:
    """A model and its pool of keys and values, (blocks, 2, H, size, d) for each layer: the rows
    of a head in a block lie side by side, so that a gather gives matrices for `bmm`."""

    def __init__(self, model: GPT, blocks: int, size: int) -> None:
        """Raises ValueError for a model that is not a causal GPT-2."""
        if model.architecture != "gpt2" or not model.causal:
            raise ValueError("the engine serves causal GPT-2 models only")
        self.model, self.size, self.heads = model.eval(), size, model.shape.heads
        self.vocabulary = model.shape.vocabulary
        like, head = model.embedding.weight, model.shape.width // self.heads
        shape = (blocks, 2, self.heads, size, head)
        self.pool = [torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in model.blocks]
        both = torch.arange(2 * self.heads, device=like.device)
        self.parts = both.view(2, 1, self.heads, 1)
        """Number of each pair of key or value and head inside a block."""

    @torch.inference_mode()
    def forward(self, work: Iterable[Work]) -> list[tuple[Work, Tensor]]:
        """Compute the tokens of a step; their keys and values go into the pool.

        Returns each piece of work with logits (n, V): at the sequence's last known token and the
        guesses after it, n of them in this piece; n = 0 for a prompt that is not read to its end.
        """
        ordered = sorted(work, key=lambda w: (w.count, w.start))
        device = self.pool[0].device
        tokens = [token for w in ordered for token in w.tokens()]
        place = [p for w in ordered for p in range(w.start, w.start + w.count)]
        slot = [s for w in ordered for s in slots(w.sequence.table, w.start, w.count, self.size)]
        numbers = torch.tensor([tokens, place, slot], device=device)
        x = self.model.embedding(numbers[0]) + F.embedding(numbers[1], self._positions())
        # In (blocks, 2, H, size), the rows that each token's keys and values go to, (N, 2 H).
        block, inside = numbers[2] // self.size, numbers[2] % self.size
        rows = (block[:, None] * 2 * self.heads + self.parts.flatten()) * self.size + inside[
            :, None
        ]
        rows = rows.flatten()
        groups = [self._group(part, device) for part in alike(ordered)]
        width = x.shape[1]
        for layer, pool in zip(self.model.layers, self.pool, strict=True):
            qkv = layer.attention.qkv(layer.norm1(x))
            head = pool.shape[-1]
            pool.view(-1, head).index_copy_(0, rows, qkv[:, width:].reshape(-1, head))
            x = x + layer.attention.out(self._attend(qkv[:, :width], pool, groups))
            up = layer.mlp.up(layer.norm2(x))
            x = x + layer.mlp.down(F.gelu(up, approximate="tanh"))
        wanted, ends, row = list[int](), list[int](), 0
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

    def _group(self, work: list[Work], device: torch.device) -> Group:
        """What attention needs to know of sequences with equally many tokens in this step."""
        count, end = work[0].count, max(w.start + w.count for w in work)
        blocks = -(-end // self.size)
        tables = [(w.sequence.table[:blocks] + [0] * blocks)[:blocks] for w in work]
        table = torch.tensor(tables, device=device)[:, None]  # (B, 1, T / size)
        rows = table * 2 * self.heads + self.parts  # (2, B, H, T / size)
        starts = torch.tensor([w.start for w in work], device=device)
        query = starts[:, None] + torch.arange(count, device=device)  # (B, t)
        later = torch.arange(blocks * self.size, device=device) > query[:, :, None]
        mask = torch.zeros(later.shape, device=device, dtype=self.pool[0].dtype)
        mask = mask.masked_fill_(later, -torch.inf).repeat_interleave(self.heads, dim=0)
        return Group((len(work), count), rows.flatten(), mask)

    def _attend(self, q: Tensor, pool: Tensor, groups: list[Group]) -> Tensor:
        """Queries (N, C) to outputs (N, C), group by group."""
        parts, row, head = [], 0, pool.shape[-1]
        by_block = pool.view(-1, self.size * head)
        for group in groups:
            batch, count = group.shape
            kv = by_block.index_select(0, group.blocks).view(2, batch * self.heads, -1, head)
            mine = q[row : row + batch * count].view(batch, count, self.heads, head)
            mine = mine.transpose(1, 2).reshape(batch * self.heads, count, head)
            keys = kv[0].transpose(1, 2)
            scores = torch.baddbmm(group.mask, mine, keys, alpha=head**-0.5)
            y = torch.bmm(scores.softmax(dim=-1), kv[1])  # (B H, t, d)
            y = y.view(batch, self.heads, count, head).transpose(1, 2)
            parts.append(y.reshape(batch * count, -1))
            row += batch * count
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def alike(ordered: list[Work]) -> Iterator[list[Work]]:
    """Cut work, ordered by count and start, into groups of equal count and similar length."""
    group: list[Work] = []
    for w in ordered:
        longer = w.start - group[-1].start if group else 0
        if group and (w.count != group[0].count or longer * len(group) > PADDING):
            yield group
            group = []
        group.append(w)
    if group:
        yield group
