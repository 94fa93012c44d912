"""The loss against the library's own, and log-probabilities against a loop over tokens."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from alignment import loss
from alignment.chat import IGNORE, Example, labels
from alignment.packing import collate


def test_loss_and_gradients_are_those_of_transformers(make_gpt2: Callable[..., Any]) -> None:
    model = make_gpt2()
    examples = [Example([3, 4, 5, 6, 7, 0], 3), Example([8, 9, 1, 2, 3, 0], 2)]
    batch = collate(examples, [labels(e) for e in examples], 32, packing=False)
    theirs = model(input_ids=batch.tokens, labels=batch.labels).loss
    ours = loss.response_loss(model, batch)
    torch.testing.assert_close(ours, theirs)
    parameters = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.exercise("loss.predictions")
def test_the_state_before_a_token_predicts_it() -> None:
    states = torch.arange(10.0).view(2, 5, 1)
    learned = torch.tensor([[IGNORE, IGNORE, 7, 8, IGNORE], [IGNORE, 5, IGNORE, IGNORE, 6]])
    found, target = loss.predictions(states, learned)
    assert found.tolist() == [[1.0], [2.0], [5.0], [8.0]]
    assert target.tolist() == [7, 8, 5, 6]


@pytest.mark.exercise("loss.predictions")
def test_a_label_at_the_very_first_place_is_predicted_by_nothing() -> None:
    states = torch.zeros(1, 3, 2)
    found, target = loss.predictions(states, torch.tensor([[4, IGNORE, 5]]))
    assert found.shape == (1, 2)
    assert target.tolist() == [5]


@pytest.mark.exercise("loss.predictions")
def test_token_zero_is_learned_like_any_other() -> None:
    """The end of text is token 0 in many tokenizers."""
    _, target = loss.predictions(torch.zeros(1, 3, 2), torch.tensor([[IGNORE, 9, 0]]))
    assert target.tolist() == [9, 0]


def test_sequence_logps_are_sums_over_answer_tokens(make_gpt2: Callable[..., Any]) -> None:
    model = make_gpt2()
    examples = [Example([3, 4, 5, 6, 7, 0], 3), Example([8, 9, 1, 0], 2)]
    batch = collate(examples, [labels(e) for e in examples], 32, packing=False)
    with torch.no_grad():
        found = loss.sequence_logps(model, batch)
        for value, example in zip(found.tolist(), examples, strict=True):
            logps = model(torch.tensor([example.tokens])).logits[0].log_softmax(-1)
            total = sum(
                logps[t - 1, example.tokens[t]].item()
                for t in range(example.prompt, len(example.tokens))
            )
            assert value == pytest.approx(total, abs=1e-4)
