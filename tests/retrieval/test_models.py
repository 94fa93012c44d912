"""Both models: pooling, the encoder as tf-idf before training, spans, and texts as tensors."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labkit.data import Question
from retrieval.encoder import Encoder, first_places, mean_pool
from retrieval.reader import CrossEncoder, answer_likelihood, best_span, reading_loss
from retrieval.tensors import (
    Vocabulary,
    bucket_idf,
    sheets,
    span_of,
    spans_with,
    stems,
)

TEXTS = [
    "The cat sat on the mat in 1987.",
    "A dog, barking at cats, ran to the house of Anna.",
    "Retrieval finds passages; reading finds answers.",
    "Dogs run. Cats sleep.",
]


@pytest.mark.exercise("encoder.mean_pool")
def test_mean_pool_is_numpys_average() -> None:
    x = torch.randn(4, 5, 3, dtype=torch.float64)
    weights = torch.rand(4, 5, dtype=torch.float64) + 0.1
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0]]).bool()
    x[1, 3], weights[1, 4] = torch.nan, torch.nan
    before = x.clone(), weights.clone()
    found = mean_pool(x, weights, mask)
    for row in range(4):
        kept = mask[row].numpy()
        expected = np.average(x[row].numpy()[kept], axis=0, weights=weights[row].numpy()[kept])
        np.testing.assert_allclose(found[row].numpy(), expected)
    assert torch.equal(x.nan_to_num(), before[0].nan_to_num())
    assert torch.equal(weights.nan_to_num(), before[1].nan_to_num())
    empty = mean_pool(torch.randn(2, 3, 4), torch.ones(2, 3), torch.zeros(2, 3).bool())
    assert torch.equal(empty, torch.zeros(2, 4))
    tiny = mean_pool(torch.ones(1, 2, 3), torch.full((1, 2), 1e-30), torch.ones(1, 2).bool())
    torch.testing.assert_close(tiny, torch.ones(1, 3))
    one = mean_pool(torch.ones(1, 1, 3).half(), torch.ones(1, 1).half(), torch.ones(1, 1).bool())
    assert one.dtype == torch.float16
    assert mean_pool(x.to("meta"), weights.to("meta"), mask.to("meta")).shape == (4, 3)
    leaf = torch.randn(2, 3, 4, requires_grad=True)
    mean_pool(leaf, torch.ones(2, 3), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()).sum().backward()
    assert leaf.grad is not None
    weight = torch.ones(1, 2, requires_grad=True)
    mean_pool(torch.tensor([[[1.0], [3.0]]]), weight, torch.ones(1, 2).bool()).sum().backward()
    torch.testing.assert_close(weight.grad, torch.tensor([[-0.5, 0.5]]))
    torch.testing.assert_close(leaf.grad[0, 2], torch.zeros(4))
    torch.testing.assert_close(leaf.grad[1], torch.full((3, 4), 1 / 3))


def test_an_untrained_encoder_is_a_projection_of_idf_vectors() -> None:
    """Its cosines are those of idf vectors, up to about 1 / sqrt(d); tokens count once."""
    torch.manual_seed(0)
    tokens = stems(TEXTS, 500)
    idf = bucket_idf(tokens, 500)
    encoder = Encoder(idf, width=2048, layers=0, heads=2, dropout=0.5).eval()
    counts = torch.stack([torch.bincount(row[row != 0], minlength=500) for row in tokens])
    assert counts.max() > 1
    vectors = F.normalize((counts > 0) * idf, dim=1)
    found = F.normalize(encoder(tokens), dim=1)
    torch.testing.assert_close(found @ found.T, vectors @ vectors.T, atol=0.08, rtol=0)


def test_tokens_count_once_and_a_bag_is_a_mean() -> None:
    tokens = torch.tensor([[5, 7, 5, 0, 0], [3, 3, 3, 3, 4]])
    expected = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 1]]).bool()
    assert torch.equal(first_places(tokens), expected)
    torch.manual_seed(0)
    bag = Encoder(torch.rand(9) + 0.5, 16, 0, 2, 0.0)
    layered = Encoder(torch.ones(9), 16, 1, 2, 0.0)  # whose gate is 0
    layered.load_state_dict(bag.state_dict(), strict=False)
    torch.testing.assert_close(bag(tokens), layered(tokens))


@pytest.mark.parametrize("layers", [0, 1])
def test_padding_and_other_rows_change_nothing(layers: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(bucket_idf(stems(TEXTS, 300), 300), 16, layers, 2, 0.3).eval()
    torch.nn.init.constant_(encoder.gate, 0.7)
    together = encoder(stems(TEXTS, 300))
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(encoder(stems([text], 300)), together[i : i + 1])
    assert encoder(stems([""], 300)).isfinite().all()
    train = encoder.train()
    assert not torch.equal(train(stems(TEXTS, 300)), train(stems(TEXTS, 300))), "dropout"
    assert len(encoder.fingerprint()) == 64
    before = encoder.fingerprint()
    with torch.no_grad():
        encoder.importance[3] += 1
    assert encoder.fingerprint() != before


def test_layers_see_the_order_of_words_and_begin_with_no_effect() -> None:
    torch.manual_seed(0)
    encoder = Encoder(torch.ones(60), 16, 1, 2, 0.0).eval()
    a, b = stems(["cat the mat"], 60), stems(["mat the cat"], 60)
    torch.testing.assert_close(encoder(a), encoder(b))
    torch.nn.init.constant_(encoder.gate, 1.0)
    assert (encoder(a) - encoder(b)).abs().max() > 1e-4


def test_stems_are_hashed_first_letters() -> None:
    tokens = stems(["Invented, invents: the INVENTION", "dog", ""], 1000)
    assert tokens.shape == (3, 4)
    assert tokens[0, 0] == tokens[0, 1] == tokens[0, 3] != tokens[0, 2]
    assert (tokens[0] > 0).all()
    assert tokens[1, 1:].sum() == tokens[2].sum() == 0, "padding"
    assert stems(TEXTS, 50).max() < 50
    assert stems(TEXTS, 50, longest=3).shape == (4, 3)
    idf = bucket_idf(tokens, 1000)
    for token, n in ((tokens[0, 0], 1), (tokens[1, 0], 1), (999, 0)):
        assert idf[token].item() == pytest.approx(np.log(1 + 3 / (n + 0.5)), rel=1e-6)
    assert stems([], 9).shape == (0, 1)


@pytest.mark.exercise("reader.best_span")
@pytest.mark.parametrize("longest", [1, 2, 4, 9])
def test_best_span_by_brute_force(longest: int) -> None:
    generator = torch.Generator().manual_seed(longest)
    begin, end = torch.randn(2, 6, 5, generator=generator)
    begin[2, 3:], end[2, 3:] = -torch.inf, -torch.inf
    before = begin.clone(), end.clone()
    first, last, score = best_span(begin, end, longest)
    for row in range(6):
        pairs = [(i, j) for i, j in itertools.product(range(5), repeat=2) if i <= j < i + longest]
        best = max(pairs, key=lambda p: begin[row, p[0]] + end[row, p[1]])
        assert (first[row].item(), last[row].item()) == best
        assert score[row].item() == pytest.approx(float(begin[row, best[0]] + end[row, best[1]]))
    assert first.shape == last.shape == score.shape == (6,)
    assert first.dtype == last.dtype == torch.int64
    assert torch.equal(begin, before[0])
    assert torch.equal(end, before[1])


@pytest.mark.exercise("reader.best_span")
def test_best_span_takes_the_first_of_equals() -> None:
    first, last, score = best_span(torch.zeros(1, 4), torch.zeros(1, 4), 3)
    assert (first.item(), last.item(), score.item()) == (0, 0, 0)
    begin, end = torch.tensor([[0.0, 5, 0]]), torch.tensor([[9.0, 0, 0]])
    assert [x.item() for x in best_span(begin, end, 3)] == [0, 0, 9], "never backwards"
    one = best_span(torch.tensor([[2.0]]), torch.tensor([[1.0]]), 5)
    assert [x.item() for x in one] == [0, 0, 3]
    begin, end = torch.zeros(1, 2, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    best_span(begin, end, 2)[2].sum().backward()
    for scores in (begin, end):
        torch.testing.assert_close(scores.grad, torch.tensor([[1.0, 0.0]]))
    meta = best_span(torch.zeros(2, 3, device="meta"), torch.zeros(2, 3, device="meta"), 2)
    assert meta[0].device.type == "meta"


def test_words_have_their_places_and_answers_are_found() -> None:
    vocabulary = Vocabulary.learn([*TEXTS, *TEXTS[:2]], 50)
    made = sheets(vocabulary, TEXTS)
    text = TEXTS[1]
    for word, (begin, end) in zip(["A", "dog", ",", "barking"], made.places[1], strict=False):
        assert text[begin:end] == word
    assert made.flags[1, 0].tolist() == [1, 0]
    year = next(i for i, (b, e) in enumerate(made.places[0]) if TEXTS[0][b:e] == "1987")
    assert made.flags[0, year].tolist() == [0, 1]
    row = Question("Whose house?", 1, ("house of Anna",), text.index("house of Anna"))
    first, last = span_of(row, made.places[1])
    assert text[made.places[1][first][0] : made.places[1][last][1]] == "house of Anna"
    cut = sheets(vocabulary, TEXTS, longest=8)
    assert span_of(row, cut.places[1]) == (-1, -1), "behind what is read"
    half = Question("?", 1, ("arking at ca",), text.index("arking at ca"))
    first, last = span_of(half, made.places[1])
    assert text[made.places[1][first][0] : made.places[1][last][1]] == "barking at cats"
    words = made.forms[1].numpy()
    answer = sheets(vocabulary, ["the house"]).forms[0].numpy()
    assert spans_with(answer, words).tolist() == [int(np.flatnonzero(words == answer[0])[0])]
    assert spans_with(np.array([1, 1]), np.array([1, 1, 1, 2])).tolist() == [0, 1]
    assert spans_with(np.array([], int), words).size == 0
    assert spans_with(np.arange(99), words).size == 0
    assert made.rows(torch.tensor([3])).ids.shape == (1, 6)


def model(vocabulary: Vocabulary) -> CrossEncoder:
    torch.manual_seed(0)
    return CrossEncoder(torch.tensor(vocabulary.idf), 8, 12, 4, 0.3).eval()


def test_reading_alone_and_in_a_batch_is_the_same() -> None:
    vocabulary = Vocabulary.learn(TEXTS * 2, 50)
    reader, p = model(vocabulary), sheets(vocabulary, TEXTS)
    q = sheets(
        vocabulary, ["Where did the cat sit?", "Who ran?", "What?", "Whose house was it in?"]
    )
    relevance, begin, end = reader(q, p)
    assert torch.equal(begin.isneginf(), ~p.mask)
    assert torch.equal(end.isneginf(), ~p.mask)
    for i in range(4):
        row = torch.tensor([i])
        alone = reader(q.rows(row), p.rows(row))
        width = int(p.mask[i].sum())
        torch.testing.assert_close(alone[0], relevance[i : i + 1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone[1][0], begin[i, :width], atol=1e-5, rtol=1e-4)
    other = reader(q.rows(torch.tensor([1, 0, 3, 2])), p)[0]
    assert (other - relevance).abs().max() > 1e-4, "the question matters"


def test_reading_loss_and_likelihood_by_hand() -> None:
    relevance, begin, end = torch.randn(3, 2), torch.randn(3, 5), torch.randn(3, 5)
    spans = torch.tensor([[0, 2], [-1, -1], [4, 4]])
    choice, places = reading_loss(relevance, begin, end, spans)
    expected = -relevance.log_softmax(1)[:, 0].mean()
    torch.testing.assert_close(choice, expected)
    b, e = begin.log_softmax(1), end.log_softmax(1)
    torch.testing.assert_close(places, -(b[0, 0] + e[0, 2] + b[2, 4] + e[2, 4]) / 2)
    where = torch.tensor([[[0, 2], [1, 1]], [[-1, -1], [-1, -1]], [[3, 4], [-1, -1]]])
    found = answer_likelihood(begin, end, where)
    both = (b[0, 0] + e[0, 2]).exp() + (b[0, 1] + e[0, 1]).exp()
    torch.testing.assert_close(found[0].exp(), both)
    assert found[1] == -torch.inf
    torch.testing.assert_close(found[2], b[2, 3] + e[2, 4])
    none = reading_loss(relevance, begin, end, torch.full((3, 2), -1))[1]
    assert none == 0
