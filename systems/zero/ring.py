"""Collectives over a ring: each process sends to its right neighbour and receives from its left.

    reduce-scatter    every process ends with one piece of the sum      sends (n-1)/n of the data
    all-gather        every process ends with all pieces                sends (n-1)/n of the data
    all-reduce        the first, then the second                        twice that

No process sends more than another, and however many there are, none sends more than the data once
(twice for all-reduce): that is why ZeRO's volume is stated in multiples of Ψ, the number of
parameters (Rajbhandari et al. 2020, section 7).

Letters: n processes (ranks), Ψ parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from labkit import exercise

Swap = Callable[[Tensor], Tensor]
"""Sends a tensor to rank + 1 and returns what came from rank - 1 (modulo n), of the same shape."""


@exercise(minutes=20)
def reduce_scatter(pieces: Sequence[Tensor], rank: int, swap: Swap) -> Tensor:
    """Piece number `rank` of the sum over all processes.

    A partial sum of each piece travels around the ring, and every process adds its own part. The
    piece that is to end at process r starts at r + 1, so the first that this process sends on is
    piece rank - 1 (all modulo n); what it then receives belongs to piece rank - 2, and so on. It
    sends n - 1 times, each time one piece.

    Args:
        pieces: n tensors of one shape: this process's part of the sum, cut up. Left as they are.
        swap: sends to the right neighbour, returns what came from the left one.
    """
    n = len(pieces)
    carried = pieces[(rank - 1) % n]
    for step in range(n - 1):
        carried = swap(carried) + pieces[(rank - 2 - step) % n]
    return carried


def all_gather(own: Tensor, rank: int, ranks: int, swap: Swap) -> list[Tensor]:
    """The pieces of all processes, piece r from process r.

    Each process first sends its own piece, then n - 2 times what it has just received.

    Args:
        own: this process's piece. ranks: n.
        swap: sends to the right neighbour, returns what came from the left one.
    """
    pieces, carried = [own] * ranks, own
    for step in range(ranks - 1):
        carried = swap(carried)
        pieces[(rank - 1 - step) % ranks] = carried
    return pieces


@exercise(minutes=10)
def mean_gradient(gradient: Tensor, rank: int, ranks: int, swap: Swap) -> Tensor:
    """This process's piece of the gradient of the whole batch, from its own rows' gradient.

    Each process has the gradient of the *mean* loss of its rows, and all have equally many rows: so
    the whole batch's gradient is the mean over processes.

    Args:
        gradient: (m,), m a multiple of `ranks`; left as it is.
    Returns:
        (m / ranks,).
    """
    return reduce_scatter(gradient.chunk(ranks), rank, swap) / ranks


@exercise(minutes=10)
def shard(flat: Tensor, rank: int, ranks: int) -> Tensor:
    """Piece number `rank` of a flat tensor (m,) that is cut into `ranks` pieces of equal length.

    The length is m / ranks, rounded up; where the tensor ends before that, zeros fill the piece. A
    new tensor, with the dtype and on the device of the old one.
    """
    size = -(-len(flat) // ranks)
    piece = flat.new_zeros(size)
    part = flat[rank * size : (rank + 1) * size]
    piece[: len(part)] = part
    return piece


class Ring:
    """This process in the ring, over torch.distributed's point-to-point messages; counts them."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.rank, self.ranks = rank, ranks
        self.elements = 0
        """Numbers sent so far."""

    def swap(self, tensor: Tensor) -> Tensor:
        """See `Swap`."""
        mine, received = tensor.contiguous(), torch.empty_like(tensor)
        sending = dist.isend(mine, (self.rank + 1) % self.ranks)
        dist.recv(received, (self.rank - 1) % self.ranks)
        if sending is not None:
            sending.wait()
        self.elements += mine.numel()
        return received

    def mean_gradient(self, gradient: Tensor) -> Tensor:
        return mean_gradient(gradient, self.rank, self.ranks, self.swap)

    def gather(self, own: Tensor) -> list[Tensor]:
        return all_gather(own, self.rank, self.ranks, self.swap)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a number over all processes; it is not counted."""
        found = value.clone()
        if self.ranks > 1:
            dist.all_reduce(found)
        return found
