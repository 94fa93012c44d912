"""Which tokens of a mixture are learned, and groups within a budget."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alignment import Example, labels
from capstone import mixture

ONE = [([5, 6, 7], False), ([8, 9], True)]
TWO = [([1], False), ([2, 3], True), ([4, 5, 6], False), ([7], True)]


@pytest.mark.exercise("mixture.collate")
def test_every_answer_is_learned_and_nothing_else() -> None:
    rows = mixture.collate([ONE, TWO])
    assert rows.tokens.dtype == torch.int64
    assert rows.mask.dtype == torch.bool
    assert rows.tokens.tolist() == [[5, 6, 7, 8, 9, 0, 0], [1, 2, 3, 4, 5, 6, 7]]
    assert rows.mask.int().tolist() == [[0, 0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0, 1]]


@pytest.mark.exercise("mixture.collate")
def test_a_mask_goes_by_place_and_not_by_value() -> None:
    """Token 0 pads, and is a token of a prompt and of an answer as well."""
    rows = mixture.collate([[([0, 1], False), ([0, 0], True)], [([3], False), ([0], True)]])
    assert rows.mask.int().tolist() == [[0, 0, 1, 1], [0, 1, 0, 0]]
    assert rows.tokens.tolist() == [[0, 1, 0, 0], [3, 0, 0, 0]]
    alone = mixture.collate([[([], False), ([4], True)]])
    assert alone.tokens.tolist() == [[4]]
    assert alone.mask.tolist() == [[True]]


@pytest.mark.exercise("mixture.collate")
def test_one_turn_is_masked_as_in_week_8_and_the_argument_stays() -> None:
    parts = [([3, 1, 4], False), ([1, 5, 9], True)]
    before = [(list(tokens), learned) for tokens, learned in parts]
    rows = mixture.collate([parts])
    expected = labels(Example([3, 1, 4, 1, 5, 9], 3))
    assert torch.where(rows.mask, rows.tokens, -100).tolist() == [expected]
    assert parts == before


@pytest.mark.exercise("mixture.budgeted")
def test_groups_fill_the_budget_with_padding_counted() -> None:
    assert mixture.budgeted([3, 9, 3, 4, 1], 9) == [[4, 0, 2], [3], [1]]
    assert mixture.budgeted([2, 2, 2, 2, 2], 4) == [[0, 1], [2, 3], [4]]
    assert mixture.budgeted([5], 5) == [[0]]
    assert mixture.budgeted([1, 2, 4], 8) == [[0, 1], [2]]
    assert mixture.budgeted([], 7) == []


@pytest.mark.exercise("mixture.budgeted")
def test_random_lengths_are_each_in_one_group_and_no_group_could_take_the_next() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        lengths = rng.integers(1, 12, size=int(rng.integers(1, 40))).tolist()
        before, budget = list(lengths), int(rng.integers(12, 50))
        groups = mixture.budgeted(lengths, budget)
        flat = [index for group in groups for index in group]
        assert flat == sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        for group, following in zip(groups, [*groups[1:], None], strict=True):
            assert len(group) * max(lengths[i] for i in group) <= budget
            if following is not None:
                assert (len(group) + 1) * lengths[following[0]] > budget
        assert lengths == before


@pytest.mark.exercise("mixture.budgeted")
def test_a_chat_longer_than_the_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="12"):
        mixture.budgeted([3, 12], 11)
    assert mixture.budgeted([3, 11], 11) == [[0], [1]]
