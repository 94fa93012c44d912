"""The Frechet distance against closed forms, SciPy's matrix square root, and the field's tools."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from evaluation import frechet
from evaluation.frechet import Gaussian
from labkit import UsageError
from labkit.learning.metrics import frechet_distance as in_labkit


def features(n: int = 90, d: int = 7, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((d, d)) * np.linspace(0.2, 2, d)
    return scale * (rng.standard_normal((n, d)) @ mixing + rng.standard_normal(d))


def made(mean: np.ndarray, covariance: np.ndarray, count: int = 11) -> Gaussian:
    return Gaussian(count, mean, covariance * (count - 1))


def textbook(x: np.ndarray, y: np.ndarray) -> float:
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    means = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    return float(means + np.trace(c1 + c2) - 2 * np.trace(sqrtm(c1 @ c2)).real)


# --- statistics ---


def test_gaussian_is_mean_and_unbiased_covariance() -> None:
    x = features().astype(np.float32)
    found = frechet.gaussian(x)
    assert found.count == 90
    assert found.mean.dtype == found.scatter.dtype == np.float64
    np.testing.assert_allclose(found.mean, x.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.astype(float), rowvar=False), rtol=1e-10)


@pytest.mark.exercise("frechet.merge")
@pytest.mark.parametrize("at", [1, 3, 41, 89])
def test_merged_parts_are_the_whole(at: int) -> None:
    x = features() + 5.0
    a, b = frechet.gaussian(x[:at]), frechet.gaussian(x[at:])
    before = a.mean.copy(), a.scatter.copy(), b.mean.copy(), b.scatter.copy()
    found, whole = frechet.merge(a, b), frechet.gaussian(x)
    assert found.count == whole.count
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(found.scatter, whole.scatter, rtol=1e-10, atol=1e-9)
    for now, then in zip((a.mean, a.scatter, b.mean, b.scatter), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.exercise("frechet.merge")
def test_merging_is_stable_far_from_zero() -> None:
    """Sums of squares minus squares of sums would lose all digits here."""
    x = features(60, 3) + 1e8
    found = frechet.merge(frechet.gaussian(x[:20]), frechet.gaussian(x[20:]))
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-6)


def test_stream_takes_batches_of_any_size_and_type() -> None:
    x = features(100, 5)
    found = frechet.stream([x[:1], x[1:64].astype(np.float64), x[64:]])
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-10)
    assert found.count == 100
    with pytest.raises(UsageError, match="no features"):
        frechet.stream([])


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="2 samples or more, and there is 1"):
        _ = frechet.gaussian(features(1)).covariance


def test_features_that_are_not_finite_are_refused_and_located() -> None:
    x = features(6, 4)
    x[3, 1], x[5, 0] = np.nan, np.inf
    with pytest.raises(UsageError, match=r"features of 2 of 6 images are not finite.*image 3"):
        frechet.gaussian(x)
    with pytest.raises(UsageError, match=r"shape \(6,\)"):
        frechet.gaussian(x[:, 0])
    with pytest.raises(UsageError, match=r"shape \(0, 4\)"):
        frechet.gaussian(x[:0])


def test_fewer_samples_than_dimensions_are_refused_unless_allowed() -> None:
    with pytest.raises(UsageError, match=r"64 images and 64 features.*Take 65.*allow_few=true"):
        frechet.check_count(64, 64, allow_few=False)
    frechet.check_count(65, 64, allow_few=False)
    frechet.check_count(2, 64, allow_few=True)
    with pytest.raises(UsageError, match="1 image is no distribution"):
        frechet.check_count(1, 64, allow_few=True)


# --- the trace ---


@pytest.mark.exercise("frechet.cross_trace")
@pytest.mark.parametrize("d", [1, 2, 9])
def test_cross_trace_is_the_trace_of_scipys_square_root(d: int) -> None:
    c1, c2 = (np.cov(features(40, d, seed), rowvar=False).reshape(d, d) for seed in (1, 2))
    root = np.linalg.cholesky(c1)
    before = root.copy(), c2.copy()
    expected = np.trace(np.atleast_2d(sqrtm(c1 @ c2))).real
    assert frechet.cross_trace(root, c2) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_array_equal(root, before[0])
    np.testing.assert_array_equal(c2, before[1])


@pytest.mark.exercise("frechet.cross_trace")
def test_cross_trace_of_diagonal_covariances_has_a_closed_form() -> None:
    a, b = np.array([4.0, 9.0, 0.25]), np.array([1.0, 16.0, 4.0])
    found = frechet.cross_trace(np.diag(np.sqrt(a)), np.diag(b))
    assert isinstance(found, float)
    assert found == pytest.approx(2 + 12 + 1)


@pytest.mark.exercise("frechet.cross_trace")
def test_any_factor_gives_the_same_trace_a_narrow_one_too() -> None:
    x = features(5, 9)
    x = x - x.mean(axis=0)
    narrow, c2 = x.T / 2, np.cov(features(50, 9, 3), rowvar=False)  # (9, 5): N - 1 = 4
    turned = narrow @ np.linalg.qr(features(5, 5, 4))[0]
    expected = np.sqrt(np.linalg.eigvals(narrow @ narrow.T @ c2).real.clip(min=0)).sum()
    assert frechet.cross_trace(narrow, c2) == pytest.approx(expected, rel=1e-5)
    assert frechet.cross_trace(turned, c2) == pytest.approx(frechet.cross_trace(narrow, c2))


@pytest.mark.exercise("frechet.cross_trace")
def test_singular_covariances_give_no_nan() -> None:
    """Rounding makes eigenvalues of rank-deficient products negative."""
    x, y = features(4, 30), features(4, 30, seed=9)
    root = (x - x.mean(axis=0)).T / np.sqrt(3)
    c2 = np.cov(y, rowvar=False)
    inner = np.linalg.eigvalsh(root.T @ c2 @ root)
    found = frechet.cross_trace(root, c2)
    assert inner.min() < 0
    assert found == pytest.approx(np.sqrt(inner.clip(min=0)).sum())
    assert frechet.cross_trace(np.zeros((3, 3)), np.eye(3)) == 0


def test_a_factor_is_a_root_also_of_a_singular_covariance() -> None:
    for n in (4, 60):
        covariance = np.cov(features(n, 6), rowvar=False)
        root = frechet.factor(covariance)
        np.testing.assert_allclose(root @ root.T, covariance, atol=1e-9)


# --- the distance ---


@pytest.mark.exercise("frechet.frechet_distance")
@pytest.mark.parametrize("d", [1, 3, 12])
def test_distance_is_the_textbooks(d: int) -> None:
    x, y = features(50, d), features(70, d, seed=1, scale=1.5)
    a, b = frechet.gaussian(x), frechet.gaussian(y)
    found = frechet.frechet_distance(a, b)
    if d > 1:
        assert found == pytest.approx(textbook(x, y), rel=1e-8)
        assert found == pytest.approx(in_labkit(a.mean, a.covariance, b.mean, b.covariance))
    else:  # (m1 - m2)^2 + (s1 - s2)^2
        means, deviations = x.mean() - y.mean(), x.std(ddof=1) - y.std(ddof=1)
        assert found == pytest.approx(means**2 + deviations**2)
    assert frechet.frechet_distance(b, a) == pytest.approx(found)
    assert isinstance(found, float)


@pytest.mark.exercise("frechet.frechet_distance")
def test_distance_of_diagonal_gaussians_has_a_closed_form() -> None:
    a = made(np.array([1.0, 2.0]), np.diag([4.0, 9.0]))
    b = made(np.array([0.0, 4.0]), np.diag([1.0, 25.0]), count=5)
    assert frechet.frechet_distance(a, b) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 5) ** 2)
    assert frechet.frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    shifted = made(a.mean + np.array([3.0, 0.0]), np.diag([4.0, 9.0]))
    assert frechet.frechet_distance(a, shifted) == pytest.approx(9)


@pytest.mark.exercise("frechet.frechet_distance")
def test_distance_of_singular_gaussians_is_finite() -> None:
    x, y = features(5, 20), features(6, 20, seed=2)
    a, b = frechet.gaussian(x), frechet.gaussian(y)
    expected = in_labkit(a.mean, a.covariance, b.mean, b.covariance)
    assert frechet.frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("n", [2, 9, 20, 21, 60])
def test_few_samples_take_a_short_way_to_the_same_distance(n: int) -> None:
    x, reference = features(n, 20), frechet.gaussian(features(80, 20, seed=3))
    expected = frechet.frechet_distance(frechet.gaussian(x), reference)
    assert frechet.distance_from(x, reference) == pytest.approx(expected, rel=1e-5)


def test_the_short_way_refuses_the_same() -> None:
    reference = frechet.gaussian(features(80, 20))
    with pytest.raises(UsageError, match="1 image is no distribution"):
        frechet.distance_from(features(1, 20), reference)
    with pytest.raises(UsageError, match="not finite"):
        frechet.distance_from(np.full((3, 20), np.nan), reference)


def test_identical_images_are_a_point() -> None:
    """Tr(C) and the means remain: the distance to a point has a closed form."""
    x, point = features(40, 4), np.full((10, 4), 2.0)
    expected = np.square(x.mean(axis=0) - 2).sum() + x.var(axis=0, ddof=1).sum()
    assert frechet.distance_from(point, frechet.gaussian(x)) == pytest.approx(expected)


# --- the field's tools, where they are installed ---


@pytest.mark.parametrize("d", [8, 64])
def test_clean_fid_agrees(d: int) -> None:
    theirs = pytest.importorskip("cleanfid.fid")
    x, y = features(400, d).astype(np.float32), features(500, d, seed=5).astype(np.float32)
    statistics = [v for f in (x, y) for v in (f.mean(axis=0), np.cov(f, rowvar=False))]
    expected = float(np.real(theirs.frechet_distance(*statistics)))
    found = frechet.frechet_distance(frechet.gaussian(x), frechet.gaussian(y))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("d", [8, 64])
def test_torch_fidelity_agrees(d: int) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = features(400, d), features(500, d, seed=5)
    both = [theirs.fid_features_to_statistics(torch.from_numpy(f)) for f in (x, y)]
    expected = theirs.fid_statistics_to_metric(*both, verbose=False)["frechet_inception_distance"]
    found = frechet.frechet_distance(frechet.gaussian(x), frechet.gaussian(y))
    assert found == pytest.approx(expected, rel=1e-6)
