"""The model that is trained: a base, all of it or with a LoRA inside, by hand or peft's."""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from alignment.lora import add_lora, merge, trainable, untie

BETAS = (0.9, 0.99)


def make_model(
    base: Any,
    method: str,
    targets: Sequence[str],
    rank: int,
    alpha: float,
    dropout: float,
    seed: int,
) -> Any:
    """A copy of `base`, ready to be trained by `method`: full, lora or trl.

    Both kinds of LoRA begin with the same numbers, which depend on `seed` alone.
    """
    model, generator = copy.deepcopy(base), torch.Generator().manual_seed(seed)
    if method == "lora":
        add_lora(model, targets, rank, alpha, dropout, generator)
    elif method == "trl":
        from alignment.library import add_peft  # peft and trl take seconds to import

        model = add_peft(model, list(targets), rank, alpha, dropout, generator)
    return model.train()


def make_optimizer(model: Any, lr: float) -> torch.optim.Optimizer:
    """AdamW on the trained parameters, without weight decay: they should stay near their start."""
    return torch.optim.AdamW(
        list(trainable(model).values()), lr, betas=BETAS, weight_decay=0.0, fused=True
    )


def plain(model: Any) -> Any:
    """The transformers model inside a peft model; any other model is returned as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def merged(model: Any) -> Any:
    """A copy with the update merged and no adapter left."""
    found = copy.deepcopy(model)
    if hasattr(found, "merge_and_unload"):
        if "lm_head" in found.peft_config["default"].target_modules:
            untie(found.get_base_model())  # peft itself would merge into the shared weight
        return found.merge_and_unload()
    return merge(found)


def trained_share(model: Any) -> float:
    """Parameters that are trained, as a share (%) of those that the base has."""
    trained = sum(p.numel() for p in trainable(model).values())
    everything = sum(p.numel() for p in model.parameters())
    added = trained if trained < everything else 0
    return 100 * trained / (everything - added)
