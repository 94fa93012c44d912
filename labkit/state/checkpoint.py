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
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import RunFailed
from labkit.state.pack import _is_tensor, pack, unpack

KEPT = 2
"""Checkpoints kept: the newest, and one to fall back on."""


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
        # Windows keeps the file that a resumed run was read from; another save removes it.
        with contextlib.suppress(PermissionError):
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
    """The newest checkpoint that reads well; a damaged one is skipped with a warning.

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


def _save_file(tensors: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
    """The library's writer; the NumPy one, without torch, while there is no torch tensor."""
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
