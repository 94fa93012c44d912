"""The paged KV cache: who owns which block (Kwon et al. 2023, section 4).

The cache is one pool of blocks of `size` positions each. A request has a table of blocks, as a
process has a page table: position p lies in block table[p // size], at place p % size. So no memory
is kept for tokens that may never come, and requests that begin alike can point to the same blocks.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from labkit import exercise


class OutOfBlocks(Exception):
    """No block is free."""


@exercise(minutes=10)
def slots(table: Sequence[int], start: int, count: int, size: int) -> list[int]:
    """Where `count` positions from `start` on lie in the pool: block number · size + place in it.

    Args:
        table: the block of each `size` positions, in the order of the sequence.
        start: the first position, 0 or more.
    Raises:
        IndexError when the table has no block for one of them (it never wraps around).
    """
    return [table[p // size] * size + p % size for p in range(start, start + count)]


@exercise(minutes=15)
def prefix_keys(tokens: Sequence[int], size: int, known: Sequence[bytes] = ()) -> list[bytes]:
    """A key for each full block of a sequence, such that equal keys mean equal beginnings.

    A key stands for the tokens of its block *and all before it*: keys and values depend on them. It
    is the SHA-256 digest of the key before (b"" for the first block) followed by the block's tokens
    as 8-byte integers, `array("q", tokens).tobytes()`. The last block has a key only if it is full.

    Args:
        known: the keys of the first blocks, where they were computed earlier; they are kept.
    Returns:
        len(tokens) // size keys of 32 bytes; a new list.
    """
    keys = list(known)
    for i in range(len(keys), len(tokens) // size):
        before = keys[-1] if keys else b""
        block = array("q", tokens[i * size : (i + 1) * size]).tobytes()
        keys.append(hashlib.sha256(before + block).digest())
    return keys


class BlockPool:
    """Free and used blocks, how many requests use each, and which hold a known beginning.

    A block that nobody uses any more keeps its content and its key until it is needed for something
    else; the one that was freed first goes first. Until then a request can take it up again.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.references = [0] * count
        self.free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self.block_of: dict[bytes, int] = {}
        self.key_of: dict[int, bytes] = {}

    @exercise(minutes=15)
    def allocate(self) -> int:
        """Take the block that has been free for the longest time, with one reference.

        It loses its key in both dicts: its content is about to be overwritten. `free` is in the
        order in which blocks became free, the oldest first.

        Raises OutOfBlocks, changing nothing, when none is free.
        """
        if not self.free:
            raise OutOfBlocks
        block, _ = self.free.popitem(last=False)
        if (key := self.key_of.pop(block, None)) is not None:
            del self.block_of[key]
        self.references[block] = 1
        return block

    def release(self, block: int) -> None:
        """Give one reference back; without any, the block is free, and keeps its key."""
        self.references[block] -= 1
        if self.references[block] == 0:
            self.free[block] = None

    def share(self, key: bytes) -> int | None:
        """The block that holds what this key stands for, with one more reference; None without."""
        block = self.block_of.get(key)
        if block is not None:
            self.free.pop(block, None)
            self.references[block] += 1
        return block

    def publish(self, block: int, key: bytes) -> None:
        """Let others share a block's content. The first block with a key stays the one with it."""
        if key not in self.block_of and block not in self.key_of:
            self.block_of[key], self.key_of[block] = block, key
