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
CLIP = "openai/clip-vit-base-patch32"


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[None]:
    """In here a GPT-2 or CLIP that the hub's client cannot give is random, made below `folder`."""
    import huggingface_hub

    real = huggingface_hub.snapshot_download

    def snapshot_download(repo_id: str, *args: Any, **options: Any) -> str:
        try:
            return str(real(repo_id, *args, **options))
        except (OSError, ValueError):
            if repo_id not in (*GPT2, CLIP):
                raise
        say(f"{repo_id} is not here: its weights are random in this rehearsal")
        make = make_clip if repo_id == CLIP else make_gpt2
        return str(make(folder / repo_id))

    huggingface_hub.snapshot_download = snapshot_download  # type: ignore[assignment]
    try:
        yield
    finally:
        huggingface_hub.snapshot_download = real


def make_gpt2(folder: Path, **changes: Any) -> Path:
    """A GPT-2 in Hugging Face format, 124M parameters unless `changes` say otherwise, with a
    byte-level tokenizer of as many tokens as the library's documentation yields (at most its own).
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    if folder.is_dir():
        return folder
    config = GPT2Config(**changes)
    make_tokenizer(config.vocab_size).save_pretrained(folder)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def make_clip(folder: Path, **changes: Any) -> Path:
    """A ViT-B/32 CLIP in Hugging Face format, unless `changes` say otherwise; its tokenizer has
    fewer tokens than the model.
    """
    from transformers import CLIPConfig, CLIPModel

    if folder.is_dir():
        return folder
    config = CLIPConfig(**changes)
    tokenizer = make_tokenizer(min(8192, config.text_config.vocab_size))
    tokenizer.pad_token = tokenizer.eos_token
    config.text_config.eos_token_id = tokenizer.eos_token_id
    tokenizer.save_pretrained(folder)
    CLIPModel(config).save_pretrained(folder)
    return folder


def make_tokenizer(vocabulary: int) -> Any:
    """A byte-level tokenizer of at most so many tokens, from the library's documentation."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from labkit.data.sets.text import pydoc

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([pydoc().train], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end)
