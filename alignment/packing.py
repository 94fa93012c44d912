"""Several examples in one row, none of which sees another.

    tokens     q q a a | q a a | . .        a row of the batch: two examples and padding
    positions  0 1 2 3 | 0 1 2 | 0 0        each example begins at position 0
    segments   1 1 1 1 | 2 2 2 | 0 0        number of the example; 0 is padding

Instructions differ in length, and a batch padded to its longest is mostly padding. Packed, the same
examples give the same loss and the same gradients if attention is block-diagonal and positions
start again in each example: the model then computes the same as for each example alone.

Letters: R rows, T tokens in a row, N examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.chat import IGNORE, Example
from labkit import exercise


@dataclass(frozen=True)
class Batch:
    """Rows of examples: int64 (R, T) each. `labels` are not shifted."""

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    segments: Tensor

    @property
    def mask(self) -> Tensor:
        """The attention mask, bool (R, 1, T, T): True where a query may attend to a key."""
        return block_causal_mask(self.segments)


@exercise(minutes=15)
def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put examples into rows of `capacity` tokens: first fit, the longest first.

    Go through the examples from the longest to the shortest (of equal ones the earlier first) and
    put each into the first row that has room for it, or into a new row at the end.

    Args:
        lengths: tokens of each example.
    Returns:
        For each row the indices of its examples, in the order in which they were put there.
    Raises:
        ValueError for an example longer than a row, which would have to be cut; one that fills a
        row is not too long.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if lengths[index] > capacity:
            raise ValueError(f"an example of {lengths[index]} tokens does not fit into {capacity}")
        row = next((r for r, free in enumerate(room) if free >= lengths[index]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(capacity)
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows


@exercise(minutes=15)
def block_causal_mask(segments: Tensor) -> Tensor:
    """The mask of packed rows: a token sees the earlier tokens of its own segment, and itself.

    Args:
        segments: int64 (R, T), the number of the example that each token belongs to.
    Returns:
        bool (R, 1, T, T), True where query i may attend to key j; the 1 is for all heads. It is on
        the device of `segments`, and no value is copied back to the CPU: that would stall a GPU.
    """
    same = segments[:, :, None] == segments[:, None, :]
    past = torch.ones(same.shape[1:], dtype=torch.bool, device=segments.device).tril()
    return (same & past)[:, None]


def collate(
    examples: Sequence[Example],
    labels: Sequence[list[int]],
    capacity: int,
    packing: bool = True,
    device: torch.device | str = "cpu",
) -> Batch:
    """Put examples and their labels into rows, packed or one per row, padded to the longest row.

    Padding is token 0 in segment 0 with the label IGNORE. Which token it is does not matter: no
    example may attend to it, and the loss ignores it.
    """
    sizes = [len(example.tokens) for example in examples]
    rows = pack(sizes, capacity) if packing else [[index] for index in range(len(examples))]
    width = max(sum(sizes[index] for index in row) for row in rows)
    out = {name: torch.zeros(len(rows), width, dtype=torch.long) for name in ("t", "p", "s")}
    learned = torch.full((len(rows), width), IGNORE)
    for r, row in enumerate(rows):
        start = 0
        for number, index in enumerate(row, start=1):
            span = slice(start, start + sizes[index])
            out["t"][r, span] = torch.tensor(examples[index].tokens)
            out["p"][r, span] = torch.arange(sizes[index])
            out["s"][r, span] = number
            learned[r, span] = torch.tensor(labels[index])
            start += sizes[index]
    tokens, positions, segments = (value.to(device) for value in out.values())
    return Batch(tokens, learned.to(device), positions, segments)
