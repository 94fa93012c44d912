"""k-means against scikit-learn and FAISS; the inverted file against exact search."""

from itertools import pairwise

import numpy as np
import pytest

from retrieval.index import unit_rows
from retrieval.ivf import IVF, Found, agreement, probe, shortlist, signs
from retrieval.kmeans import kmeans, kmeans_step, nearest


def points(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.exercise("kmeans.kmeans_step")
def test_a_step_is_scikit_learns() -> None:
    from sklearn.cluster import KMeans

    x, start = points(70, 3), points(5, 3, 1)
    moved, assignment = kmeans_step(x, start)
    # One iteration of theirs moves the centroids once; its labels are those of the moved ones.
    theirs = KMeans(5, init=start, n_init=1, max_iter=1, algorithm="lloyd", tol=0).fit(x)
    np.testing.assert_allclose(moved, theirs.cluster_centers_, atol=1e-12)
    distance = ((x[:, None] - start[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(assignment, distance.argmin(1))


@pytest.mark.exercise("kmeans.kmeans_step")
def test_a_centroid_without_vectors_stays() -> None:
    x = np.array([[0.0, 0], [0, 2], [10, 0]], np.float32)
    start = np.array([[0.0, 1], [50, 50], [9, 0], [0, 1]])
    before = x.copy(), start.copy()
    moved, assignment = kmeans_step(x, start)
    assert assignment.tolist() == [0, 0, 2], "of equally near ones the first"
    np.testing.assert_allclose(moved, [[0, 1], [50, 50], [10, 0], [0, 1]])
    assert moved.dtype == np.float64
    assert moved is not start
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(start, before[1])
    whole, where = kmeans_step(np.array([[1, 5], [2, 9]]), np.array([[0, 0]]))
    np.testing.assert_allclose(whole, [[1.5, 7]], err_msg="whole numbers have means, too")
    assert where.tolist() == [0, 0]
    one, _ = kmeans_step(np.array([[3.0, 4, 5]]), np.array([[0.0, 0, 0], [9, 9, 9]]))
    np.testing.assert_allclose(one, [[3, 4, 5], [9, 9, 9]])


def test_kmeans_lowers_the_distance_and_finds_what_is_apart() -> None:
    centres = 20 * np.eye(4)
    x = np.concatenate([c + points(30, 4, i) for i, c in enumerate(centres)])

    def spread(c: np.ndarray) -> float:
        return float(np.square(x - c[nearest(x, c)]).sum())

    steps = [spread(kmeans(x, 4, steps=s, seed=3)) for s in (0, 1, 2, 5, 20)]
    assert all(a >= b - 1e-9 for a, b in pairwise(steps))
    with pytest.raises(ValueError, match="1 to 120 centroids, got 121"):
        kmeans(x, 121)
    np.testing.assert_array_equal(kmeans(x, 3, seed=1), kmeans(x, 3, seed=1))


@pytest.mark.exercise("ivf.probe")
def test_all_lists_are_exact_search_and_fewer_search_the_nearest() -> None:
    x, q = points(60, 5), points(1, 5, 7)[0]
    ivf = IVF(x, 7, seed=1)
    before = q.copy(), ivf.centroids.copy()
    found = probe(q, ivf.centroids, ivf.lists, x, 4, 7)
    assert isinstance(found, Found)
    np.testing.assert_array_equal(found.ids, np.argsort(-(x @ q))[:4])
    np.testing.assert_allclose(found.scores, np.sort(x @ q)[::-1][:4])
    assert found.computed == 7 + 60
    more = probe(q, ivf.centroids, ivf.lists, x, 4, 100)
    assert more.computed == 67
    np.testing.assert_array_equal(more.ids, found.ids)
    home = np.array([np.linalg.norm(ivf.centroids - v, axis=1).argmin() for v in x])
    for probes in (1, 3):
        order = np.linalg.norm(ivf.centroids - q, axis=1).argsort()[:probes]
        inside = np.flatnonzero(np.isin(home, order))
        expected = inside[np.argsort(-(x[inside] @ q), kind="stable")][:4]
        found = probe(q, ivf.centroids, ivf.lists, x, 4, probes)
        np.testing.assert_array_equal(found.ids[: len(expected)], expected)
        assert found.computed == 7 + len(inside)
    np.testing.assert_array_equal(q, before[0])
    np.testing.assert_array_equal(ivf.centroids, before[1])


@pytest.mark.exercise("ivf.probe")
def test_lists_are_chosen_by_distance_and_may_be_empty_or_short() -> None:
    vectors = np.array([[1.0, 0], [0, 1], [5, 5], [2, 0]])
    centroids = np.array([[1.5, 0.0], [0, 1], [5, 5], [1, 0.1]])
    lists = [np.array([3, 0]), np.array([1]), np.array([2]), np.array([], int)]
    near = probe(np.array([1.0, 0]), centroids, lists, vectors, 3, 1)
    assert near.ids.tolist() == [-1, -1, -1], "the nearest list is empty"
    assert np.isneginf(near.scores).all()
    assert near.computed == 4
    two = probe(np.array([1.0, 0]), centroids, lists, vectors, 3, 2)
    assert two.ids.tolist() == [3, 0, -1], "not [2, ...], whose inner product is greatest"
    np.testing.assert_allclose(two.scores, [2, 1, -np.inf])
    assert two.computed == 6
    assert probe(np.array([1.0, 0]), centroids, lists, vectors, 1, 4).ids.tolist() == [2]


@pytest.mark.exercise("ivf.probe")
def test_equal_ones_keep_their_order() -> None:
    vectors, centroids = np.ones((400, 2)), np.ones((50, 2))
    lists = [np.arange(8 * i, 8 * i + 8)[::-1] for i in range(50)]
    found = probe(np.ones(2), centroids, lists, vectors, 24, 30)
    assert found.ids.tolist() == np.concatenate(lists[:3]).tolist()


def test_each_vector_is_in_one_list_and_recall_grows_with_probes() -> None:
    x, q = points(400, 6), points(20, 6, 3)
    ivf = IVF(x, 20)
    assert sorted(np.concatenate(ivf.lists).tolist()) == list(range(400))
    exact = np.argsort(-(q @ x.T), axis=1)[:, :10]
    shares, costs = [], []
    for probes in (1, 5, 20):
        ids, computed = ivf.search(q, 10, probes)
        shares.append(agreement(ids, exact))
        costs.append(computed)
    assert shares[0] < shares[1] < shares[2] == 1
    assert costs[0] < costs[1] < costs[2] == 420


def test_the_inverted_file_is_faisss() -> None:
    faiss = pytest.importorskip("faiss")
    x = points(300, 8).astype(np.float32)
    q = points(15, 8, 1).astype(np.float32)
    ours = IVF(x.astype(np.float64), 12)
    quantizer = faiss.IndexFlatL2(8)
    quantizer.add(ours.centroids.astype(np.float32))
    theirs = faiss.IndexIVFFlat(quantizer, 8, 12, faiss.METRIC_INNER_PRODUCT)
    theirs.is_trained = True
    theirs.add(x)
    theirs.nprobe = 4
    _, expected = theirs.search(q, 5)
    ids, _ = ours.search(q.astype(np.float64), 5, 4)
    assert (ids == expected).mean() > 0.98, "up to rounding in float32"


def test_signs_are_one_bit_a_number() -> None:
    x = points(5, 11)
    before = x.copy()
    codes = signs(x)
    assert codes.shape == (5, 2)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(np.unpackbits(codes, axis=1)[:, :11], x > 0)
    np.testing.assert_array_equal(x, before)
    assert signs(np.array([[0.0, -1, 2]]))[0, 0] == 0b00100000, "0 is not above 0"


def test_a_shortlist_has_the_most_signs_in_common() -> None:
    x, q = points(90, 37), points(1, 37, 5)[0]
    ivf = IVF(x, 6, seed=2)
    for probes, again in ((2, 7), (6, 20), (1, 1000)):
        order = np.linalg.norm(ivf.centroids - q, axis=1).argsort()[:probes]
        inside = np.concatenate([ivf.lists[c] for c in order])
        same = ((x[inside] > 0) == (q > 0)).sum(axis=1)
        expected = inside[np.argsort(-same, kind="stable")][:again]
        near, cost = shortlist(q, ivf.centroids, ivf.lists, ivf.codes, again, probes)
        np.testing.assert_array_equal(near, expected)
        assert cost == 6 + len(inside) / 32


def test_a_search_by_codes_compares_the_shortlist_exactly() -> None:
    x, q = unit_rows(points(400, 64)), unit_rows(points(30, 64, 3))
    exact = np.argsort(-(q @ x.T), axis=1)[:, :5]
    ivf = IVF(x, 20)
    ids, cost = ivf.search(q, 5, 20, again=400)
    np.testing.assert_array_equal(ids, exact)
    assert cost == 20 + 400 / 32 + 400
    few, cost = ivf.search(q, 5, 20, again=80)
    assert agreement(few, exact) > 0.7, "0.2 by chance"
    assert cost == 20 + 400 / 32 + 80
    one, _ = ivf.search(q[:1], 5, 1, again=2)
    assert (one[0] >= 0).tolist() == [True, True, False, False, False]
