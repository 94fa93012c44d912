"""The vocabulary of the small agent: markers, words, syllables of names, and single characters.

Names are fictional and made of syllables, and numbers are written digit by digit. So a name or a
number that the model has never seen consists of tokens that it knows well, and looks the same
wherever it is copied to.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from typing import Any

from agents.atlas import SYLLABLES

END, PAD, UNKNOWN = "<|endoftext|>", "<|pad|>", "\N{REPLACEMENT CHARACTER}"
QUESTION, THOUGHT, ACTION, OBSERVATION = (
    "Question: ", "\nThought: ", "\nAction: ", "\nObservation: ",
)  # fmt: skip
MARKERS = (QUESTION, THOUGHT, ACTION, OBSERVATION)


def vocabulary(texts: Iterable[str], calls: Sequence[str]) -> list[str]:
    """All tokens, special ones first: those of `calls` (`search[`), and the words of `texts`.

    A word is a run of letters with the space before it, if there is one.
    """
    words = {word for text in texts for word in re.findall(r" ?[A-Za-z]{2,}", text)}
    names = [syllable for low in SYLLABLES for syllable in (low.capitalize(), low)]
    characters = sorted({*string.printable[:95], "\n"})
    pieces = [END, PAD, UNKNOWN, *MARKERS, *calls, *sorted(words), *names, *characters]
    return list(dict.fromkeys(pieces))


def build(pieces: Sequence[str]) -> Any:
    """A tokenizer of transformers with these tokens, the longest that fits first.

    It is saved beside the model, and opens with AutoTokenizer without code of ours.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = sorted((p for p in pieces if p not in (END, PAD, UNKNOWN)), key=len, reverse=True)
    pattern = "|".join([*map(re.escape, known), r"[\s\S]"])
    inner = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=END, eos_token=END, pad_token=PAD, unk_token=UNKNOWN,
        padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of each text. Letters that spell a special token are encoded as letters: a question
    cannot contain the end of text."""
    backend = tokenizer.backend_tokenizer
    before, backend.encode_special_tokens = backend.encode_special_tokens, True
    found = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    backend.encode_special_tokens = before
    return [each.ids for each in found]


def pieces_of(tokenizer: Any) -> list[str]:
    """The text of each token by its number; empty for the special ones."""
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return ["" if name in (END, PAD, UNKNOWN) else name for name in names]


def decode(pieces: Sequence[str], tokens: Iterable[int], end: int) -> str:
    """The text of the tokens before the first `end`."""
    written = []
    for token in tokens:
        if token == end:
            break
        written.append(pieces[token])
    return "".join(written)
