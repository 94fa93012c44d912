"""A quantised model on disk: one file of tensors, one of facts, and the tokenizer.

    quantized.json       format, scheme, shape, and the SHA-256 of the tensors
    model.safetensors    codes (4 bits: two in a byte), scales, zeros, and what was not rounded

`load` opens such a folder as a GPT of week 7, so everything that takes a GPT takes it: week 7's
evaluation, the engine, `to_huggingface`. The codes are turned back into float32 for computing
(except in LLM.int8): on a processor without 4-bit instructions the gain is in bytes, not in time.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from labkit import UsageError
from labkit.learning.weights import opening
from pretraining import GPT, Shape
from systems.quantize import Quantized, pack_nibbles, unpack_nibbles
from systems.schemes import Scheme, install

FORMAT = 1
FACTS, TENSORS = "quantized.json", "model.safetensors"
PARTS = ("codes", "scale", "zero", "columns", "order")
FIX = "Make it again: python -m systems.train +size=tiny"


def is_packed(folder: Path) -> bool:
    """Whether a folder claims to hold a quantised model."""
    return (folder / FACTS).is_file()


def save(
    folder: Path, model: GPT, matrices: dict[str, Quantized], scheme: Scheme, threshold: float,
    tokenizer: Any = None,
) -> None:  # fmt: skip
    """Write a model whose matrices were quantised by `quantize_model`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, matrix in matrices.items():
        for part in PARTS:
            value = getattr(matrix, part)
            if value is not None:
                four = part == "codes" and matrix.bits == 4
                tensors[f"{name}:{part}"] = pack_nibbles(value) if four else value.contiguous()
    tied = model.head.weight is model.embedding.weight
    for name, value in model.state_dict().items():
        if name not in matrices and not (tied and name == "head.weight"):
            tensors[name] = value.contiguous()
    save_file(tensors, folder / TENSORS)
    facts = {
        "format": FORMAT, "scheme": asdict(scheme), "threshold": threshold,
        "architecture": model.architecture, "shape": asdict(model.shape), "sha256": digest(folder),
        "bits": {name: matrix.bits for name, matrix in matrices.items()},
    }  # fmt: skip
    (folder / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def digest(folder: Path) -> str:
    """SHA-256 of the file of tensors."""
    with (folder / TENSORS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_on_disk(folder: Path) -> int:
    """Bytes of the tensors' file."""
    return (folder / TENSORS).stat().st_size


def load(folder: Path | str) -> GPT:
    """The model in a folder that `save` wrote, in evaluation mode.

    Raises UsageError, naming the folder and its fault, when a file is missing, cut short, changed
    or of another format.
    """
    folder = Path(folder)
    with opening(folder, "quantised model", FIX):
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise UsageError(
                f"{folder}: format {facts['format']}; this code reads format {FORMAT}. {FIX}."
            )
        if digest(folder) != facts["sha256"]:
            raise UsageError(
                f"{folder / TENSORS} is not the file that was written (it was cut short or "
                f"changed). {FIX}."
            )
        tensors = load_file(folder / TENSORS)
        scheme = Scheme(**facts["scheme"])
        model = GPT(Shape(**facts["shape"]), facts["architecture"])
        matrices = {n: unpacked(n, bits, tensors) for n, bits in facts["bits"].items()}
        rest = {name: value for name, value in tensors.items() if ":" not in name}
        absent, unknown = model.load_state_dict(rest, strict=False)
        if unknown or set(absent) - set(matrices) - {"head.weight"}:
            raise UsageError(f"{folder}: its tensors are not those of its shape. {FIX}.")
        install(model, matrices, scheme, facts["threshold"])
    return model.eval()


def unpacked(name: str, bits: int, tensors: dict[str, Tensor]) -> Quantized:
    """One matrix from the file's tensors. Raises KeyError when a part is missing."""
    parts = {part: tensors.get(f"{name}:{part}") for part in PARTS}
    codes, scale = tensors[f"{name}:codes"], tensors[f"{name}:scale"]
    parts["codes"] = unpack_nibbles(codes) if bits == 4 else codes
    return Quantized(bits=bits, **(parts | {"scale": scale}))  # type: ignore[arg-type]


def clone(model: GPT) -> GPT:
    """A copy of a GPT with weights of its own (a tied head stays tied)."""
    copy = GPT(model.shape, model.architecture)
    copy.load_state_dict(model.state_dict())
    return copy.eval().to(next(model.parameters()).device)


def as_float(model: GPT, folder: Path) -> int:
    """Bytes of the same model in float32, written as week 7's folders are."""
    folder.mkdir(parents=True, exist_ok=True)
    tied = model.head.weight is model.embedding.weight
    kept = {k: v for k, v in model.state_dict().items() if not (tied and k == "head.weight")}
    save_file({name: torch.clone(value) for name, value in kept.items()}, folder / TENSORS)
    return size_on_disk(folder)
