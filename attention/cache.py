"""The KV cache: keys and values of past tokens, kept so that each new token costs one query.

Without it, token t + 1 costs a forward pass over all t before it. A causal model's keys and values
never change once computed, so they can be kept. Memory is allocated once, for the longest sequence
expected: growing by torch.cat would copy everything at every token.

Letters: B batch, H key-value heads, T new positions, d dimensions of a head.
"""

import torch
from torch import Tensor

from labkit import exercise


class KVCache:
    """Keys and values of up to `capacity` positions, of which `length` are filled.

    For generation: fill it under torch.no_grad(). `length` is also the position of the next token;
    position encodings must start there.
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        capacity: int,
        dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        self.keys = torch.zeros(batch, heads, capacity, dim, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.capacity, self.length = capacity, 0

    @exercise(minutes=15)
    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of the next T positions; return all so far.

        Args:
            k, v: (B, H, T, d). They are written after the `self.length` positions already filled,
                into self.keys and self.values (B, H, capacity, d), in place.
        Returns:
            Keys and values of all filled positions, each (B, H, length, d): views, no copies.
        Raises:
            ValueError, leaving the cache as it was, when they do not fit: the message of
            `self.misfit(k, v)`, which is empty when they do.
        """
        if problem := self.misfit(k, v):
            raise ValueError(problem)
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def misfit(self, k: Tensor, v: Tensor) -> str:
        """Why these keys and values cannot be appended; empty when they can."""
        batch, heads, _, dim = self.keys.shape
        for name, x in (("k", k), ("v", v)):
            if x.dim() != 4 or (*x.shape[:2], x.shape[3]) != (batch, heads, dim):
                return (
                    f"this cache takes {name} of shape ({batch}, {heads}, T, {dim}), "
                    f"got {tuple(x.shape)}"
                )
        if k.shape[2] != v.shape[2]:
            return f"{k.shape[2]} keys came with {v.shape[2]} values"
        if self.length + k.shape[2] > self.capacity:
            return (
                f"the cache holds {self.capacity} positions, {self.length} are filled and "
                f"{k.shape[2]} more do not fit: make it with a larger capacity, or clear() it"
            )
        return ""

    def repeat(self, copies: int) -> None:
        """Every row `copies` times, one after the other: several answers to one prompt.

        The filled positions keep their gradient, where they have one.
        """
        self.keys = self.keys.repeat_interleave(copies, dim=0)
        self.values = self.values.repeat_interleave(copies, dim=0)

    def clear(self) -> None:
        """Set `length` to 0; the memory stays allocated."""
        self.length = 0
