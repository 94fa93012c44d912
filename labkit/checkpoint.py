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
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import RunFailed

KEPT = 2
"""Checkpoints kept: the newest, and one to fall back on."""


def pack(value: Any, tensors: dict[str, Any], path: str = "state") -> Any:
    """Split nested state into JSON (returned) and tensors (put into `tensors` under their path).

    Raises TypeError, naming the place, for anything that is neither.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        tensors[path] = value
        return {"__array__": path, "shape": list(value.shape)}
    if _is_tensor(value):
        tensors[path] = value.detach()
        return {"__tensor__": path}
    if isinstance(value, tuple):
        return {"__tuple__": [pack(v, tensors, f"{path}.{i}") for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [pack(v, tensors, f"{path}.{i}") for i, v in enumerate(value)]
    if isinstance(value, dict):
        pairs = [
            [pack(k, tensors, f"{path}.key{i}"), pack(v, tensors, f"{path}.{k}")]
            for i, (k, v) in enumerate(value.items())
        ]
        return {"__dict__": pairs}
    raise TypeError(
        f"{path} is a {type(value).__name__}: checkpoints hold tensors, arrays, numbers, text "
        "and nestings of them"
    )


def unpack(value: Any, tensors: dict[str, Any]) -> Any:
    """The inverse of `pack`."""
    if isinstance(value, list):
        return [unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "__array__" in value:
        return np.array(tensors[value["__array__"]]).reshape(value["shape"])
    if "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if "__tuple__" in value:
        return tuple(unpack(v, tensors) for v in value["__tuple__"])
    return {unpack(k, tensors): unpack(v, tensors) for k, v in value["__dict__"]}


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
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return final


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
        for key in [key for key in target if key not in state]:
            del target[key]
        for key, value in state.items():
            target[key] = _restored(target.get(key), value)
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
        fits = isinstance(old, (dict, list)) and type(old) is type(value)
    if fits:
        _restore_container(old, value)
    return old if fits else value


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


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
