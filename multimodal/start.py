"""The model that a run begins with, and which of its weights are trained.

all            every weight
projections    the two last matrices and the logit scale, on features that are computed once
lora           the same, and week 8's low-rank updates inside both towers
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from alignment import LoRALayer, add_lora
from labkit import UsageError
from labkit.learning.muon import Muon
from multimodal.tokens import word_tokenizer
from multimodal.towers import CLIP, CLIPShape, Stem, TowerShape

Tune = Literal["all", "projections", "lora"]
TARGETS = ("q", "k", "v", "out", "up", "down")
"""Last names of the layers with a low-rank update: all matrices inside the layers."""
BETAS = (0.9, 0.98)
"""Of Adam, as in Radford et al. 2021, table 18."""


@dataclass(frozen=True)
class Size:
    """The size of a new model: both towers have the same."""

    width: int
    layers: int
    heads: int
    embedding: int
    side: int
    patch: int
    stem: Stem
    context: int


def new_model(size: Size, captions: Sequence[str], scale: float, bias: float) -> tuple[CLIP, Any]:
    """A model of random weights, and a tokenizer of the words in the captions.

    Raises UsageError for sizes that do not fit each other.
    """
    tokenizer = word_tokenizer(captions)
    tower = TowerShape(size.width, size.layers, size.heads, 4 * size.width)
    try:
        shape = CLIPShape(
            tower, tower, size.side, size.patch, len(tokenizer), size.context,
            tokenizer.eos_token_id, size.embedding, size.stem,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"{error}; try side=32 patch=8 width=128 heads=4") from error
    return CLIP(shape, scale, bias), tokenizer


def prepare(model: CLIP, tune: Tune, rank: int, alpha: float, seed: int) -> None:
    """Choose what is trained: afterwards only that requires a gradient."""
    if tune == "all":
        return
    if tune == "lora":
        generator = torch.Generator().manual_seed(seed)
        add_lora(model, TARGETS, rank, alpha, 0.0, generator)
    else:
        model.requires_grad_(False)
    for part in (model.image_projection, model.text_projection):
        part.requires_grad_(True)
    model.log_scale.requires_grad_(True)
    model.bias.requires_grad_(True)


def merged(model: CLIP) -> CLIP:
    """A copy with each low-rank update added to its weight."""
    found = copy.deepcopy(model)
    layers = [(n, m) for n, m in found.named_modules() if isinstance(m, LoRALayer)]
    for name, layer in layers:
        parent, _, last = name.rpartition(".")
        setattr(found.get_submodule(parent), last, layer.merged())
    return found


def optimizers_of(
    model: nn.Module,
    lr: float,
    muon_lr: float,
    weight_decay: float,
    precision: str = "auto",
    inside: Sequence[str] = ("blocks",),
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the matrices inside the layers unless `muon_lr` is 0.

    Matrices decay; gains, biases, positions and the logit scale do not.

    Args:
        inside: parts of the names of those matrices.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    layers = [p for name, p in trained if p.dim() == 2 and any(word in name for word in inside)]
    layers = layers if muon_lr else []
    taken = set(map(id, layers))
    others = [(name, p) for name, p in trained if id(p) not in taken]
    matrices = [p for name, p in others if p.dim() >= 2 and "positions" not in name]
    rest = [p for name, p in others if p.dim() < 2 or "positions" in name]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": rest},
    ]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr, BETAS, eps=1e-6, weight_decay=0.0, fused=True)
    ]
    if layers:
        found.append(
            Muon(
                layers, muon_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw",
                precision=precision,
            )
        )  # fmt: skip
    return found


def set_rates(optimizers: Sequence[torch.optim.Optimizer], share: float) -> None:
    """Set each learning rate to this share of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * optimizer.defaults["lr"]
