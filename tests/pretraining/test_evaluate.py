"""Loss of a whole text beside one token at a time, and the units beside hand-made numbers."""

import math
from typing import Any

import pytest
import torch

from pretraining import (
    GPT,
    Shape,
    bits_per_byte,
    flops_per_token,
    negative_log_likelihood,
    word_perplexity,
)
from pretraining.evaluate import future_gap, target_offset
from pretraining.speed import matmul_flops, steps_for


def random_model(make: Any = GPT) -> GPT:
    torch.manual_seed(0)
    model: GPT = make(Shape(17, 8, 16, 2, 2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


@pytest.mark.parametrize("length", [3, 8, 16, 21])
def test_each_token_counts_once_given_its_window_so_far(length: int) -> None:
    model = random_model()
    tokens = torch.randint(17, (length,), generator=torch.Generator().manual_seed(length))
    row = [16, *tokens.tolist()]
    total = 0.0
    with torch.no_grad():
        for t in range(length):
            window = row[t - t % 8 : t + 1]
            total -= float(model(torch.tensor([window]))[0, -1].log_softmax(-1)[row[t + 1]])
    assert negative_log_likelihood(model, tokens, 16) == pytest.approx(total, rel=1e-5)
    assert model.training


@pytest.mark.parametrize(("logits", "most"), [(2**28, 6), (2 * 8 * 17, 2), (1, 1)])
def test_no_more_logits_are_made_at_once_than_fit(
    monkeypatch: pytest.MonkeyPatch, logits: int, most: int
) -> None:
    model, tokens = random_model(), torch.arange(50) % 17
    expected = negative_log_likelihood(model, tokens, 0)
    monkeypatch.setattr("pretraining.evaluate.LOGITS", logits)
    rows: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    assert negative_log_likelihood(model, tokens, 0) == pytest.approx(expected, rel=1e-6)
    assert max(rows) == most


def test_a_model_that_knows_nothing_needs_ln_v() -> None:
    model = random_model()
    torch.nn.init.zeros_(model.head.weight)
    tokens = torch.randint(17, (50,))
    assert negative_log_likelihood(model, tokens, 0) == pytest.approx(50 * math.log(17), rel=1e-6)


def test_the_future_is_owed_nothing_by_a_right_mask_and_much_by_a_wrong_one(
    gpt_with_broken_mask: Any,
) -> None:
    tokens = torch.randint(17, (300,), generator=torch.Generator().manual_seed(0))
    assert abs(future_gap(random_model(), tokens)) < 1e-5
    assert abs(future_gap(random_model(gpt_with_broken_mask), tokens)) > 1e-3


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_the_offset_that_a_model_predicts_is_found(offset: int) -> None:
    """A text that counts round, and a model whose head answers `offset` more than it reads."""
    model = random_model()
    tokens = torch.arange(400) % 17
    answers = torch.nn.functional.one_hot((torch.arange(17) + offset) % 17, 17).float()
    model.forward = lambda x: 5 * answers[x]  # type: ignore[method-assign]
    assert target_offset(model, tokens) == offset


@pytest.mark.exercise("evaluate.bits_per_byte")
def test_bits_per_byte_count_bytes_not_characters() -> None:
    assert bits_per_byte(8 * math.log(2), "abcd") == pytest.approx(2)
    assert bits_per_byte(8 * math.log(2), "äöüß") == pytest.approx(1)  # two bytes each
    assert bits_per_byte(100 * math.log(256), "x" * 100) == pytest.approx(8)  # any byte


@pytest.mark.exercise("evaluate.bits_per_byte")
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("a", 1),
        ("é", 2),
        ("日", 3),
        ("🙂", 4),
        ("ab\n\n", 4),
        (" a b ", 5),
        ("\r\n", 2),
        ("日a é", 7),
    ],
)
def test_bytes_are_those_of_utf_8_white_space_included(text: str, count: int) -> None:
    assert bits_per_byte(3 * count * math.log(2), text) == pytest.approx(3)
    assert bits_per_byte(0.0, text) == 0


@pytest.mark.exercise("evaluate.word_perplexity")
def test_word_perplexity_counts_an_end_for_every_line() -> None:
    text = " = Title = \n \n the cat sat \n"  # six words and three ends of lines
    assert word_perplexity(9 * math.log(50), text) == pytest.approx(50)
    assert word_perplexity(2 * math.log(10), "one  two") == pytest.approx(10)


@pytest.mark.exercise("evaluate.word_perplexity")
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("one", 1), ("one\n", 2), ("\n", 1), ("\n\n\n", 3), ("one two\n\nthree", 5),
        ("\tone\n two \n", 4), ("né,日 🙂\n", 3), ("one-two one one", 3),
    ],
)  # fmt: skip
def test_words_and_ends_of_lines_that_a_text_has(text: str, count: int) -> None:
    assert word_perplexity(count * math.log(7), text) == pytest.approx(7)
    assert word_perplexity(0.0, text) == 1


@pytest.mark.exercise("evaluate.word_perplexity")
def test_word_perplexity_is_per_word_whatever_the_tokens() -> None:
    """A uniform choice among 1,000 words, spelled in three tokens each of ln(1000)/3 nats."""
    text = " ".join(["w"] * 30)
    assert word_perplexity(90 * math.log(1000) / 3, text) == pytest.approx(1000)


def test_flops_beside_those_that_pytorch_counts() -> None:
    """Matrix products of forward and backward; attention on 20 of 20 positions, as the formula."""
    from torch.utils.flop_counter import FlopCounterMode

    shape = Shape(33, 20, 24, 2, 2)
    model = GPT(shape)
    tokens = torch.randint(33, (3, 20))
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    assert counter.get_total_flops() == pytest.approx(3 * 20 * flops_per_token(shape), rel=0.05)


def test_steps_that_a_compute_pays_for() -> None:
    shape = Shape(33, 20, 24, 2, 2)
    step = 60 * flops_per_token(shape)
    assert steps_for(7 * step / 1e12, shape, 60) == 7
    assert steps_for(1e-12, shape, 60) == 1
    assert matmul_flops(torch.device("cpu"), torch.float32, 64) > 1e6
