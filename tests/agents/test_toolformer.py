"""Toolformer's filter against loops over the paper's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agents import tokens
from agents.policy import make_model
from agents.toolformer import report
from agents.toolformer.calls import candidates, is_useful
from agents.toolformer.corpus import ARROW, CLOSE, NOTES, SENTENCES, base_texts, draw
from agents.toolformer.selection import augmented, keep_calls, score, select, weighted_loss


@pytest.fixture(scope="module")
def tokenizer():
    return tokens.build(tokens.vocabulary([*SENTENCES, *NOTES], [ARROW, CLOSE]))


def by_formula(losses: list[float], start: int, length: int) -> float:
    """Section 2: weights w_t = w~_t / sum of all w~_s, with w~_t = max(0, 1 - 0.2 t)."""
    raw = [max(0.0, 1 - 0.2 * t) for t in range(50)]
    return sum(
        raw[j - start] / sum(raw) * losses[j] for j in range(start, min(length, len(losses)))
    )


@pytest.mark.exercise("toolformer.selection.weighted_loss")
def test_the_weighted_loss_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(7, 11, generator=generator) * 3
    start = torch.tensor([0, 3, 5, 10, 8, 2, 11])
    length = torch.tensor([11, 11, 7, 11, 9, 2, 11])
    kept = losses.clone()
    found = weighted_loss(losses, start, length)
    wanted = [
        by_formula(row, s, n)
        for row, s, n in zip(losses.tolist(), start.tolist(), length.tolist(), strict=True)
    ]
    assert found.shape == (7,)
    assert found.tolist() == pytest.approx(wanted)
    assert wanted[5] == wanted[6] == 0
    assert torch.equal(losses, kept)
    ones = torch.ones(1, 9)
    for first, share in ((0, 1.0), (4, 1.0), (5, 14 / 15), (8, 1 / 3)):
        assert weighted_loss(
            ones, torch.tensor([first]), torch.tensor([9])
        ).item() == pytest.approx(share)


@pytest.mark.exercise("toolformer.selection.weighted_loss")
def test_what_does_not_count_may_be_anything() -> None:
    losses = torch.tensor(
        [[math.nan, math.inf, 3.0, 6.0, math.nan], [3.0, math.nan, math.nan, 1.0, 1.0]]
    )
    found = weighted_loss(losses, torch.tensor([2, 0]), torch.tensor([4, 1]))
    assert found.tolist() == pytest.approx([3 / 3 + 6 * 0.8 / 3, 1.0])
    far = torch.cat([torch.full((1, 5), 3.0), torch.full((1, 4), math.nan)], dim=1)
    assert weighted_loss(far, torch.tensor([0]), torch.tensor([5])).item() == pytest.approx(3.0)
    assert weighted_loss(
        losses.to("meta"), torch.tensor([2, 0]).to("meta"), torch.tensor([4, 1]).to("meta")
    ).shape == (2,)


@pytest.mark.exercise("toolformer.selection.weighted_loss")
def test_gradients_reach_the_losses_that_count() -> None:
    losses = torch.ones(1, 7, requires_grad=True)
    weighted_loss(losses, torch.tensor([1]), torch.tensor([7])).sum().backward()
    assert losses.grad is not None
    assert losses.grad[0].tolist() == pytest.approx(
        [0, 1 / 3, 0.8 / 3, 0.6 / 3, 0.4 / 3, 0.2 / 3, 0]
    )


@pytest.mark.exercise("toolformer.selection.keep_calls")
def test_calls_are_kept_as_a_loop_would_keep_them() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.rand(3, 200, generator=generator) * 2
    full, plain, empty = rows
    copies = rows.clone()
    for threshold in (0.0, 0.3, 1.0, -0.5):
        found = keep_calls(full, plain, empty, threshold)
        wanted = [
            min(p, e) - f >= threshold
            for f, p, e in zip(full.tolist(), plain.tolist(), empty.tolist(), strict=True)
        ]
        assert found.dtype == torch.bool
        assert found.tolist() == wanted
        assert 0 < sum(wanted) < 200
    assert torch.equal(rows, copies)


@pytest.mark.exercise("toolformer.selection.keep_calls")
def test_both_alternatives_count_and_the_threshold_is_enough() -> None:
    one = torch.tensor
    assert keep_calls(one([1.0]), one([3.0]), one([1.5]), 1.0).tolist() == [False]
    assert keep_calls(one([1.0]), one([1.5]), one([3.0]), 1.0).tolist() == [False]
    assert keep_calls(one([1.0]), one([3.0]), one([2.5]), 1.0).tolist() == [True]
    assert keep_calls(one([1.0]), one([2.0]), one([2.0]), 1.0).tolist() == [True]
    assert keep_calls(one([2.0]), one([1.0]), one([1.0]), 0.5).tolist() == [False]
    nan = one([math.nan])
    for row in (
        (nan, one([2.0]), one([2.0])),
        (one([1.0]), nan, one([2.0])),
        (one([1.0]), one([2.0]), nan),
    ):
        assert keep_calls(*row, 0.0).tolist() == [False]
    assert keep_calls(*(torch.empty(0),) * 3, 0.0).shape == (0,)


def test_scores_are_those_of_one_text_at_a_time(tokenizer) -> None:
    torch.manual_seed(0)
    model = make_model(len(tokenizer), 64, 16, 1, 2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    heads = ["A box holds 24 pens. In 13 boxes are ", "Of 24 pens ", "See "]
    tails = ["312 pens.", "2", "page 7. See page 9."]
    found = score(model, tokenizer, heads, tails)
    for head, tail, one in zip(heads, tails, found.tolist(), strict=True):
        first, second = tokens.encode(tokenizer, [head, tail])
        logps = model(torch.tensor([first + second])).log_softmax(dim=-1)[0]
        losses = [-logps[len(first) + j - 1, token].item() for j, token in enumerate(second)]
        assert one == pytest.approx(by_formula(losses, 0, len(losses)), rel=1e-4)


def test_documents_say_what_they_calculate() -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for _ in range(60):
            document = draw(rng, split)
            assert eval(document.expression) == document.result
            assert document.text[document.place :].startswith(f"{document.result} ")
    pairs = {s: {draw(rng, s).expression for _ in range(400)} for s in ("train", "test")}
    assert not pairs["train"] & pairs["test"]
    texts = base_texts(rng, 300, 0.3)
    noted = [text for text in texts if ARROW in text]
    assert 60 < len(noted) < 120
    for text in noted:
        inside = text.partition("[")[2].partition(CLOSE)[0]
        number = inside.partition(ARROW)[2]
        assert text.partition(CLOSE)[2].startswith(f"{number} ")
        assert not set("+*") & set(inside)


def test_candidates_stand_behind_their_numbers() -> None:
    rng = np.random.default_rng(1)
    documents = [draw(rng, "train") for _ in range(50)]
    found = candidates(documents, 12, rng)
    useful = 0
    for c in found:
        text = documents[c.document].text
        assert text[c.place].isdigit()
        assert not text[c.place - 1].isdigit()
        left, right = c.expression.replace("*", "+").replace("-", "+").split("+")
        before = text[: c.place]
        assert left in before
        assert right in before
        assert str(eval(c.expression)) == c.result
        assert c.with_result == f"[{c.expression} -> {c.result}] "
        assert c.without_result == f"[{c.expression} -> ] "
        useful += is_useful(c, documents[c.document])
    assert useful >= 50
    assert len({(c.document, c.place, c.expression) for c in found}) == len(found)
    few = candidates(documents, 2, rng)
    assert len(few) == 100


def test_a_model_that_copies_keeps_the_useful_calls(tokenizer, monkeypatch) -> None:
    """With a stand-in for the model's loss that knows only how to copy from an arrow."""
    from agents.toolformer import selection

    rng = np.random.default_rng(2)
    documents = [draw(rng, "train") for _ in range(40)]
    found = candidates(documents, 12, rng)

    def copying(model, tokenizer, heads, tails) -> torch.Tensor:
        losses = []
        for head, tail in zip(heads, tails, strict=True):
            noted = head.rpartition(ARROW)[2].removesuffix(CLOSE) if ARROW in head else ""
            losses.append(0.1 if noted and tail.startswith((f"{noted} ", f"{noted}.")) else 2.0)
        return torch.tensor(losses)

    monkeypatch.setattr(selection, "score", copying)
    kept = select(None, tokenizer, documents, found, 1.0).tolist()
    for c, keep in zip(found, kept, strict=True):
        text = documents[c.document].text[c.place :]
        assert keep == text.startswith((f"{c.result} ", f"{c.result}."))
    texts = augmented(documents, [c for c, keep in zip(found, kept, strict=True) if keep])
    for text, document in zip(texts, documents, strict=True):
        assert text.replace(text[text.find("[") : text.find(CLOSE) + 2], "") == document.text or (
            text.count("[") != 1
        )
        assert text.count("[") <= 3


