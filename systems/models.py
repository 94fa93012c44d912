"""Opening what is served: a quantised folder, or any GPT-2 in Hugging Face's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit import Run, UsageError, paths
from labkit.data import TextData
from labkit.learning.muon import Muon, others
from labkit.learning.weights import opening
from labkit.show.console import say
from pretraining import GPT, Shape, build_tokenizer, encode, from_huggingface, load, sample_batch
from systems import packed

LAB = "lab://pretraining/tiny"
AT_HAND = 120
"""Steps of the small model that a run at size smoke trains on the spot."""


def open_folder(folder: Path | str) -> tuple[GPT, Any]:
    """A GPT in evaluation mode and its tokenizer. Raises UsageError for anything else."""
    from transformers import AutoTokenizer

    folder = Path(folder)
    if packed.is_packed(folder):
        model = packed.load(folder)
    else:
        try:
            model = load(folder).eval()
        except ValueError as error:
            raise UsageError(f"{folder}: {error}") from error
    if model.architecture != "gpt2":
        raise UsageError(f"{folder} holds a NanoChat; this week takes GPT-2 models")
    with opening(folder, "tokenizer", "It must lie beside the model"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if len(tokenizer) > model.shape.vocabulary:
        raise UsageError(f"the tokenizer in {folder} has more tokens than the model beside it")
    return model, tokenizer


def find(folder: str) -> Path:
    """The folder that a person names; `lab` is the newest GPT-2 that week 7 published.

    Raises UsageError when it is not there.
    """
    if folder == "lab":
        found = sorted(
            (f for f in (paths.artifacts() / "pretraining").glob("*") if fits(f)),
            key=lambda f: (not f.name.startswith("tiny"), "muon" not in f.name, f.name),
        )
        if not found:
            raise UsageError(
                "week 7 has published no model here yet; make one, or name a folder:\n"
                "    python -m pretraining.train +size=tiny data=wikitext2 +experiment=muon"
            )
        return found[0]
    path = paths.typed(folder)
    if not (path / "config.json").is_file() and not packed.is_packed(path):
        raise UsageError(f"folder={folder} holds no model: neither config.json nor {packed.FACTS}")
    return path


def fits(folder: Path) -> bool:
    """Whether a folder says that it holds a GPT-2."""
    file = folder / "config.json"
    return file.is_file() and '"gpt2"' in file.read_text(encoding="utf-8", errors="replace")


def base_of(name: str, run: Run, data: TextData) -> tuple[GPT, Any]:
    """The model that `base=` names and its tokenizer; at size smoke a small one trained here.

    Raises UsageError for a base that cannot be had or is not a GPT-2.
    """
    if name == LAB:
        folder = run.artifact("pretraining", "wikitext2", "pydoc", "muon")
        model, tokenizer = trained_here(data, run.seed) if folder is None else open_folder(folder)
    else:
        from alignment import load_base

        theirs, tokenizer = load_base(name, run, [data.train])
        try:
            model = from_huggingface(theirs)
        except ValueError as error:
            raise UsageError(f"base={name}: {error}; type base=gpt2") from error
    return model.to(run.device), tokenizer


def trained_here(data: TextData, seed: int) -> tuple[GPT, Any]:
    """A GPT-2 of 0.1 M parameters, trained for AT_HAND steps: a second or two."""
    say("size smoke: a small model is trained on the spot")
    tokenizer = build_tokenizer("bpe", data.name, data.train, 512)
    tokens = encode(tokenizer, data.train)
    model = GPT(Shape(len(tokenizer), 64, 64, 2, 2))
    matrices = [p for p in model.blocks.parameters() if p.dim() == 2]
    optimizers = [
        Muon(matrices, 2e-2, adjust_lr_fn="match_rms_adamw", precision="fp32", weight_decay=0.0),
        torch.optim.AdamW(others(model, matrices), 5e-3, fused=True),
    ]
    for step in range(AT_HAND):
        x, y = sample_batch(tokens, 32, 16, step, seed)
        loss = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model.eval(), tokenizer


def calibration(tokens: Tensor, windows: int, length: int, seed: int) -> Tensor:
    """Windows of the training text, int64 (windows, T), drawn by the seed. Other text would leak:
    what calibrates must not be what the perplexity is measured on."""
    return sample_batch(tokens, length, windows, 0, seed)[0]
