"""What PyTorch's dispatcher sees of a step: kernels, bytes, FLOPs; and what is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.errors import ProbeDone

if TYPE_CHECKING:
    pass


@dataclass
class Counts:
    """What PyTorch's dispatcher saw: kernels, bytes of their operands, FLOPs, seconds inside."""

    kernels: int = 0
    bytes: int = 0
    flops: int = 0
    seconds: float = 0.0


def counting(counts: Counts, deadline: float = float("inf")) -> ExitStack:
    """A context in which every PyTorch operation is added to `counts`.

    Views are free and not counted; an operand counts whole, read or written. FLOPs are those of
    matrix products, convolutions and attention, forward and backward, two for each multiply-add.
    Raises ProbeDone from inside an operation once `deadline` (time.perf_counter) has passed.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import (
        FlopCounterMode,
        sdpa_backward_flop_count,
        sdpa_flop_count,
    )

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal deadline
            start = time.perf_counter()
            if start > deadline:
                deadline = float("inf")  # once: cleaning up must be able to compute
                raise ProbeDone
            out = func(*args, **(kwargs or {}))
            if not func.is_view:
                counts.kernels += 1
                counts.bytes += _bytes((args, kwargs, out))
                counts.seconds += time.perf_counter() - start
            return out

    aten = torch.ops.aten
    on_cpu = {  # the only attention kernels without a formula in PyTorch's own table
        aten._scaled_dot_product_flash_attention_for_cpu: _of_shapes(sdpa_flop_count, 3),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _of_shapes(
            sdpa_backward_flop_count, 4
        ),
    }
    flops = FlopCounterMode(display=False, custom_mapping=on_cpu)
    flops.mod_tracker = _NoModules()  # type: ignore[assignment]
    stack = ExitStack()
    stack.callback(lambda: setattr(counts, "flops", flops.get_total_flops()))
    stack.enter_context(Counter())
    stack.enter_context(flops)
    return stack


class _NoModules:
    """In place of the tracker that says which module an operation belongs to. Its hooks do not
    bear gradients inside a step, as of Langevin dynamics, and only the total is asked for.
    """

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None: ...


def _of_shapes(formula: Callable[..., int], operands: int) -> Callable[..., int]:
    """A FLOP formula of the first few shapes, in the form that FlopCounterMode calls."""
    return lambda *shapes, **_: formula(*shapes[:operands])


def _bytes(value: Any) -> int:
    """Bytes of all tensors in a nesting of tuples, lists and dicts."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (tuple, list)) else 0


def count_parameters(tracked: Mapping[str, Any]) -> int | None:
    """Numbers that training changes: what the tracked optimizers hold, else the tracked modules.

    In NumPy weeks, the arrays tracked under the name `model` or `params`. None when there is
    nothing of the kind.
    """
    things = list(_leaves(tracked.values()))
    groups = [group for thing in things for group in getattr(thing, "param_groups", [])]
    held = [parameter for group in groups for parameter in group["params"]]
    held = held or [
        parameter
        for thing in things
        if callable(getattr(thing, "parameters", None))
        for parameter in thing.parameters()
        if parameter.requires_grad
    ]
    if held:
        return sum({id(parameter): int(parameter.numel()) for parameter in held}.values())
    from labkit.state.tracked import get_state

    named = [get_state(tracked[name]) for name in ("model", "params") if name in tracked]
    return sum(int(getattr(leaf, "size", 1)) for leaf in _leaves(named)) if named else None


def _leaves(things: Iterable[Any]) -> Iterable[Any]:
    """What nested lists, tuples and dicts hold, and what a thing tracks itself (a chain of stages
    does)."""
    for thing in things:
        if isinstance(own := getattr(thing, "tracked", None), Mapping):
            thing = dict(own)
        if isinstance(thing, dict):
            yield from _leaves(thing.values())
        elif isinstance(thing, (list, tuple)):
            yield from _leaves(thing)
        else:
            yield thing
