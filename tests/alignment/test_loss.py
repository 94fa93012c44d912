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


@pytest.mark.exercise("loss.predictions")
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 5), (4, 6)])
def test_predictions_by_a_loop_over_rows_and_places(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    learned = torch.randint(4, shape, generator=generator)
    learned[torch.rand(shape, generator=generator) < 0.4] = IGNORE
    kept = states.clone(), learned.clone()
    found, target = loss.predictions(states, learned)
    expected = [
        (states[r, t], learned[r, t + 1].item())
        for r in range(shape[0])
        for t in range(shape[1] - 1)
        if learned[r, t + 1] != IGNORE
    ]
    assert found.shape == (len(expected), 3)
    assert found.dtype == torch.float64
    assert target.tolist() == [token for _, token in expected]
    assert target.dtype == torch.int64
    assert all(torch.equal(a, b) for a, (b, _) in zip(found, expected, strict=True))
    assert torch.equal(states, kept[0])
    assert torch.equal(learned, kept[1])


@pytest.mark.exercise("loss.predictions")
def test_nothing_learned_is_nothing_predicted() -> None:
    found, target = loss.predictions(torch.ones(2, 3, 4), torch.full((2, 3), IGNORE))
    assert (found.shape, target.shape) == ((0, 4), (0,))


@pytest.mark.exercise("loss.predictions")
def test_the_gradient_reaches_the_states_that_predict_and_no_others() -> None:
    states = torch.zeros(1, 4, 2, requires_grad=True)
    found, _ = loss.predictions(states, torch.tensor([[1, IGNORE, 3, 4]]))
    found.sum().backward()
    assert states.grad is not None
    assert states.grad[0, :, 0].tolist() == [0.0, 1.0, 1.0, 0.0]


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
