"""Texts of unequal length are written together as week 7's sampler writes each alone."""

from __future__ import annotations

import pytest
import torch

from agents.ragged import write
from pretraining import GPT, Shape, generate

PROMPTS = [[5, 3, 8], [7], [2, 9, 4, 11, 6, 1, 3, 12], [5, 3, 8, 1]]


@pytest.fixture(scope="module")
def model() -> GPT:
    """A modern GPT of 20 tokens, whose likeliest token is well ahead of the next."""
    torch.manual_seed(0)
    model = GPT(Shape(20, 24, 16, 2, 2), "modern").train()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return model


def alone(model: GPT, prompt: list[int], count: int, end: int) -> list[int]:
    """Week 7's sampler, which reads one length at a time; without a cache."""
    row = torch.tensor([prompt])
    found = generate(model, row, count, temperature=0, end=end, use_cache=False)[0].tolist()
    return (
        found[: found.index(end) + 1] + [end] * (count - 1 - found.index(end))
        if (end in found)
        else found
    )


@pytest.mark.parametrize("count", [1, 2, 16])
def test_each_text_goes_on_as_it_would_alone(model: GPT, count: int) -> None:
    kept = [list(p) for p in PROMPTS]
    end = alone(model, PROMPTS[0], 16, 19)[5]  # an end that comes while others still write
    found = write(model, PROMPTS, count, end)
    assert found.tolist() == [alone(model, p, count, end) for p in PROMPTS]
    assert write(model, PROMPTS[2:3], count, end).tolist() == found[2:3].tolist()
    assert kept == PROMPTS
    assert model.training


def test_a_chooser_sees_the_logits_of_every_row(model: GPT) -> None:
    """Its choices, here the least likely tokens, are what the model reads on."""
    seen = []

    def least(logits: torch.Tensor) -> torch.Tensor:
        seen.append(logits.shape)
        return logits.argmin(dim=-1, keepdim=True)

    found = write(model, PROMPTS, 5, 19, least)
    assert set(seen) == {(4, 20)}
    for prompt, row in zip(PROMPTS, found.tolist(), strict=True):
        wanted = generate(model, torch.tensor([prompt]), 5, end=19, chooser=least)[0].tolist()
        assert row == wanted


@pytest.mark.parametrize("prompts", [[[1], []], [[1], [2] * 20]])
def test_what_does_not_fit_is_refused(model: GPT, prompts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"prompts of 1 to 19 tokens .* context of 24 with 5 new"):
        write(model, prompts, 5, 0)
