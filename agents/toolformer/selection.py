"""Which calls are kept: those whose result makes the text behind them likelier.

Schick et al. 2023, section 2. For a call c with result r at position i, with z put before x_i,

    L_i(z) = - sum_{j >= i} w_{j-i} log p(x_j | z, x_{1:j-1})            `weighted_loss`
    L+ = L_i(e(c, r))        L- = min(L_i(ε), L_i(e(c, ε)))

and the call is kept when L- - L+ >= τ: it must help more than no call, and more than a call without
its result (`keep_calls`). The weights fall from 1/3 by 1/15 for each token: a call should stand
near to where it is needed.

The paper puts z at the very beginning, because a call in the middle surprises a model that was not
trained on any. Here the base model has read notes in brackets (corpus.py), so z stands at i.

Letters: N candidates, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agents import tokens
from agents.toolformer.calls import Candidate
from agents.toolformer.corpus import Document
from labkit import exercise
from labkit.learning.modes import evaluating
from pretraining import GPT

ROWS = 256
"""Texts scored at once."""


@exercise(minutes=20)
def weighted_loss(losses: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """L_i: the weighted loss of the text from position `start` on, (N,).

    The token at start + t, for t = 0, 1, ..., has the weight max(0, 1 - 0.2 t) / 3, where 3 is the
    sum of these numerators over all t. Tokens before `start` and those from `length` on (padding)
    count nothing; the other weights stay as they are when the text ends early.

    Args:
        losses: (N, T), -log p of the token at each position, given all before it. They may be
            anything, also NaN, where they do not count.
        start, length: int64 (N,).
    """
    place = torch.arange(losses.shape[1], device=losses.device)
    distance = place - start[:, None]
    weight = (1 - 0.2 * distance).clamp(min=0) / 3
    counts = (distance >= 0) & (place < length[:, None])
    return torch.where(counts, weight * losses, 0.0).sum(dim=1)


@exercise(minutes=10)
def keep_calls(
    with_result: Tensor, without_call: Tensor, without_result: Tensor, threshold: float
) -> Tensor:
    """Which calls are kept: bool (N,), from the losses L_i of the three versions, (N,) each.

    A call is kept when its result lowers the loss by `threshold` or more, compared with the better
    (the lower) of the two others: the text without a call, and with a call without its result. A
    loss that is NaN keeps nothing.
    """
    return torch.minimum(without_call, without_result) - with_result >= threshold


def score(model: GPT, tokenizer: Any, heads: Sequence[str], tails: Sequence[str]) -> Tensor:
    """L_i of each tail behind its head: float32 (N,), on the CPU."""
    found = []
    device = model.embedding.weight.device
    for i in range(0, len(heads), ROWS):
        first = tokens.encode(tokenizer, heads[i : i + ROWS])
        second = tokens.encode(tokenizer, tails[i : i + ROWS])
        start = torch.tensor([len(head) for head in first])
        length = torch.tensor([len(h) + len(t) for h, t in zip(first, second, strict=True)])
        rows = torch.full((len(first), int(length.max())), tokenizer.pad_token_id)
        for k, (head, tail) in enumerate(zip(first, second, strict=True)):
            rows[k, : len(head) + len(tail)] = torch.tensor(head + tail)
        rows = rows.to(device)
        with evaluating(model):
            logits = model(rows[:, :-1]).float()
        losses = F.cross_entropy(logits.mT, rows[:, 1:], reduction="none").cpu()  # of tokens 1 ...
        found.append(weighted_loss(losses, start - 1, length - 1))
    return torch.cat(found)


def select(
    model: GPT, tokenizer: Any, documents: list[Document], found: list[Candidate], threshold: float
) -> Tensor:
    """Which candidates the model keeps: bool (N,)."""
    heads = [documents[c.document].text[: c.place] for c in found]
    tails = [documents[c.document].text[c.place :] for c in found]
    plain = score(model, tokenizer, heads, tails)
    full, empty = (
        score(model, tokenizer, [h + call for h, call in zip(heads, calls, strict=True)], tails)
        for calls in ([c.with_result for c in found], [c.without_result for c in found])
    )
    return keep_calls(full, plain, empty, threshold)


def augmented(documents: list[Document], kept: list[Candidate]) -> list[str]:
    """The documents with their kept calls put in: the text for fine-tuning (C* of the paper).

    Of several kept calls at one place the first is taken.
    """
    calls: dict[int, dict[int, Candidate]] = {}
    for candidate in kept:
        calls.setdefault(candidate.document, {}).setdefault(candidate.place, candidate)
    texts = []
    for i, document in enumerate(documents):
        text = document.text
        for place, call in sorted(calls.get(i, {}).items(), reverse=True):
            text = f"{text[:place]}{call.with_result}{text[place:]}"
        texts.append(text)
    return texts
