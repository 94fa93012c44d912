"""Models of sums on disk, in Hugging Face's format, as week 7 writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labkit import UsageError
from pretraining import GPT, build_tokenizer, export, load
from rlhf.verifiable.arithmetic import SYMBOLS, VOCABULARY

START, FINAL = "start", "final"
"""Folders of an artifact: the model after its supervised start, and after GRPO."""


def tokenizer() -> Any:
    """Week 7's tokenizer by character, for sums; padded on the left, as generation needs."""
    found = build_tokenizer("char", "addition", SYMBOLS, 0)
    found.padding_side = "left"
    return found


def save(folder: Path, first: GPT, model: GPT) -> None:
    """Write both models, `first` after its supervised start."""
    for name, each in ((START, first), (FINAL, model)):
        export(each, tokenizer(), folder / name)


def open_model(folder: Path, context: int) -> GPT:
    """A model that `save` wrote, or another GPT with the same tokens.

    Raises UsageError when the model has other tokens than the task needs, or is too short.
    """
    model = load(folder)
    if model.shape.vocabulary != VOCABULARY:
        raise UsageError(
            f"the model in {folder} has {model.shape.vocabulary} tokens, and sums need the "
            f"{VOCABULARY} of rlhf.verifiable ({SYMBOLS} and three special ones); take one that "
            "`python -m rlhf.verifiable.train` published"
        )
    if model.shape.context < context:
        raise UsageError(
            f"the model in {folder} sees {model.shape.context} tokens, and a sum with its answer "
            f"has up to {context}; take longest= and digits= from the run that made it"
        )
    return model
