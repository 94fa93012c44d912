"""The forward pass of a GPT-2 over a flat batch of tokens from many sequences.

All matrix products see one matrix (N, C) of all tokens. Only attention knows sequences: those with
equally many tokens in this step (one, while they write) and similar lengths form a group, whose
keys and values are gathered from the pool by the block tables. A GPU kernel reads them through the
table in place; with PyTorch's own operations a gather of whole blocks is the fastest way.

A group that writes is mostly the same at the next step. So what was gathered for it is kept, and
gets the new token's keys and values, as the pool does: a gather is needed only when a sequence
joins or leaves, or when the room is used up. On a processor the calls of small operations cost more
than what they compute: the weights are looked up once, and indices are moved on, not made again.

Letters: N tokens in the step, C width, H heads, d = C / H; in a group B sequences, t tokens of
each, T cached positions, padded to whole blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pretraining import GPT
from systems.engine.block_table import slots
from systems.engine.scheduler import Sequence, Work

PADDING = 256
"""Padded positions that cost about as much as one more group."""
AHEAD = 2
"""Blocks of room that a group gets for what it is going to write."""


class Layer(NamedTuple):
    """The weights of a layer, so that no module is asked for them while tokens are made."""

    norm1: tuple[Tensor, Tensor]
    qkv: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]
    norm2: tuple[Tensor, Tensor]
    up: tuple[Tensor, Tensor]
    down: tuple[Tensor, Tensor]


@dataclass
class Group:
    """Sequences whose attention is computed together."""

    shape: tuple[int, int]
    """B, t."""
    starts: list[int]
    """The first new position of each sequence."""
    blocks: Tensor
    """Rows of the pool, (2 B H T / size,): for keys and values, sequence, head, block of it."""
    mask: Tensor
    """(B H, t, T), added to the scores: -inf for positions after the query's own."""
    rows: Tensor
    """Where the new keys and values go in `layers`, (2 B H,), for t = 1."""
    seen: Tensor
    """The places of `mask` for the new positions, (B H,), for t = 1."""
    layers: list[Tensor] = field(default_factory=list)
    """What was gathered for each layer, (2, B H, T, d); kept only where t = 1."""

    def follows(self, work: list[Work]) -> bool:
        """Whether this work, of the same sequences, is what comes next here, and there is room."""
        return (
            work[0].count == 1
            and [w.start - 1 for w in work] == self.starts
            and work[-1].start < self.mask.shape[2]
        )

    def advance(self) -> None:
        """Go on to the next position of every sequence."""
        self.starts = [start + 1 for start in self.starts]
        self.rows += 1
        self.seen += 1
        self.mask.view(-1).index_fill_(0, self.seen, 0.0)


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
        slot = torch.arange(blocks * size, device=like.device)
        first = slot // size * (2 * self.heads * size) + slot % size
        self.rows_of = first[:, None] + both * size
        """The rows of a pool, seen as (blocks 2 H size, d), of each slot: (blocks size, 2 H)."""
        self.layers = [
            Layer(*(
                (module.weight, module.bias)
                for module in (
                    block.norm1, block.attention.qkv, block.attention.out, block.norm2,
                    block.mlp.up, block.mlp.down,
                )
            ))  # type: ignore[arg-type]
            for block in model.layers
        ]  # fmt: skip
        self.kept: dict[tuple[Sequence, ...], Group] = {}
        """Groups of the last step that wrote one token each."""

    @torch.inference_mode()
    def forward(self, work: Iterable[Work]) -> tuple[list[tuple[Work, int]], Tensor]:
        """Compute the tokens of a step; their keys and values go into the pool.

        Returns each piece of work with a number n, and the logits (sum of n, V) in this order: at
        the sequence's last known token and the guesses after it, n of them in this piece; n = 0 for
        a prompt that is not read to its end.
        """
        ordered = sorted(work, key=lambda w: (w.count, w.start))
        device, width = self.pool[0].device, self.model.shape.width
        tokens = [token for w in ordered for token in w.tokens()]
        place = [p for w in ordered for p in range(w.start, w.start + w.count)]
        slot = [s for w in ordered for s in slots(w.sequence.table, w.start, w.count, self.size)]
        numbers = torch.tensor([tokens, place, slot], device=device)
        x = F.embedding(numbers[0], self.model.embedding.weight)
        x = x + F.embedding(numbers[1], self._positions())
        rows = self.rows_of[numbers[2]].flatten()
        groups = self._groups(ordered)
        for i, layer in enumerate(self.layers):
            qkv = F.linear(F.layer_norm(x, (width,), *layer.norm1), *layer.qkv)
            new = qkv[:, width:].reshape(len(rows), -1)
            self.pool[i].view(-1, new.shape[1]).index_copy_(0, rows, new)
            x += F.linear(self._attend(i, qkv[:, :width], new, groups), *layer.out)
            up = F.linear(F.layer_norm(x, (width,), *layer.norm2), *layer.up)
            x += F.linear(F.gelu(up, approximate="tanh"), *layer.down)
        wanted, counts, row = list[int](), list[int](), 0
        for w in ordered:
            last = max(0, len(w.sequence.tokens) - 1 - w.start)  # the first with a use for logits
            wanted += range(row + last, row + w.count)
            counts.append(max(0, w.count - last))
            row += w.count
        if len(wanted) < len(x):
            x = x[torch.tensor(wanted, dtype=torch.int64, device=device)]
        return list(zip(ordered, counts, strict=True)), self.model.logits(self.model.norm(x))

    def _positions(self) -> Tensor:
        assert self.model.positions is not None
        return self.model.positions.weight

    def _groups(self, ordered: list[Work]) -> list[Group]:
        """The groups of this step, of which those that only go on are not gathered again."""
        found, kept = [], {}
        for part in alike(ordered):
            sequences = tuple(w.sequence for w in part)
            group = self.kept.get(sequences)
            if group is not None and group.follows(part):
                group.advance()
            else:
                group = self._group(part)
            if part[0].count == 1:
                kept[sequences] = group
            found.append(group)
        self.kept = kept
        return found

    def _group(self, work: list[Work]) -> Group:
        """What attention needs to know of sequences with equally many tokens in this step."""
        count, device, batch = work[0].count, self.pool[0].device, len(work)
        blocks = -(-(work[-1].start + count) // self.size)  # the last one is the longest
        blocks += AHEAD if count == 1 else 0
        tables = [(w.sequence.table[:blocks] + [0] * blocks)[:blocks] for w in work]
        table = torch.tensor(tables, device=device)[:, None]  # (B, 1, T / size)
        starts = [w.start for w in work]
        start = torch.tensor(starts, device=device)
        length = blocks * self.size
        query = start[:, None] + torch.arange(count, device=device)  # (B, t)
        later = torch.arange(length, device=device) > query[:, :, None]
        mask = torch.zeros(later.shape, device=device, dtype=self.pool[0].dtype)
        mask = mask.masked_fill_(later, -torch.inf).repeat_interleave(self.heads, dim=0)
        head = torch.arange(batch * self.heads, device=device).view(batch, self.heads)
        seen = head * length + start[:, None]  # (B, H)
        values = seen + batch * self.heads * length
        return Group(
            (batch, count), starts, (table * 2 * self.heads + self.parts).flatten(), mask,
            torch.stack([seen, values], dim=1).flatten(), seen.flatten(),
        )  # fmt: skip

    def _attend(self, i: int, q: Tensor, new: Tensor, groups: list[Group]) -> Tensor:
        """Queries (N, C) of layer i, and new keys and values (2 N H, d), to outputs (N, C)."""
        parts, row, head = [], 0, new.shape[1]
        for group in groups:
            batch, count = group.shape
            if i < len(group.layers):
                kv, each = group.layers[i], 2 * self.heads
                kv.view(-1, head).index_copy_(0, group.rows, new[row * each : (row + batch) * each])
            else:
                by_block = self.pool[i].view(-1, self.size * head)
                kv = by_block.index_select(0, group.blocks).view(2, batch * self.heads, -1, head)
                if count == 1:
                    group.layers.append(kv)
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
