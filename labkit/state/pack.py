"""Nested state as JSON and tensors, and back: of the same types and bits."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from typing import Any

import numpy as np

MAPPINGS = (dict, OrderedDict, Counter)
"""Kinds of dict that are restored as the same type; a defaultdict's factory could not be."""


def pack(value: Any, tensors: dict[str, Any], path: str = "state") -> Any:
    """Split nested state into JSON (returned) and tensors (put into `tensors` under their path).

    What is restored has the same types and bits. Raises TypeError, naming the place, for anything
    else.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return {"__scalar__": _keep(np.asarray(value), tensors, path)}
    if kind in (np.ndarray, np.memmap):
        columns = value.flags.f_contiguous and not value.flags.c_contiguous
        name = _keep(value, tensors, path)
        return {
            "__array__": name,
            "shape": list(value.shape),
            **({"order": "F"} if columns else {}),
        }
    if _is_tensor(value):
        return {"__tensor__": _keep(value.detach(), tensors, path)}
    if kind is tuple or _is_size(value):
        return {"__tuple__": [pack(v, tensors, f"{path}.{i}") for i, v in enumerate(value)]}
    if kind is list:
        return [pack(v, tensors, f"{path}.{i}") for i, v in enumerate(value)]
    if kind in MAPPINGS:
        pairs = [
            [_pack_key(k, tensors, path), pack(v, tensors, f"{path}.{k}")] for k, v in value.items()
        ]
        return {"__dict__": pairs, **({"type": kind.__name__} if kind is not dict else {})}
    raise TypeError(
        f"{path} is a {kind.__name__}: checkpoints hold tensors, arrays, numbers, text "
        "and lists, tuples and dicts of them"
    )


def _keep(value: Any, tensors: dict[str, Any], path: str) -> str:
    """Put a tensor or array under a name of its own: 1 and "1" are two keys of a dict, but make one
    path. Raises TypeError for what the file format cannot hold.
    """
    if isinstance(value, np.ndarray):
        held = value.dtype.kind in "biuf" and value.dtype.isnative and value.dtype.itemsize <= 8
    else:
        held = str(value.layout) == "torch.strided" and not value.is_quantized
        held = held and str(value.dtype) != "torch.complex128"
    if not held:
        what = f"{value.dtype} {'array' if isinstance(value, np.ndarray) else 'tensor'}"
        raise TypeError(f"{path} is a {what}, which a checkpoint cannot hold")
    name, count = path, 1
    while name in tensors:
        count += 1
        name = f"{path}#{count}"
    tensors[name] = value
    return name


def _pack_key(key: Any, tensors: dict[str, Any], path: str) -> Any:
    """A key of a dict: text, a number or a tuple of them. Raises TypeError for others."""
    if isinstance(key, np.ndarray) or _is_tensor(key):
        raise TypeError(
            f"{path} has a {type(key).__name__} as a key, which a checkpoint cannot hold"
        )
    return pack(key, tensors, f"{path}.key")


def unpack(value: Any, tensors: dict[str, Any]) -> Any:
    """The inverse of `pack`."""
    if isinstance(value, list):
        return [unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "__scalar__" in value:
        return np.asarray(tensors[value["__scalar__"]]).reshape(())[()]
    if "__array__" in value:
        array = np.array(tensors[value["__array__"]]).reshape(value["shape"])
        return np.asfortranarray(array) if value.get("order") == "F" else array
    if "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if "__tuple__" in value:
        return tuple(unpack(v, tensors) for v in value["__tuple__"])
    pairs = {unpack(k, tensors): unpack(v, tensors) for k, v in value["__dict__"]}
    kind = next((m for m in MAPPINGS if m.__name__ == value.get("type")), dict)
    return kind(pairs)


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_size(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Size)
