"""BM25 against rank-bm25, against Lucene's formula by brute force, and as a memory that changes."""

import math
from collections import Counter

import numpy as np
import pytest

from retrieval.bm25 import BM25, inverse_document_frequency, saturation, terms, top_k

TEXTS = [
    "The cat sat on the mat, and the cat slept.",
    "A dog barked at the cat.",
    "Dogs and cats are the pets of the house, and the house is full of them at the end of the day.",
    "Retrieval finds the passage.",
    "the the the",
    "Nothing here is about animals at all; it is about the weather in 1987.",
]
QUERIES = ["the cat", "dog dog house", "weather 1987", "unknown words only", "the"]


def brute(query: str, text: str, texts: list[str], variant: str, k1: float, b: float) -> float:
    """The score of one text, from the formula, term by term."""
    counts = [Counter(terms(t)) for t in texts]
    n = len(texts)
    average = sum(c.total() for c in counts) / n
    containing = Counter(term for c in counts for term in c)
    raw = {t: math.log((n - d + 0.5) / (d + 0.5)) for t, d in containing.items()}
    floor = 0.25 * sum(raw.values()) / len(raw)
    here, score = Counter(terms(text)), 0.0
    for term in terms(query):
        if here[term] == 0:
            continue
        tf, d = here[term], containing[term]
        if variant == "lucene":
            idf, factor = math.log(1 + (n - d + 0.5) / (d + 0.5)), 1.0
        else:
            idf, factor = raw[term] if raw[term] >= 0 else floor, k1 + 1
        score += idf * factor * tf / (tf + k1 * (1 - b + b * here.total() / average))
    return score


@pytest.mark.parametrize("variant", ["okapi", "lucene"])
@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (1.2, 0.0), (0.0, 1.0)])
@pytest.mark.exercise("bm25.inverse_document_frequency")
@pytest.mark.exercise("bm25.saturation")
def test_scores_are_those_of_the_formula(variant: str, k1: float, b: float) -> None:
    index = BM25(TEXTS, variant, k1, b)  # type: ignore[arg-type]
    expected = [[brute(q, t, TEXTS, variant, k1, b) for t in TEXTS] for q in QUERIES]
    np.testing.assert_allclose(index.scores(QUERIES), expected, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.25, 0.0])
def test_scores_are_those_of_rank_bm25(epsilon: float) -> None:
    library = pytest.importorskip("rank_bm25")
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"w{i}" for i in range(60)])
    chances = 1 / np.arange(1, 61)
    texts = [" ".join(rng.choice(vocabulary, n, p=chances / chances.sum()))
             for n in rng.integers(1, 40, size=50)]  # fmt: skip
    theirs = library.BM25Okapi([terms(t) for t in texts], epsilon=epsilon)
    ours = BM25(texts, epsilon=epsilon)
    for query in ("w0 w1 w5", "w30", "w7 w7 nothing"):
        np.testing.assert_allclose(
            ours.scores([query])[0], theirs.get_scores(terms(query)), atol=1e-6
        )


@pytest.mark.exercise("bm25.inverse_document_frequency")
def test_idf_by_hand() -> None:
    containing = np.array([1, 4, 7, 10])
    raw = np.log([9.5 / 1.5, 6.5 / 4.5, 3.5 / 7.5, 0.5 / 10.5])
    found = inverse_document_frequency(containing, 10, "okapi", 0.5)
    np.testing.assert_allclose(found, [raw[0], raw[1], 0.5 * raw.mean(), 0.5 * raw.mean()])
    assert found.dtype == np.float64
    np.testing.assert_allclose(inverse_document_frequency(containing, 10, "okapi")[2:],
                               0.25 * raw.mean())  # fmt: skip
    lucene = inverse_document_frequency(containing, 10, "lucene", 0.5)
    np.testing.assert_allclose(lucene, np.log(1 + np.exp(raw)))
    assert (np.diff(lucene) < 0).all()
    assert lucene.min() > 0
    np.testing.assert_array_equal(containing, [1, 4, 7, 10])
    even = inverse_document_frequency(np.array([2, 1]), 4, "okapi", 10.0)
    assert even[0] == 0, "in half of the documents it is 0, which is not below 0"


