"""Packed examples against each example alone: same states, same loss, same gradients."""

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from alignment import packing
from alignment.chat import IGNORE, Example, labels
from alignment.loss import hidden_states, response_loss
from alignment.packing import Batch, collate


def some_examples(count: int = 7, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        prompt, answer = rng.randint(2, 6), rng.randint(1, 5)
        tokens = [rng.randrange(1, 50) for _ in range(prompt + answer)]
        found.append(Example([*tokens, 0], prompt))
    return found


def together(examples: list[Example], capacity: int = 32, **words: Any) -> Batch:
    return collate(examples, [labels(e) for e in examples], capacity, **words)


@pytest.mark.exercise("packing.pack")
def test_first_fit_the_longest_first() -> None:
    assert packing.pack([3, 7, 5, 2, 4], 10) == [[1, 0], [2, 4], [3]]
    assert packing.pack([6, 4, 4, 6], 10) == [[0, 1], [3, 2]]
    assert packing.pack([2, 9, 9, 1, 1], 10) == [[1, 3], [2, 4], [0]]
    assert packing.pack([], 10) == []
    assert packing.pack([10], 10) == [[0]]


@pytest.mark.exercise("packing.pack")
def test_every_example_once_and_no_row_too_full() -> None:
    rng = random.Random(0)
    for _ in range(50):
        lengths = [rng.randint(1, 20) for _ in range(rng.randint(1, 40))]
        rows = packing.pack(lengths, 20)
        assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
        assert max(sum(lengths[i] for i in row) for row in rows) <= 20


@pytest.mark.exercise("packing.pack")
def test_each_example_is_in_the_first_row_that_had_room_for_it() -> None:
    """The rows found are filled once more, in the order of the rule, and checked at every step."""
    rng = random.Random(1)
    for _ in range(50):
        capacity = rng.randint(5, 25)
        lengths = tuple(rng.randint(1, capacity) for _ in range(rng.randint(1, 40)))
        rows = packing.pack(lengths, capacity)
        place = {index: r for r, row in enumerate(rows) for index in row}
        assert all(row for row in rows)
        free: list[int] = []
        order: list[list[int]] = [[] for _ in rows]
        for length, index in sorted((-length, index) for index, length in enumerate(lengths)):
            with_room = [r for r, left in enumerate(free) if left >= -length]
            if with_room:
                assert place[index] == with_room[0], "not the first that has room"
            else:
                assert place[index] == len(free), "no row has room: a new one, at the end"
                free.append(capacity)
            free[place[index]] += length
            order[place[index]].append(index)
        assert rows == order, "in the order in which they were put there"


@pytest.mark.exercise("packing.pack")
def test_packing_leaves_the_lengths_as_they_are() -> None:
    lengths = [3, 7, 5, 2, 4]
    packing.pack(lengths, 10)
    assert lengths == [3, 7, 5, 2, 4]


@pytest.mark.exercise("packing.pack")
@pytest.mark.parametrize("lengths", [[3, 11], [11], [10, 10, 11, 1]])
def test_what_is_longer_than_a_row_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError):  # its words are the writer's own
        packing.pack(lengths, 10)
    assert len(packing.pack([min(length, 10) for length in lengths], 10)) >= 1


@pytest.mark.exercise("packing.block_causal_mask")
def test_mask_by_hand() -> None:
    mask = packing.block_causal_mask(torch.tensor([[1, 1, 2, 2, 0]]))
    expected = torch.tensor(
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    ).bool()
    assert mask.dtype == torch.bool
    assert mask.shape == (1, 1, 5, 5)
    assert torch.equal(mask[0, 0], expected)


@pytest.mark.exercise("packing.block_causal_mask")
@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (3, 1), (1, 7), (4, 6)])
def test_mask_by_a_loop_over_queries_and_keys(rows: int, tokens: int) -> None:
    """Any numbers, large and negative ones too, and segments that come back later in a row."""
    generator = torch.Generator().manual_seed(tokens)
    numbers = torch.tensor([0, 1, 257, -5, 2**40])
    segments = numbers[torch.randint(5, (rows, tokens), generator=generator)]
    kept = segments.clone()
    mask = packing.block_causal_mask(segments)
    assert mask.shape == (rows, 1, tokens, tokens)
    assert mask.dtype == torch.bool
    for r in range(rows):
        for i in range(tokens):
            for j in range(tokens):
                seen = j <= i and kept[r, i].item() == kept[r, j].item()
                assert mask[r, 0, i, j].item() == seen
    assert torch.equal(segments, kept)


