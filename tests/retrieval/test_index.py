"""The FAISS indexes against exact cosines; adding, removing, saving, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from labkit import UsageError
from retrieval.index import FILE, VectorIndex, unit_rows

KINDS = ("flat", "ivf", "pq", "hnsw")


def vectors(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    """Of very different lengths, so that the inner product is not the cosine."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * np.exp(2 * rng.normal(size=(n, 1)))


def cosines(q: np.ndarray, x: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1)[None]
    return q @ x.T / lengths


@pytest.mark.exercise("index.unit_rows")
def test_unit_rows() -> None:
    x = np.array([[3.0, 4, 0], [0, 0, 0], [0, -2, 0], [1e-30, 0, 1e-30]])
    before = x.copy()
    half = np.sqrt(0.5)
    expected = [[0.6, 0.8, 0], [0, 0, 0], [0, -1, 0], [half, 0, half]]
    for kind in (np.float64, np.float32):
        found = unit_rows(x.astype(kind))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
    np.testing.assert_allclose(unit_rows(np.float32([[3e30, 4e30]])), [[0.6, 0.8]], rtol=1e-6)
    np.testing.assert_array_equal(x, before)
    turned = unit_rows(np.asfortranarray(vectors(5, 3)))
    assert turned.flags.c_contiguous
    np.testing.assert_allclose((turned.astype(float) ** 2).sum(1), 1, rtol=1e-6)
    assert unit_rows(np.zeros((0, 3))).shape == (0, 3)
    single = np.float32([[0.0, 2.0]])
    unit_rows(single)
    np.testing.assert_array_equal(single, [[0, 2]])


@pytest.mark.parametrize("kind", KINDS)
def test_finds_by_cosine_also_after_changes(kind: str) -> None:
    pytest.importorskip("faiss")
    x, q = vectors(600), vectors(30, seed=1)
    index = VectorIndex(kind, 16, probes=30)  # type: ignore[arg-type]
    ids = np.arange(600) * 3 + 5
    index.add(ids[:500], x[:500])
    index.add(ids[500:], x[500:])
    gone = ids[::4]
    index.remove(gone)
    kept = np.setdiff1d(np.arange(600), np.arange(0, 600, 4))
    assert len(index) == len(kept) == 450
    found, scores = index.search(q, 10)
    exact = ids[kept][np.argsort(-cosines(q, x[kept]), axis=1)[:, :10]]
    share = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)])
    assert share > {"flat": 0.999, "ivf": 0.9, "pq": 0.3, "hnsw": 0.95}[kind]
    assert not np.isin(found, gone).any()
    if kind != "pq":
        np.testing.assert_allclose(scores[:, 0], cosines(q, x[(found[:, 0] - 5) // 3]).diagonal(),
                                   atol=1e-5)  # fmt: skip
    assert (np.diff(scores, axis=1) <= 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_few_vectors_none_and_more_wanted_than_there_are(kind: str) -> None:
    pytest.importorskip("faiss")
    index = VectorIndex(kind, 8)  # type: ignore[arg-type]
    q = vectors(2, 8, 3)
    assert index.search(q, 3)[0].tolist() == [[-1] * 3] * 2
    index.add(np.zeros(0, int), np.zeros((0, 8)))
    index.add(np.array([7, 9]), vectors(2, 8))
    ids, scores = index.search(q, 5)
    assert ids.shape == (2, 5)
    if kind == "ivf":
        index.probes = 10
    assert {i for i in ids[0].tolist() if i >= 0} <= {7, 9}
    assert np.isneginf(scores[ids < 0]).all()
    index.remove(np.array([7]))
    assert set(index.search(q, 5)[0].flatten().tolist()) <= {9, -1}
    assert index.held.tolist() == [9]


def test_what_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    index = VectorIndex("flat", 4, "a" * 64)
    index.add(np.arange(3), vectors(3, 4))
    with pytest.raises(ValueError, match="only once"):
        index.add(np.array([2]), vectors(1, 4))
    with pytest.raises(ValueError, match="only once"):
        index.add(np.array([5, 5]), vectors(2, 4))
    with pytest.raises(ValueError, match=r"\(N, 4\) vectors"):
        index.add(np.array([8]), vectors(1, 5))
    with pytest.raises(ValueError, match=r"queries \(Q, 4\)"):
        index.search(vectors(1, 5), 2)
    with pytest.raises(KeyError, match="8"):
        index.remove(np.array([8]))
    with pytest.raises(UsageError, match="holds no index"):
        VectorIndex.load(tmp_path / "none", "a" * 64)
    index.save(tmp_path)
    with pytest.raises(UsageError, match="made by another encoder"):
        VectorIndex.load(tmp_path, "b" * 64)
    raw = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(raw[:-5])
    with pytest.raises(UsageError, match="cut short or damaged"):
        VectorIndex.load(tmp_path, "a" * 64)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_opened_it_finds_the_same(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    index = VectorIndex(kind, 8, "f" * 64)  # type: ignore[arg-type]
    index.add(np.arange(300), vectors(300, 8))
    index.remove(np.arange(50))
    index.save(tmp_path)
    again = VectorIndex.load(tmp_path, "f" * 64)
    q = vectors(5, 8, 2)
    for ours, theirs in zip(index.search(q, 4), again.search(q, 4), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again.add(np.array([1000]), q[:1])
    assert again.search(q[:1], 1)[0].tolist() == [[1000]] or kind == "pq"
    assert len(again) == 251
