"""How much memory a computation needs: the bytes of its tensors, counted while they exist."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """A context that counts the storage of every tensor made inside it, on any device.

        with PeakMemory() as memory:
            attention(q, k, v).sum().backward()
        memory.peak       # bytes alive at once at the worst moment
        memory.largest    # bytes of the largest single tensor

    Earlier tensors and scratch space inside an operation are not counted. Unlike the operating
    system's number, it is the same in every run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for x in tree_leaves((args, kwargs)):
            if isinstance(x, Tensor):
                self._note(x, 0)  # not made here; or known already
        out = func(*args, **kwargs)
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._note(x, x.untyped_storage().nbytes())
        return out

    def _note(self, x: Tensor, size: int) -> None:
        storage = x.untyped_storage()
        key = storage._cdata
        if key in self._known:  # a view, or in place
            return
        self._known.add(key)
        self.now += size
        self.peak, self.largest = max(self.peak, self.now), max(self.largest, size)
        weakref.finalize(storage, self._free, key, size).atexit = False

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def measure(function: Any, *inputs: Tensor) -> PeakMemory:
    """Memory of forward and backward of function(*inputs).sum(); gradients are then deleted."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    with torch.enable_grad(), PeakMemory() as memory:
        function(*leaves).sum().backward()
    return memory
