"""Recall at k in both directions: is what belongs together among the k best?

A picture may have several captions (Flickr30k and COCO have five). Asked for by a caption, its one
picture counts. Asked by a picture, *any* of its captions counts, so the best placed one does.

Letters: Q queries, G items of a gallery, N pictures, M captions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise


@exercise(minutes=20)
def ranks(scores: Tensor, right: Tensor) -> Tensor:
    """The place of each query's best placed right item: 1 is the first.

        1 + the number of wrong items whose score is at least that of the best right item

    Equal scores count against the query: a model that gives all items the same score has found
    nothing. So does a score that is NaN: a wrong item with it counts as placed ahead, and a query
    whose best right score is NaN is placed behind all its wrong items.

    Args:
        scores: (Q, G), higher is better.
        right: bool (Q, G), True where the item belongs to the query; one or more in each row.
    Returns:
        int64 (Q,). Other right items never count as ahead. The arguments stay as they are.
    Raises:
        ValueError when a query has no right item.
    """
    if not right.any(dim=1).all():
        raise ValueError("a query has no right item")
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    behind = scores < best  # False for NaN on either side
    return 1 + (~right & ~behind).sum(dim=1)


class Retrieval(NamedTuple):
    """Ranks in both directions."""

    text_to_image: Tensor
    """int64 (M,): the place of each caption's picture."""
    image_to_text: Tensor
    """int64 (N,): the place of the best of each picture's captions."""


@exercise(minutes=15)
def both_ways(scores: Tensor, owner: Tensor) -> Retrieval:
    """Ranks of pictures for every caption, and of captions for every picture, by `ranks`.

    Args:
        scores: (N, M), the similarity of picture n and caption m.
        owner: int64 (M,), the picture of each caption, 0 to N - 1, in any order. Each picture has
            one caption or more, not necessarily equally many.
    """
    right = F.one_hot(owner, len(scores)).T.bool()  # (N, M)
    return Retrieval(ranks(scores.T, right.T), ranks(scores, right))


def recall_at_k(places: Tensor, k: int) -> float:
    """Share of the queries, in %, whose place is k or better."""
    return 100 * float((places <= k).double().mean())
