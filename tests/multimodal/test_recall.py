"""Ranks and recall by sorting in plain Python, with ties and several captions a picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from multimodal import recall


def by_sorting(scores: Tensor, right: Tensor) -> list[int]:
    """Sort each row with wrong items first among equals; the place of the first right one."""
    places = []
    for row, good in zip(scores.tolist(), right.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda i, row=row, good=good: (-row[i], good[i]))  # type: ignore[misc]
        wrong_before = 0
        for i in order:
            if good[i]:
                break
            wrong_before += 1
        places.append(wrong_before + 1)
    return places


@pytest.mark.exercise("recall.ranks")
@pytest.mark.parametrize(("queries", "items"), [(7, 5), (3, 11), (1, 4), (4, 1)])
def test_ranks_by_sorting(queries: int, items: int) -> None:
    g = torch.Generator().manual_seed(queries)
    scores = torch.randint(-4, 4, (queries, items), generator=g).double()  # many are equal
    right = torch.rand(queries, items, generator=g) < 0.3
    right[torch.arange(queries), torch.randint(items, (queries,), generator=g)] = True
    before = scores.clone(), right.clone()
    found = recall.ranks(scores, right)
    assert found.dtype == torch.int64
    assert found.tolist() == by_sorting(scores, right)
    assert torch.equal(scores, before[0])
    assert torch.equal(right, before[1])


@pytest.mark.exercise("recall.ranks")
def test_equal_scores_count_against_the_query() -> None:
    right = torch.eye(4, dtype=torch.bool)
    assert recall.ranks(torch.zeros(4, 4), right).tolist() == [4, 4, 4, 4]
    assert recall.ranks(torch.eye(4), right).tolist() == [1, 1, 1, 1]
    assert recall.ranks(-torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)).tolist() == [1, 1]


@pytest.mark.exercise("recall.ranks")
def test_a_score_that_is_no_number_finds_nothing() -> None:
    nan = float("nan")
    scores = torch.tensor([[nan, 0.5, 0.2], [0.1, nan, 0.0], [nan, nan, nan]])
    right = torch.tensor([[True, False, False], [True, False, False], [False, True, False]])
    assert recall.ranks(scores, right).tolist() == [3, 2, 3]
    low = torch.tensor([[-torch.inf, -torch.inf, 1.0]])
    assert recall.ranks(low, torch.tensor([[True, False, False]])).tolist() == [3]


@pytest.mark.exercise("recall.ranks")
def test_a_query_without_a_right_item_is_refused() -> None:
    with pytest.raises(ValueError, match="no right item"):
        recall.ranks(torch.zeros(2, 2), torch.tensor([[True, False], [False, False]]))


@pytest.mark.exercise("recall.both_ways")
def test_both_ways_with_several_captions() -> None:
    """Three pictures with 1, 3 and 2 captions, mixed; by hand."""
    owner = torch.tensor([1, 0, 1, 2, 1, 2])
    scores = torch.tensor(
        [
            [0.9, 0.8, 0.1, 0.2, 0.0, 0.3],  # of picture 0: another's caption is first
            [0.7, 0.1, 0.2, 0.9, 0.3, 0.0],  # of picture 1: its caption 0 is second
            [0.1, 0.2, 0.6, 0.4, 0.5, 0.7],  # of picture 2: its caption 5 is first
        ]
    )
    found = recall.both_ways(scores, owner)
    assert found.image_to_text.tolist() == [2, 2, 1]
    assert found.text_to_image.tolist() == [2, 1, 2, 2, 2, 1]
    assert found.image_to_text.dtype == found.text_to_image.dtype == torch.int64


@pytest.mark.exercise("recall.both_ways")
@pytest.mark.parametrize(("pictures", "captions"), [(4, 9), (5, 5), (1, 3)])
def test_both_ways_by_sorting(pictures: int, captions: int) -> None:
    g = torch.Generator().manual_seed(pictures)
    scores = torch.randn(pictures, captions, generator=g)
    owner = torch.cat(
        [torch.arange(pictures), torch.randint(pictures, (captions - pictures,), generator=g)]
    )
    owner = owner[torch.randperm(captions, generator=g)]
    before = scores.clone(), owner.clone()
    found = recall.both_ways(scores, owner)
    right = torch.tensor([[int(o) == p for o in owner] for p in range(pictures)])
    assert found.image_to_text.tolist() == by_sorting(scores, right)
    assert found.text_to_image.tolist() == by_sorting(scores.T, right.T)
    assert torch.equal(scores, before[0])
    assert torch.equal(owner, before[1])


def test_recall_at_k_is_a_share() -> None:
    places = torch.tensor([1, 2, 5, 6])
    assert recall.recall_at_k(places, 1) == 25
    assert recall.recall_at_k(places, 5) == 75
    assert recall.recall_at_k(places, 6) == 100
