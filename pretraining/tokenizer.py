"""Text to whole numbers: by character, or by byte pairs (Sennrich et al. 2016; bytes: Radford et
al. 2019, section 2.2). Made with the library `tokenizers`, so that it opens with AutoTokenizer.

Two tokens stand for no text: END, which ends a document, and PAD, which fills a batch. They differ
on purpose: if END is also the padding and the loss ignores padding, the model never learns to end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from labkit import UsageError
from labkit.data import TextData
from labkit.machine.ranks import rank

END, PAD, MASK = "<|endoftext|>", "<|pad|>", "<|mask|>"
BY_CHARACTER = ("tinyshakespeare",)
"""Sets with published results per character; `tokenizer=auto` takes byte pairs for the others."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""Plain roles, one message per line; the assistant's turn ends with END."""


def build_tokenizer(
    kind: Literal["auto", "char", "bpe"], data: str, text: str, vocabulary: int
) -> PreTrainedTokenizerFast:
    """A tokenizer made from `text`, the training split of the set `data`.

    Args:
        kind: `auto` depends on the set (see BY_CHARACTER).
        vocabulary: number of tokens for byte pairs, including END, PAD and MASK; by character, the
            text decides it.
    Raises:
        UsageError when the text is empty, or the vocabulary smaller than the 256 bytes and the
        three special tokens.
    """
    if not text:
        raise UsageError(f"data={data} has no text to train on")
    single = by_character(kind, data)
    tokenizer = characters(text) if single else byte_pairs(text, vocabulary)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PAD, mask_token=MASK,
        unk_token=END if single else None, chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def special_id(tokenizer: PreTrainedTokenizerFast, name: str) -> int:
    """The number of END, PAD or MASK."""
    found = tokenizer.convert_tokens_to_ids(name)
    assert isinstance(found, int)
    return found


def by_character(kind: Literal["auto", "char", "bpe"], data: str) -> bool:
    """Whether a set's tokens are its characters."""
    return kind == "char" or (kind == "auto" and data in BY_CHARACTER)


def prepare_tokenizer(
    folder: Path, kind: Literal["auto", "char", "bpe"], data: TextData, vocabulary: int
) -> PreTrainedTokenizerFast:
    """The tokenizer of a run: made when it begins, and read from its folder when it resumes."""
    file = folder / "tokenizer"
    if file.is_dir():
        return PreTrainedTokenizerFast.from_pretrained(file)
    tokenizer = build_tokenizer(kind, data.name, data.train, vocabulary)
    if rank() == 0:
        tokenizer.save_pretrained(file)
    return tokenizer


def characters(text: str) -> Tokenizer:
    """One token for each character of the text, in the order of their code points; any other
    character becomes END."""
    names = [*sorted(set(text)), END, PAD, MASK]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, END))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def byte_pairs(text: str, vocabulary: int) -> Tokenizer:
    """Byte-level BPE: any text can be encoded, and decoding gives it back byte by byte."""
    smallest = 256 + 3
    if vocabulary < smallest:
        raise UsageError(
            f"vocabulary={vocabulary} is too small for 256 bytes and 3 special tokens; "
            f"type vocabulary={smallest} or more"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD, MASK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer
