"""Rankings against scikit-learn and brute force; answers against SQuAD's own examples."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from retrieval.fusion import reciprocal_rank_fusion
from retrieval.metrics import (
    exact_match,
    f1,
    ndcg,
    normalise_answer,
    recall,
    reciprocal_rank,
    single,
)


@pytest.mark.parametrize("k", [1, 3, 10, 50])
@pytest.mark.exercise("metrics.ndcg")
def test_ndcg_is_scikit_learns(k: int) -> None:
    rng = np.random.default_rng(k)
    grades = rng.integers(0, 4, size=(6, 12)).astype(float)
    scores = rng.normal(size=grades.shape)
    ranked = np.take_along_axis(grades, np.argsort(-scores, axis=1), axis=1)
    shuffled = rng.permutation(grades, axis=1)
    found = ndcg(ranked, shuffled, k)
    expected = [ndcg_score(grades[i : i + 1], scores[i : i + 1], k=k) for i in range(6)]
    np.testing.assert_allclose(found, expected)
    assert found.shape == (6,)
    assert found.dtype == np.float64


@pytest.mark.exercise("metrics.ndcg")
def test_ndcg_by_hand() -> None:
    ranked = np.array([[0, 1, 0], [0, 0, 0], [3, 0, 2], [0, 0, 0]])
    judged = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 2, 3, 1], [0, 0, 0, 0]])
    before = ranked.copy(), judged.copy()
    ideal = 3 + 2 / np.log2(3) + 1 / 2
    expected = [1 / np.log2(3), 0, (3 + 2 / 2) / ideal, 0]
    np.testing.assert_allclose(ndcg(ranked, judged, 3), expected)
    np.testing.assert_allclose(ndcg(ranked, judged, 10), expected)
    np.testing.assert_allclose(ndcg(ranked, judged, 1), [0, 0, 1, 0])
    np.testing.assert_array_equal(ranked, before[0])
    np.testing.assert_array_equal(judged, before[1])
    one = ndcg(np.array([[1.0]]), np.array([[1.0, 1.0]]), 5)
    np.testing.assert_allclose(one, 1 / (1 + 1 / np.log2(3)))


def test_recall_and_reciprocal_rank_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    ranked = (rng.random((40, 8)) < 0.2).astype(float)
    judged = np.concatenate([ranked, (rng.random((40, 3)) < 0.2).astype(float)], axis=1)
    for k in (1, 3, 8, 20):
        for row in range(40):
            total = judged[row].sum()
            expected = ranked[row, :k].sum() / total if total else 0
            assert recall(ranked, judged, k)[row] == pytest.approx(expected)
            places = [i + 1 for i in range(min(k, 8)) if ranked[row, i]]
            rank = 1 / places[0] if places else 0
            assert reciprocal_rank(ranked, k)[row] == pytest.approx(rank)


def test_one_relevant_document() -> None:
    ids = np.array([[4, 7, -1], [1, 2, 3]])
    relevance, judged = single(ids, np.array([7, 9]))
    assert relevance.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert judged.tolist() == [[1], [1]]


@pytest.mark.exercise("metrics.normalise_answer")
@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The Denver Broncos.", "denver broncos"),
        ("  a  an the  ", ""),
        ("an apple a day", "apple day"),
        ("O'Neill's", "oneills"),
        ("1,000-year-old", "1000yearold"),
        ("theatre Anna", "theatre anna"),
        ("$5.50 (about)", "550 about"),
        ("A\tb\n c", "b c"),
        ("Beyoncé", "beyoncé"),
        ("the-man", "theman"),
        ("x–the–y", "x– –y"),
        ("", ""),
    ],
)
def test_normal_forms(text: str, form: str) -> None:
    assert normalise_answer(text) == form


def test_exact_match_takes_any_of_the_answers() -> None:
    assert exact_match("the Broncos!", ["Denver", "Broncos"])
    assert not exact_match("Bronco", ["Broncos"])


@pytest.mark.exercise("metrics.f1")
@pytest.mark.parametrize(
    ("answer", "right", "expected"),
    [
        ("Denver Broncos", ["the Denver Broncos"], 1.0),
        ("Broncos", ["Denver Broncos"], 2 / 3),
        ("the big Denver Broncos team", ["Denver Broncos"], 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("x", ["y", "x z"], 2 / 3),
        ("x x x", ["x x"], 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("x y", ["x x"], 0.5),
        ("cat", ["dog"], 0.0),
        ("the", ["a"], 1.0),
        ("the", ["cat"], 0.0),
        ("cat", ["the"], 0.0),
    ],
)
def test_overlap(answer: str, right: list[str], expected: float) -> None:
    assert f1(answer, right) == pytest.approx(expected)


def brute_fusion(rankings, documents, constant, weights):  # type: ignore[no-untyped-def]
    rows = len(rankings[0])
    scores = [[0.0] * documents for _ in range(rows)]
    for ranking, weight in zip(rankings, weights, strict=True):
        for q in range(rows):
            for place, document in enumerate(ranking[q].tolist()):
                if document != -1:
                    scores[q][document] += weight / (constant + place + 1)
    return scores


@pytest.mark.exercise("fusion.reciprocal_rank_fusion")
def test_fusion_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    long = np.stack([rng.permutation(9)[:6] for _ in range(4)])
    short = np.stack([rng.permutation(9)[:3] for _ in range(4)])
    short[1, 1:] = -1
    short[2] = -1
    before = long.copy(), short.copy()
    for constant, weights in ((60.0, None), (1.0, [0.25, 0.75]), (0.0, [1.0, 0.0])):
        found = reciprocal_rank_fusion([long, short], 9, constant, weights)
        expected = brute_fusion([long, short], 9, constant, weights or [1.0, 1.0])
        np.testing.assert_allclose(found, expected)
    default = reciprocal_rank_fusion([long, short], 9)
    np.testing.assert_allclose(default, brute_fusion([long, short], 9, 60.0, [1.0, 1.0]))
    assert default.shape == (4, 9)
    assert default.dtype == np.float64
    np.testing.assert_array_equal(long, before[0])
    np.testing.assert_array_equal(short, before[1])
    three = reciprocal_rank_fusion([long, short, long], 9)
    np.testing.assert_allclose(three, brute_fusion([long, short, long], 9, 60.0, [1.0] * 3))
    assert reciprocal_rank_fusion([long[:0]], 9).shape == (0, 9)
    with pytest.raises(ValueError):
        reciprocal_rank_fusion([long, short], 9, 60.0, [1.0])