def test_a_call_is_answered_and_written_on(monkeypatch, tokenizer) -> None:
    asked: list[list[str]] = []

    def fake(model, tokenizer, texts, count, make=None) -> list[str]:
        asked.append(list(texts))
        if len(asked) == 1:
            return ["[24*13 -> 99] 99 pens", "312 pens", "[1/0 -> 5", "[24*13"]
        return ["312 pens.", "7 pens."]

    monkeypatch.setattr(report, "continue_texts", fake)
    written = report.complete(None, tokenizer, ["a ", "b ", "c ", "d "], True)
    assert asked[1] == ["a [24*13 -> 312] ", "c [1/0 -> ] "]
    assert written == ["[24*13 -> 312] 312 pens.", "312 pens", "[1/0 -> ] 7 pens.", "[24*13"]
    assert [report.number_of(w) for w in written] == ["312", "312", "7", ""]


def test_a_forbidden_token_is_never_taken() -> None:
    logits = torch.tensor([[1.0, 5.0, 2.0], [9.0, 1.0, 3.0]])
    assert report.without(1, 2)(logits).tolist() == [[2], [0]]


def test_text_loss_is_the_mean_over_tokens(tokenizer) -> None:
    torch.manual_seed(0)
    model = make_model(len(tokenizer), 64, 16, 1, 2)
    texts = ["See page 7.", "There are 24 seats here and 13 there."]
    total, count = 0.0, 0
    for row in tokens.encode(tokenizer, texts):
        logps = model(torch.tensor([row])).log_softmax(dim=-1)[0]
        total -= sum(logps[t - 1, row[t]].item() for t in range(1, len(row)))
        count += len(row) - 1
    assert report.text_loss(model, tokenizer, texts) == pytest.approx(total / count, rel=1e-4)
