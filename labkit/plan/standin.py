"""A model of the hub's size with random weights, for a rehearsal where there is no network.

Shapes, memory and work of a step depend on the size of a model, and not on what it knows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.show.console import say

GPT2 = ("gpt2", "openai-community/gpt2")
"""Names under which the hub has the GPT-2 of 124M parameters."""


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[None]:
    """In here a GPT-2 that the hub's client cannot give is made at random, below `folder`."""
    import huggingface_hub

    real = huggingface_hub.snapshot_download

    def snapshot_download(repo_id: str, *args: Any, **options: Any) -> str:
        try:
            return str(real(repo_id, *args, **options))
        except (OSError, ValueError):
            if repo_id not in GPT2:
                raise
        say(f"{repo_id} is not here: its weights are random in this rehearsal")
        return str(make_gpt2(folder / "gpt2"))

    huggingface_hub.snapshot_download = snapshot_download  # type: ignore[assignment]
    try:
        yield
    finally:
        huggingface_hub.snapshot_download = real


def make_gpt2(folder: Path, **changes: Any) -> Path:
    """A GPT-2 in Hugging Face format, 124M parameters unless `changes` say otherwise, with a
    byte-level tokenizer of as many tokens as the library's documentation yields (at most its own).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from labkit.data.sets.text import pydoc

    if folder.is_dir():
        return folder
    config = GPT2Config(**changes)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([pydoc().train], trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end).save_pretrained(folder)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder
