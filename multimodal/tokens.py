"""Captions to tokens: by words for a model of our own, by the published model's tokenizer else.

Every caption ends with END, at whose place the text tower reads off its result. Our tokenizer is
written with the library `tokenizers`, so that one folder format serves both kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from labkit import UsageError
from labkit.text import closest, short

PAD, UNKNOWN, END = "<|pad|>", "<|unknown|>", "<|endoftext|>"


def word_tokenizer(captions: Iterable[str]) -> Any:
    """A tokenizer with a token for each word and punctuation mark of the captions, in lower case;
    other words become UNKNOWN. Each text gets END as its last token. END has the highest number,
    as in CLIP's vocabulary.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Whitespace()
    found = {word for text in captions for word, _ in splitter.pre_tokenize_str(text.lower())}
    names = [PAD, UNKNOWN, *sorted(found), END]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, len(names) - 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def encode(tokenizer: Any, captions: Sequence[str], context: int, cut: bool = False) -> Tensor:
    """Tokens of captions, int64 (M, T), padded behind; T is the longest caption's length.

    Args:
        context: the most tokens that the text tower takes, END included.
        cut: shorten what is longer, and keep END as its last token. Otherwise it is refused.
    Raises:
        UsageError for an empty caption, and one that is too long.
    """
    if any(not caption.strip() for caption in captions):
        raise UsageError('a caption is empty; write what the picture shows, like "a red circle"')
    rows = tokenizer(list(captions))["input_ids"]
    end = tokenizer.eos_token_id
    for caption, row in zip(captions, rows, strict=True):
        if len(row) > context:
            if not cut:
                raise UsageError(
                    f"the caption {short(repr(caption), 80)} has {len(row)} tokens and the model "
                    f"takes {context}, the end included; shorten it"
                )
            row[context - 1 :] = [end]
    longest = max(map(len, rows), default=0)
    pad = tokenizer.pad_token_id
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows], dtype=torch.int64)


def unknown_words(tokenizer: Any, caption: str) -> list[str]:
    """The words of a caption that a word tokenizer does not know, each once; none for CLIP's own
    tokenizer, which knows every text.
    """
    if tokenizer.unk_token != UNKNOWN:
        return []
    backend = tokenizer.backend_tokenizer
    words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(caption.lower())]
    known = tokenizer.get_vocab()
    return [word for word in dict.fromkeys(words) if word not in known]


def said_of_unknown(tokenizer: Any, words: Sequence[str]) -> str:
    """`'squre' (did you mean square?)` for each word, joined by commas."""
    known = [word for word in tokenizer.get_vocab() if not word.startswith("<|")]
    return ", ".join(f"'{word}'{closest(word, known)}".rstrip(".") for word in words)
