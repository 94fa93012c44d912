"""Text that comes in pieces is the text that comes at once."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pretraining import build_tokenizer
from systems.text import TextStream

TEXT = "Größe, naïve — 北京 and ﬁve 🙂🙃 end. Then more: a STOPPED thing, STOP here."


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer("bpe", "pydoc", "some words and then more of them " * 3, 280)


def test_no_half_characters_and_nothing_is_lost(tokenizer: Any) -> None:
    tokens = tokenizer.encode(TEXT)
    assert len(tokens) > len(TEXT) / 2
    for size in (1, 2, 5):
        stream, pieces = TextStream(tokenizer), []
        for i in range(0, len(tokens), size):
            pieces.append(stream.push(tokens[i : i + size], last=i + size >= len(tokens)))
            assert "\ufffd" not in pieces[-1]
        assert "".join(pieces) == TEXT
        assert sum(map(bool, pieces)) > len(pieces) / 3, "text is to come as early as it can"


def test_what_cannot_become_a_character_comes_at_the_end(tokenizer: Any) -> None:
    stream = TextStream(tokenizer)
    half = tokenizer.encode("北")[:1]
    assert stream.push(half) == ""
    assert stream.push([], last=True) == "\ufffd"


@pytest.mark.parametrize(
    "stops", [["STOP here"], ["nowhere", "STOP"], ["🙃"], ["a STOPPED", "more"]]
)
def test_a_stop_string_ends_the_text_before_it(tokenizer: Any, stops: list[str]) -> None:
    expected = TEXT[: min(TEXT.find(s) for s in stops if s in TEXT)]
    tokens, draw = tokenizer.encode(TEXT), random.Random(1)
    for _ in range(20):
        stream, text, i = TextStream(tokenizer, stops), "", 0
        while i < len(tokens) and not stream.stopped:
            size = draw.randint(1, 6)
            text += stream.push(tokens[i : i + size], last=i + size >= len(tokens))
            assert expected.startswith(text), "a part of the stop string was shown"
            i += size
        assert stream.stopped
        assert text == expected
        assert stream.push(tokens[:3]) == ""


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_clear(tokenizer: Any) -> None:
    stream = TextStream(tokenizer, ["STOP"])
    assert stream.push(tokenizer.encode("x STO")) == "x "
    assert stream.push(tokenizer.encode("N")) == "STON"
    assert stream.push(tokenizer.encode("ST")) == ""
    assert stream.push([], last=True) == "ST"
    assert not stream.stopped
