"""A tree search over digits with a budget: the verifier says which unfinished answers to keep.

At each depth every kept answer is continued by its `expand` likeliest tokens, the verifier scores
all of them, and the best `width` are kept: beam search with a verifier's score in place of the
probability (Yao et al. 2023, Tree of Thoughts, section 3, breadth first). Both numbers are the
budget.

Letters: P questions, b beams, k continuations of each, L tokens of a prompt, T of an answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.learning.modes import evaluating
from pretraining import GPT
from rlhf.inference.verifier import Verifier


class Found(NamedTuple):
    """Answers of a search, and what they cost in all."""

    answer: Tensor  # int64 (P, T)
    drawn: int  # tokens that the model wrote, each counted once as with a cache
    scored: int  # tokens that the verifier read


def tree_search(
    model: GPT,
    verifier: Verifier,
    prompt: Tensor,
    width: int,
    expand: int,
    longest: int,
    end: int,
) -> Found:
    """Search for each prompt, int64 (P, L). An answer that has `end` is kept as it is.

    Raises ValueError when `width` or `expand` is below 1.
    """
    if width < 1 or expand < 1:
        raise ValueError(f"width and expand must be 1 or more, got {width} and {expand}")
    count, drawn, scored = len(prompt), 0, 0
    beams = prompt.new_empty(count, 1, 0)  # (P, b, t)
    value = torch.zeros(count, 1, device=prompt.device)  # log-probability that nothing is wrong
    over = torch.zeros(count, 1, dtype=torch.bool, device=prompt.device)
    with evaluating(model, verifier):
        for _ in range(longest):
            b = beams.shape[1]
            rows = torch.cat([prompt[:, None].expand(-1, b, -1), beams], dim=2).flatten(0, 1)
            likely = model.logits(model.hidden(rows)[:, -1]).topk(expand, dim=1).indices
            judged = F.logsigmoid(verifier.following(rows)).gather(1, likely)
            token, judged = likely.view(count, b, -1), judged.view(count, b, -1)  # (P, b, k)
            # A finished answer is continued once, by END again, at no cost.
            spare = over[..., None] & (torch.arange(expand, device=prompt.device) > 0)
            token = torch.where(over[..., None], end, token)
            new = value[..., None] + torch.where(over[..., None], 0.0, judged)
            new = new.masked_fill(spare, -torch.inf)
            running = int((~over).sum())
            drawn, scored = drawn + running, scored + running
            kept = new.flatten(1).topk(min(width, b * expand), dim=1)
            longer = beams[:, :, None].expand(-1, -1, expand, -1)
            beams = _take(torch.cat([longer, token[..., None]], dim=3).flatten(1, 2), kept.indices)
            value, over = kept.values, beams[..., -1] == end
            if bool(over.all()):
                break
    best = value.masked_fill(~over, -torch.inf).argmax(dim=1, keepdim=True)
    answer = _take(beams, best).squeeze(1)
    room = answer.new_full((count, longest - answer.shape[1]), end)
    return Found(torch.cat([answer, room], dim=1), drawn, scored)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (P, b, t) by `index` (P, m): (P, m, t)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