@pytest.mark.exercise("bm25.saturation")
def test_saturation_by_hand() -> None:
    tf = np.array([1, 2, 3, 1], np.float32)
    length = np.array([10.0, 10, 20, 5])
    found = saturation(tf, length, 10.0, 2.0, 0.5)
    np.testing.assert_allclose(found, [1 / 3, 2 / 4, 3 / (3 + 3), 1 / (1 + 1.5)])
    assert found.dtype == np.float64
    np.testing.assert_allclose(saturation(tf, length, 10.0, 0.0, 0.5), 1)
    np.testing.assert_allclose(saturation(tf, length, 10.0, 2.0, 0.0), tf / (tf + 2))
    np.testing.assert_allclose(saturation(tf, 7 * length, 70.0, 1.3, 1.0),
                               saturation(tf, length, 10.0, 1.3, 1.0))  # fmt: skip
    assert saturation(tf, length.astype(np.float32), 10.0, 2.0, 0.5).dtype == np.float64
    np.testing.assert_array_equal(tf, [1, 2, 3, 1])
    np.testing.assert_array_equal(length, [10, 10, 20, 5])


@pytest.mark.parametrize("variant", ["okapi", "lucene"])
def test_adding_and_removing_is_as_building_anew(variant: str) -> None:
    index = BM25(TEXTS[:2], variant)  # type: ignore[arg-type]
    assert index.add(TEXTS[2:]).tolist() == [2, 3, 4, 5]
    np.testing.assert_allclose(index.scores(QUERIES), BM25(TEXTS, variant).scores(QUERIES))  # type: ignore[arg-type]
    index.remove([1, 4])
    assert len(index) == 4
    kept = [0, 2, 3, 5]
    anew = BM25([TEXTS[i] for i in kept], variant)  # type: ignore[arg-type]
    scores = index.scores(QUERIES)
    np.testing.assert_allclose(scores[:, kept], anew.scores(QUERIES), atol=1e-12)
    assert not scores[:, [1, 4]].any()
    assert index.add(["a cat"]).tolist() == [6]
    with pytest.raises(IndexError):
        index.remove([99])


def test_search_orders_pads_and_keeps_to_what_is_allowed() -> None:
    index = BM25(TEXTS)
    ids, scores = index.search(QUERIES, 4)
    expected = index.scores(QUERIES)
    for row in range(len(QUERIES)):
        found = ids[row][ids[row] >= 0]
        np.testing.assert_allclose(scores[row, : len(found)], expected[row, found])
        assert (np.diff(scores[row, : len(found)]) <= 0).all()
    assert ids[3].tolist() == [-1] * 4, "no term in common is no result, not the first texts"
    assert np.isneginf(scores[3]).all()
    wide, _ = index.search(["cat"], 20)
    assert wide.shape == (1, 20)
    assert set(wide[0, :2]) == {0, 1}, "k above the number of texts"
    assert (wide[0, 2:] == -1).all()
    allowed = np.zeros((len(QUERIES), len(TEXTS)), bool)
    allowed[:, 1] = True
    assert index.search(QUERIES, 2, allowed)[0][0].tolist() == [1, -1]
    assert index.search(QUERIES, 2, allowed[0])[0][0].tolist() == [1, -1]
    assert index.search([], 3)[0].shape == (0, 3)
    assert BM25([]).search(["cat"], 2)[0].tolist() == [[-1, -1]]
    assert BM25(["cat"]).add([]).shape == (0,)


def test_top_k_is_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, size=(5, 30)).astype(float)
    scores[2, 3] = -np.inf
    ids, best = top_k(scores, 30)
    expected = np.argsort(-scores, axis=1, kind="stable")
    np.testing.assert_array_equal(np.where(ids < 0, 3, ids), expected)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, expected, axis=1))
    assert (ids[2] == -1).sum() == 1
