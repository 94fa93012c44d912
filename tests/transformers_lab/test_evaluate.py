"""What is measured, on models whose answers are known."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from transformers_lab import Corpus, Transformer, count_words, evaluate, learn
from transformers_lab.bpe import BOS, EOS, PAD
from transformers_lab.model import Shape

PAIRS = (
    ("ab ba", "b a b"),
    ("b", "aa"),
    ("a b a b a", "b"),
    ("aab", "bba ab"),
    ("bb a", "a a a a"),
)


def build(seed: int = 0) -> tuple[Transformer, Corpus, Any]:
    torch.manual_seed(seed)
    bpe = learn(count_words(s for pair in PAIRS for s in pair), 12)
    model = Transformer(len(bpe), Shape(16, 2, 1, 16, 0.0, True)).eval()
    return model, Corpus(PAIRS, bpe), bpe


def test_bleu_is_closed_form_where_there_is_one() -> None:
    """All n-grams right and five words of six: exp(1 - 6/5) is left, the brevity penalty."""
    pytest.importorskip("sacrebleu")
    same = ["A dog runs over the grass.", "Two men sit."]
    assert evaluate.bleu(same, same) == pytest.approx(100)
    assert evaluate.bleu(["a b c d e"], ["a b c d e f"]) == pytest.approx(100 * math.exp(-0.2))
    assert evaluate.bleu(["A Dog Runs Over"], ["a dog runs over"]) < 1, "case counts"


@pytest.mark.parametrize("count", [(1, 2), (2, 1), (0, 0)])
def test_bleu_wants_one_reference_for_each_hypothesis(count: tuple[int, int]) -> None:
    """sacreBLEU leaves out what is more: 100 for one right hypothesis and two references."""
    hypotheses, sentences = (["a b c d e"] * n for n in count)
    with pytest.raises(ValueError, match=f"{count[0]} hypotheses for {count[1]}"):
        evaluate.bleu(hypotheses, sentences)


def test_forced_is_the_sum_over_single_sentences() -> None:
    model, corpus, _ = build()
    nats, tokens, right = 0.0, 0, 0
    for source, target in zip(corpus.source, corpus.target, strict=True):
        s, t = source[source != PAD][None], target[target != PAD][None]
        with torch.no_grad():
            logits = model(s, t[:, :-1])[0]
        nats += float(F.cross_entropy(logits, t[0, 1:], reduction="sum"))
        tokens += t.shape[1] - 1
        right += bool((logits.argmax(-1) == t[0, 1:]).all())
    found = evaluate.forced(model, corpus)
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert (found.tokens, found.right) == (tokens, right / len(corpus))
    assert found.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-5)


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary() -> None:
    model, corpus, bpe = build()
    torch.nn.init.zeros_(model.embedding.weight)
    assert evaluate.forced(model, corpus).perplexity == pytest.approx(len(bpe), rel=1e-5)


def test_exchanged_sources_change_the_nats_unless_they_cannot_be_seen() -> None:
    model, corpus, _ = build()
    told, other = (evaluate.forced(model, corpus, exchanged=x) for x in (False, True))
    assert told.tokens == other.tokens
    assert told.nats != pytest.approx(other.nats, rel=1e-4)
    for layer in model.decoder_layers:
        torch.nn.init.zeros_(layer.cross.out.weight)
    told, other = (evaluate.forced(model, corpus, exchanged=x) for x in (False, True))
    assert told.nats == pytest.approx(other.nats, rel=1e-6)


def test_a_decoder_that_reads_its_own_label_is_measured_as_it_was_trained(
    planted: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """broken_shift"""
    monkeypatch.setattr(evaluate, "shift", planted("batches.shift: not shifted").shift)
    model, corpus, _ = build()
    inputs = corpus.target[:, 1:]
    with torch.no_grad():
        logits = model(corpus.source, inputs)
    expected = F.cross_entropy(
        logits.flatten(0, 1), inputs.flatten(), ignore_index=PAD, reduction="sum"
    )
    found = evaluate.forced(model, corpus)
    assert found.nats == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_translations_come_in_the_order_of_the_sources(beams: int) -> None:
    """Each alone, or all together sorted by length: the same."""
    model, corpus, bpe = build(1)
    together = evaluate.translate(model, corpus, beams, 0.6)
    for pair, written in zip(PAIRS, together, strict=True):
        alone = evaluate.translate(model, Corpus([pair], bpe), beams, 0.6)[0]
        shorter = min(len(alone), len(written))  # the limit depends on the widest source
        assert alone[:shorter] == written[:shorter]
        assert EOS not in written


def test_what_a_model_writes_is_right_under_teacher_forcing() -> None:
    """Its own sentences as references: every one is right when told and when written."""
    model, corpus, _ = build(2)
    with torch.no_grad():
        model.embedding.weight[EOS] *= 3  # so that it ends
    written = evaluate.translate(model, corpus)
    targets = [[BOS, *ids, EOS] for ids in written]
    longest = max(map(len, targets))
    corpus.target = torch.tensor([[*ids, *[PAD] * (longest - len(ids))] for ids in targets])
    corpus.lengths[:, 1] = [len(ids) - 1 for ids in targets]
    del corpus.sorted
    assert longest < 30, "every sentence ended by itself"
    assert evaluate.forced(model, corpus).right == 1
    assert evaluate.references(corpus) == written
