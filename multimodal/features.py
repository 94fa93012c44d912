"""What frozen towers say of pictures and captions, computed once and kept on disk.

With tune=projections the towers never change. Their outputs for the whole training set are a few
megabytes, and a step that starts from them costs a small part of one through the towers.

A file is used again only if its provenance agrees: the weights of the tower, and what went in.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from labkit import paths
from labkit.learning.modes import evaluating
from labkit.show.console import say, warn

BATCH = 256
KEY = "features"


def digest(*parts: Tensor) -> str:
    """SHA-256 over the types, shapes and values of tensors."""
    total = hashlib.sha256()
    for part in parts:
        array = part.detach().cpu().contiguous()
        total.update(f"{array.dtype} {tuple(array.shape)}".encode())
        total.update(np.ascontiguousarray(array.view(torch.uint8).numpy()).data)
    return total.hexdigest()


def frozen(tower: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """The tower's output for each of the inputs, float32 (N, C), on the tower's device.

    Read from the cache when it was computed before, with the same weights from the same inputs. A
    file that is damaged, or tells of something else, is made again.

    Args:
        name: of the tower, for messages.
        inputs: (N, ...), what the tower takes, on any device.
    """
    weights = digest(*tower.state_dict().values())
    provenance = {"weights": weights, "inputs": digest(inputs), "tower": name}
    key = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:24]
    file = folder() / f"{name}-{key}.safetensors"
    device = next(tower.parameters()).device
    found = read(file, provenance, len(inputs))
    if found is None:
        say(f"computing the {name} features of {len(inputs):,} inputs once; kept in {file}")
        found = compute(tower, inputs, device)
        write(file, found, provenance)
    return found.to(device)


def folder() -> Path:
    """Where features are kept; it can be removed at any time."""
    return paths.home() / ".cache" / "multimodal"


def compute(tower: nn.Module, inputs: Tensor, device: torch.device) -> Tensor:
    """(N, ...) -> float32 (N, C) on the CPU, in batches, without gradients."""
    with evaluating(tower):
        parts = [tower(part.to(device)).float().cpu() for part in inputs.split(BATCH)]
    return torch.cat(parts)


def write(file: Path, features: Tensor, provenance: dict[str, str]) -> None:
    """Keep features with where they came from; the file appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    save_file({KEY: features.contiguous()}, partial, metadata=provenance)
    os.replace(partial, file)


def read(file: Path, provenance: dict[str, str], count: int) -> Tensor | None:
    """The features in a file; None when it is not there, or does not hold what it should."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            stated, features = opened.metadata(), opened.get_tensor(KEY)
    except (OSError, SafetensorError) as error:
        warn(f"{file} cannot be read ({error}) and is made again")
        return None
    if stated != provenance or len(features) != count or not features.isfinite().all():
        warn(f"{file} does not hold what its name says and is made again")
        return None
    return features