@pytest.mark.exercise("packing.block_causal_mask")
def test_mask_is_on_the_device_of_its_segments() -> None:
    mask = packing.block_causal_mask(torch.ones(2, 3, dtype=torch.int64, device="meta"))
    assert (mask.device.type, mask.shape, mask.dtype) == ("meta", (2, 1, 3, 3), torch.bool)


@pytest.mark.exercise("packing.block_causal_mask")
def test_mask_is_the_one_that_transformers_makes_of_packed_positions(
    make_gpt2: Callable[..., Any],
) -> None:
    """Its own mask, which it makes from positions that start again, for two different rows."""
    from transformers.masking_utils import create_causal_mask

    segments = torch.tensor([[1, 1, 1, 2, 2, 3], [1, 2, 2, 2, 2, 3]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 0]])
    theirs = create_causal_mask(
        config=make_gpt2().config,
        inputs_embeds=torch.zeros(2, 6, 16),
        attention_mask=None,
        past_key_values=None,
        position_ids=positions,
    )
    assert torch.equal(packing.block_causal_mask(segments), theirs)


def test_rows_hold_the_examples_and_positions_start_again() -> None:
    examples = some_examples()
    batch = together(examples)
    seen = []
    for r in range(len(batch.tokens)):
        for number in range(1, int(batch.segments[r].max()) + 1):
            here = batch.segments[r] == number
            assert batch.positions[r, here].tolist() == list(range(int(here.sum())))
            seen.append((batch.tokens[r, here].tolist(), batch.labels[r, here].tolist()))
        padding = batch.segments[r] == 0
        assert (batch.labels[r, padding] == IGNORE).all()
    assert sorted(seen) == sorted((e.tokens, labels(e)) for e in examples)
    assert len(batch.tokens) < len(examples), "several share a row"
    assert len(together(examples, packing=False).tokens) == len(examples)


def gradients(model: Any, batch: Batch) -> list[Tensor]:
    loss = response_loss(model, batch)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def test_packed_or_padded_loss_and_gradients_are_the_same(make_gpt2: Callable[..., Any]) -> None:
    model, examples = make_gpt2(), some_examples()
    packed = gradients(model, together(examples))
    padded = gradients(model, together(examples, packing=False))
    for a, b in zip(packed, padded, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_states_are_those_of_each_example_alone(make_gpt2: Callable[..., Any]) -> None:
    """The oracle is the library's plain forward pass of one example, without mask or positions."""
    model, examples = make_gpt2(), some_examples()
    batch = together(examples)
    with torch.no_grad():
        states = hidden_states(model, batch)
        for r, row in enumerate(packing.pack([len(e.tokens) for e in examples], 32)):
            for number, index in enumerate(row, start=1):
                alone = model.transformer(torch.tensor([examples[index].tokens]))
                torch.testing.assert_close(
                    states[r, batch.segments[r] == number],
                    alone.last_hidden_state[0],
                    atol=1e-4,
                    rtol=1e-4,
                )


@pytest.mark.parametrize("isolate", [True, False])
def test_no_token_attends_across_examples(
    make_gpt2: Callable[..., Any],
    isolate: bool,
    planted: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Change the first example of a row: the second must not move, except by broken_packing."""
    if not isolate:
        wrong = planted("packing.block_causal_mask: plain causal, examples see each other")
        monkeypatch.setattr(packing, "block_causal_mask", wrong.block_causal_mask)
    model, examples = make_gpt2(), some_examples()
    row = packing.pack([len(e.tokens) for e in examples], 32)[0]
    first = examples[row[0]]
    other = Example([(t + 1) % 49 + 1 for t in first.tokens], first.prompt)
    changed = [other if i == row[0] else e for i, e in enumerate(examples)]
    with torch.no_grad():
        before, after = (hidden_states(model, together(e))[0] for e in (examples, changed))
    second = together(examples).segments[0] == 2
    assert torch.equal(before[second], after[second]) == isolate
    assert not torch.equal(before, after)
