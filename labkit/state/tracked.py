"""State of tracked things, taken and restored in place."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from labkit.errors import RunFailed
from labkit.state.pack import _is_tensor


def get_state(thing: Any) -> Any:
    """State of a tracked thing: its state_dict(), a generator's state, or the plain container
    itself.
    """
    if isinstance(thing, np.random.Generator):
        return thing.bit_generator.state
    if (torch := sys.modules.get("torch")) is not None and isinstance(thing, torch.Generator):
        return thing.get_state()
    if hasattr(thing, "state_dict"):
        return thing.state_dict()
    if isinstance(thing, dict):
        return dict(thing)  # restored in place: the thing itself keeps its kind
    return thing


def set_state(thing: Any, state: Any, name: str) -> None:
    """Restore a tracked thing in place. Raises RunFailed when the state does not fit it."""
    try:
        if isinstance(thing, np.random.Generator):
            thing.bit_generator.state = state
        elif (torch := sys.modules.get("torch")) is not None and isinstance(thing, torch.Generator):
            thing.set_state(state)
        elif hasattr(thing, "load_state_dict"):
            thing.load_state_dict(state)
            if hasattr(thing, "param_groups"):
                _match_layout(thing)
        else:
            _restore_container(thing, state)
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise RunFailed(f"the checkpoint does not fit this code: {name}: {error}") from error


def _match_layout(optimizer: Any) -> None:
    """Give an optimizer's state the memory layout of its parameters.

    A file keeps values, not strides, and fused kernels walk parameter and state side by side: with
    channels-last weights and contiguous moments they would pair the wrong numbers, silently.
    """
    import torch

    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name, value in optimizer.state.get(parameter, {}).items():
                if _is_tensor(value) and value.shape == parameter.shape:
                    laid_out = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                    optimizer.state[parameter][name] = laid_out.copy_(value)


def _restore_container(target: Any, state: Any) -> None:
    """Fill dicts, lists and arrays with saved values; the objects stay the same ones."""
    if isinstance(target, np.ndarray):
        if target.shape != state.shape:
            raise ValueError(f"shape {state.shape} saved, {target.shape} expected")
        target[...] = state
    elif isinstance(target, dict):
        old = dict(target)
        target.clear()  # filled anew in the saved order, which a loop over it will follow
        for key, value in state.items():
            target[key] = _restored(old.get(key), value)
    elif isinstance(target, list):
        target[:] = [
            _restored(target[i] if i < len(target) else None, v) for i, v in enumerate(state)
        ]
    else:
        raise TypeError(f"a {type(target).__name__} cannot be restored in place")


def _restored(old: Any, value: Any) -> Any:
    """`value`, written into `old` where that is a container or array of its kind and shape."""
    if _is_tensor(old) and _is_tensor(value) and old.shape == value.shape:
        old.detach().copy_(value)
        return old
    if isinstance(old, np.ndarray):
        same_kind = isinstance(value, np.ndarray) and old.dtype == value.dtype
        fits = same_kind and old.shape == value.shape
    else:
        fits = any(isinstance(old, k) and isinstance(value, k) for k in (dict, list))
    if fits:
        _restore_container(old, value)
    return old if fits else value
