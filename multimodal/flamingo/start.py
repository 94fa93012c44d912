"""What Flamingo is built from: a frozen language model, a frozen image tower, and scenes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from alignment import load_base
from labkit import Run, UsageError
from labkit.learning.modes import evaluating
from labkit.show.console import say
from multimodal import scenes
from multimodal.flamingo.episodes import Episodes
from multimodal.flamingo.model import Flamingo
from multimodal.huggingface import load_published
from multimodal.pipeline import Pipeline
from multimodal.pool import Pool, Pools, of_scenes
from multimodal.start import Size, new_model
from multimodal.towers import ImageTower
from pretraining import GPT, from_huggingface

HELD_OUT = {"valid": 600, "test": 2000}
"""Scenes of the combinations that training never shows."""
ALONE = 0.7
"""Share of scenes with one object: questions are about these."""
RANDOM = Size(48, 1, 2, 32, 32, 8, "conv", 16)
"""The untrained image tower of size smoke."""
BATCH = 256


def texts() -> list[str]:
    """A caption of every scene with one object, for the tokenizer of a random language model."""
    every = scenes.singles(np.arange(scenes.COMBINATIONS))
    return [text for captions in scenes.captions_of(every) for text in captions]


def language_model(name: str, run: Run) -> tuple[GPT, Any]:
    """Week 7's GPT with the weights that `name` names, on the run's device, and its tokenizer.

    Raises UsageError for a model that cannot be had, or that week 7's code does not know.
    """
    try:
        theirs, tokenizer = load_base(name, run, texts())
    except UsageError as error:
        raise UsageError(str(error).replace("base=", "language=")) from error
    try:
        return from_huggingface(theirs).to(run.device), tokenizer
    except ValueError as error:
        raise UsageError(f"language={name}: {error}; type language=gpt2") from error


def image_tower(name: str, run: Run) -> ImageTower:
    """The frozen tower: `lab` is that of this week's run of size tiny; at smoke a random one."""
    if name == "lab":
        found = run.artifact("multimodal", "scenes")
        if found is None:
            say("no image tower is at hand: an untrained one is taken")
            model, _ = new_model(RANDOM, texts(), 1.0, 0.0)
        else:
            model = Pipeline.load(found).model
    else:
        model, _ = load_published(name)
    return model.image.to(run.device).requires_grad_(False).eval()


def pools(count: int, side: int, run: Run) -> dict[str, Pool]:
    """Scenes for training, validation and test, recorded as the run's data: those of each split's
    own combinations.
    """
    counts = {"train": count, **HELD_OUT}
    names: tuple[scenes.Split, ...] = ("train", "valid", "test")
    made: dict[str, Pool] = {
        name: of_scenes(
            scenes.draw(counts[name], scenes.combinations(name), ALONE, seed=6 + place), side,
            seed=6 + place,
        )
        for place, name in enumerate(names)
    }  # fmt: skip
    digest = Pools(made["train"], made["valid"], made["test"]).digest()
    run.generated("scenes", {name: len(pool) for name, pool in made.items()}, digest)
    return made


def states_of(
    tower: ImageTower,
    pictures: Tensor,
    autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> Tensor:
    """The tower's states of all pictures, computed once: uint8 (N, 3, S, S) -> (N, 1 + P, C)."""
    device = tower.positions.device
    with evaluating(tower), autocast():
        return torch.cat(
            [tower.norm_out(tower.states(part.to(device))) for part in pictures.split(BATCH)]
        ).float()


def special(tokenizer: Any) -> tuple[int, int]:
    """The token that stands for a picture, the language model's END, and one to pad with.

    They differ, or padding would be counted as pictures. Padding stands behind the text, where
    nothing that is asked can see it, so any other token will do.
    """
    end = int(tokenizer.eos_token_id)
    return end, 0 if end else 1


def episodes(
    found: Mapping[str, Pool], tokenizer: Any, chunks: int, context: int
) -> dict[str, Episodes]:
    """Makers of rows for each split. Raises UsageError as Episodes does."""
    picture, pad = special(tokenizer)
    made = {}
    for name, pool in found.items():
        assert pool.scenes is not None
        made[name] = Episodes(pool.scenes, tokenizer, picture, pad, chunks, context)
    return made


def save(model: Flamingo, folder: Path) -> None:
    """Write what was trained, without the frozen models."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().cpu().contiguous() for name, p in model.trained()}
    save_file(weights, folder / "flamingo.safetensors", metadata={"format": "pt"})
