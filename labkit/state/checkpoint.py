"""Checkpoints: one file each, written whole or not at all, and restored to the last bit.

A checkpoint is a safetensors file. Tensors and arrays are its tensors; the rest of the state
(numbers, strings, nesting, generator states) is JSON in the file's metadata; a CRC-32 over both
finds damage that the format itself does not see. No pickle: reading one never runs code.

The file is written under a temporary name, flushed to disk and renamed, so a crash, a full disk or
`kill -9` at any moment leaves the previous checkpoint untouched.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import zlib
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import RunFailed

KEPT = 2
"""Checkpoints kept: the newest, and one to fall back on."""

MAPPINGS = (dict, OrderedDict, Counter)
"""Kinds of dict that come back as what they were; a defaultdict's factory could not."""


def pack(value: Any, tensors: dict[str, Any], path: str = "state") -> Any:
    """Split nested state into JSON (returned) and tensors (put into `tensors` under their path).

    What comes back is of the same types and bits. Raises TypeError, naming the place, for anything
    of which that cannot be said.
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


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as folder/step-<step>.safetensors, atomically, and drop all but the newest two.

    Raises RunFailed when the disk does not take it; what was there before stays.
    """
    from safetensors import SafetensorError

    tensors: dict[str, Any] = {}
    text = json.dumps(pack(state, tensors))
    final = folder / f"step-{step:09d}.safetensors"
    partial = final.with_suffix(".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if free_bytes(folder) < _bytes(tensors) + len(text):
            _keep_newest(
                folder, 1
            )  # the spare one makes room; the newest stays until this is whole
        _save_file(tensors, partial, {"state": text})
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, final)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise RunFailed(
            f"the checkpoint of step {step} could not be written to {folder}: {error}. "
            "Earlier checkpoints are untouched: free some space, then resume."
        ) from error
    _keep_newest(folder, KEPT)
    return final


def _keep_newest(folder: Path, count: int) -> None:
    for old in sorted(folder.glob("step-*.safetensors"))[:-count]:
        old.unlink(missing_ok=True)


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the file system of `folder`, which exists."""
    return shutil.disk_usage(folder).free


def _bytes(tensors: dict[str, Any]) -> int:
    return sum(int(value.nbytes) for value in tensors.values())


def too_little_room(folder: Path, needed: int) -> str | None:
    """What to tell a person when `folder` has no room for a checkpoint of `needed` bytes."""
    free = free_bytes(folder)
    if free >= needed:
        return None
    return (
        f"the next checkpoint needs {needed / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB are free "
        f"where {folder} is. Free some space, or the run will end there (it can be resumed)."
    )


def size_of(state: dict[str, Any]) -> int:
    """Bytes of the tensors and arrays that a checkpoint of `state` would hold."""
    tensors: dict[str, Any] = {}
    pack(state, tensors)
    return _bytes(tensors)


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint. Raises ValueError when the file is damaged or half-written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata()
        # A run that saved tensors resumes with torch loaded; NumPy weeks never load it.
        framework = "pt" if '"__tensor__"' in metadata["state"] else "np"
        with safe_open(path, framework=framework) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        if metadata["crc"] != _crc(tensors, metadata["state"]):
            raise ValueError("checksum does not match")
        state = unpack(json.loads(metadata["state"]), tensors)
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise ValueError(f"{path.name} is damaged ({error})") from error
    assert isinstance(state, dict)
    return state


def load_latest(folder: Path, warn: Any = print) -> dict[str, Any] | None:
    """The newest checkpoint that reads well; a damaged one is passed over with a warning.

    Returns None when there is no checkpoint at all. Raises RunFailed when every one is damaged.
    """
    damaged = []
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        try:
            state = load(path)
        except ValueError as error:
            damaged.append(str(error))
            warn(f"checkpoint {error}; trying the one before it")
            continue
        return state
    if damaged:
        raise RunFailed(
            f"no checkpoint in {folder} can be read: {'; '.join(damaged)}. "
            "Start the run again without resume=, or delete the files to resume from step 0."
        )
    return None


def rng_state() -> dict[str, Any]:
    """States of the global generators: Python's, NumPy's legacy one and, when torch is loaded,
    torch's.
    """
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]  # noqa: NPY002
    state: dict[str, Any] = {
        "python": (version, np.asarray(numbers, dtype=np.int64), gauss),
        "numpy": (kind, np.asarray(keys), int(position), int(has_gauss), float(cached)),
    }
    if (torch := sys.modules.get("torch")) is not None:
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            state["cuda"] = list(torch.cuda.get_rng_state_all())
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` took."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(int(n) for n in numbers), gauss))
    np.random.set_state(state["numpy"])  # noqa: NPY002
    if (torch := sys.modules.get("torch")) is not None and "torch" in state:
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state.get("cuda", [])) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])


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


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_size(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Size)


def _save_file(tensors: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
    """The library's writer; the NumPy one while there is no torch tensor: torch can stay out."""
    metadata["crc"] = _crc(tensors, metadata["state"])
    if any(_is_tensor(value) for value in tensors.values()):
        import torch
        from safetensors.torch import save_file

        whole = {
            k: v if _is_tensor(v) else torch.from_numpy(np.array(v)) for k, v in tensors.items()
        }
        # Tied weights share memory, which the format forbids: every name gets bytes of its own.
        save_file(
            {k: v.detach().cpu().clone().contiguous() for k, v in whole.items()}, path, metadata
        )
    else:
        from safetensors.numpy import save_file as save_arrays

        save_arrays({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, metadata)


def _crc(tensors: dict[str, Any], text: str) -> str:
    """CRC-32 over the JSON text and the bytes of all tensors in the order of their names."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        if _is_tensor(value):
            import torch

            value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(np.ascontiguousarray(value).data.cast("B") if value.size else b"", crc)
    return str(crc)
