"""What a run begins with: week 7's model, a folder, or one from the hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignment import load_base
from labkit import Run, UsageError
from pretraining import GPT, from_huggingface


def base_of(name: str, run: Run, texts: Sequence[str]) -> tuple[GPT, Any]:
    """The model that `base=` names, as week 7's GPT, and its tokenizer.

    At size smoke a small random one is made, with a tokenizer from `texts`. Raises UsageError for a
    base that cannot be had, or that is not a GPT-2 as week 7 knows it.
    """
    theirs, tokenizer = load_base(name, run, texts)
    try:
        return from_huggingface(theirs).to(run.device), tokenizer
    except ValueError as error:
        raise UsageError(
            f"base={name}: {error}; type base=gpt2 or base=lab://pretraining/tiny"
        ) from error
