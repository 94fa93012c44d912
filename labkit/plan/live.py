"""The bytes of the tensors that are alive: what a step needs, and the same on every machine.

A process's memory holds libraries and what an allocator keeps besides; a GPU's is known only where
there is one. Here every storage counts once, from the operation that made it until its last tensor
is gone, the ones that autograd keeps for the backward pass included.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any


class Live:
    """Counts while it is entered: `now`, and `peak` since it was made.

    `forward` is the peak while gradients are recorded, in forward passes. It is what stays and what
    the backward pass needs, the part that grows with the batch. With a small batch `peak` comes
    later, when all gradients are there, or inside the optimizer.
    """

    def __init__(self) -> None:
        """All tensors that Python can reach now are counted from the start."""
        import torch

        self.now = self.peak = self.forward = 0
        self._known: dict[int, tuple[int, Any]] = {}
        self._mode: Any = None
        gc.collect()
        for thing in gc.get_objects():
            if issubclass(type(thing), torch.Tensor):
                self.add(thing)

    def add(self, tensor: Any) -> None:
        """Count a tensor's storage, unless it is counted already."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):  # it has none, such as a sparse one
            return
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known[key] = size, weakref.ref(storage, lambda _: self._gone(key))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        size, _ = self._known.pop(key)
        self.now -= size

    def __enter__(self) -> Live:
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode

        live = self

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(
                self, func: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                out = func(*args, **(kwargs or {}))
                for tensor in _tensors((args, kwargs, out)):
                    live.add(tensor)
                if torch.is_grad_enabled():  # the backward pass runs without
                    live.forward = max(live.forward, live.now)
                return out

        self._mode = Watch()
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._mode.__exit__(*error)


def _tensors(value: Any) -> Iterator[Any]:
    """The tensors in a nesting of tuples, lists and dicts."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for inner in value:
            yield from _tensors(inner)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
