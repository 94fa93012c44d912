"""Randomised SVD against the optimum (Eckart and Young) and scikit-learn's; rank; bad input."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
from sklearn.utils.extmath import randomized_svd as sklearn_svd

from math_ml.svd import approximation_error, randomized_svd

SPECTRA = {
    "fast": 0.8 ** np.arange(120) + 1e-6,
    "slow": 1 / np.sqrt(np.arange(1, 121)),
    "steep": 10.0 ** -np.arange(0, 12, 0.1),
}


def matrix(sigma: Any, rows: int = 200, columns: int = 120, seed: int = 0) -> np.ndarray:
    """A matrix (rows, columns) with these singular values."""
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.standard_normal((rows, len(sigma))))
    v, _ = np.linalg.qr(rng.standard_normal((columns, len(sigma))))
    return (u * np.asarray(sigma)) @ v.T


def relative_errors(a: np.ndarray, sigma: Any, svd: Any, rank: int) -> tuple[float, float]:
    spectral, frobenius = approximation_error(a, *svd)
    return spectral / sigma[rank], frobenius / float(np.linalg.norm(sigma[rank:]))


@pytest.mark.exercise("svd.randomized_svd")
@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("shape", [(200, 120), (120, 200)])
def test_error_is_within_5_percent_of_the_least(kind: str, shape: tuple[int, int]):
    sigma = SPECTRA[kind]
    a = matrix(sigma, *shape)
    kept = a.copy()
    for seed in range(3):
        u, s, vt = randomized_svd(a, 10, seed=seed)
        assert (u.shape, s.shape, vt.shape) == ((shape[0], 10), (10,), (10, shape[1]))
        assert max(relative_errors(a, sigma, (u, s, vt), 10)) < 1.05
        np.testing.assert_allclose(u.T @ u, np.eye(10), atol=1e-12)
        np.testing.assert_allclose(vt @ vt.T, np.eye(10), atol=1e-12)
        np.testing.assert_allclose(s, sigma[:10], rtol=0.02)
    np.testing.assert_array_equal(a, kept)


@pytest.mark.exercise("svd.randomized_svd")
def test_triplets_are_numpys_and_scikit_learns():
    a = matrix(0.5 ** np.arange(40))
    u, s, vt = randomized_svd(a, 8)
    expected = np.linalg.svd(a, full_matrices=False)
    peer = sklearn_svd(a, 8, n_iter=4, random_state=0)
    for left, middle, right in (expected, peer):
        np.testing.assert_allclose(s, middle[:8], rtol=1e-10)
        turn = np.sign((u * left[:, :8]).sum(axis=0))
        np.testing.assert_allclose(u * turn, left[:, :8], atol=1e-9)
        np.testing.assert_allclose(vt * turn[:, None], right[:8], atol=1e-9)


@pytest.mark.exercise("svd.randomized_svd")
def test_small_singular_values_survive_many_power_iterations():
    """Without orth between the products (A Aᵀ)^q leaves what is below eps^(1/2q) σ₁ as rounding."""
    sigma = 10.0 ** -np.arange(0, 8, 0.5)
    _, s, _ = randomized_svd(matrix(sigma), 14, power_iterations=8)
    np.testing.assert_allclose(s, sigma[:14], rtol=1e-6)


@pytest.mark.exercise("svd.randomized_svd")
def test_power_iterations_are_what_a_slow_spectrum_needs():
    """Halko et al.: each sharpens the spectrum; with none the error is far above the least."""
    sigma = SPECTRA["slow"]
    a = matrix(sigma)
    errors = [
        relative_errors(a, sigma, randomized_svd(a, 10, power_iterations=q), 10)[0]
        for q in (0, 1, 4)
    ]
    assert errors[0] > 1.2
    assert errors[0] > 1.1 * errors[1]
    assert errors[2] < 1.03


@pytest.mark.exercise("svd.randomized_svd")
def test_oversampling_helps_and_is_cut_off_again():
    """Without power iterations: the expected error of Halko et al., theorem 10.5, as a bound."""
    sigma = SPECTRA["slow"]
    a, tail = matrix(sigma), float(np.linalg.norm(sigma[10:]))
    mean = {}
    for oversampling in (2, 30):
        runs = [randomized_svd(a, 10, oversampling, 0, seed) for seed in range(20)]
        assert all(s.shape == (10,) for _, s, _ in runs)
        mean[oversampling] = np.mean([approximation_error(a, *svd)[1] for svd in runs]) / tail
    assert mean[30] < mean[2] < (1 + 10 / (2 - 1)) ** 0.5
    assert mean[30] < 1.1


@pytest.mark.exercise("svd.randomized_svd")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_rank_gives_the_matrix_back(dtype: type):
    a = np.random.default_rng(0).standard_normal((7, 5)).astype(dtype)
    u, s, vt = randomized_svd(a, 5)
    assert u.dtype == s.dtype == vt.dtype == dtype
    np.testing.assert_allclose((u * s) @ vt, a, atol=1e-5 if dtype == np.float32 else 1e-12)
    one = randomized_svd(np.array([[-3.0]], dtype), 1)
    assert one[1] == pytest.approx([3])
    assert (one[0] * one[2]).item() == pytest.approx(-1)


@pytest.mark.exercise("svd.randomized_svd")
@pytest.mark.parametrize("power_iterations", [0, 1, 2])
@pytest.mark.parametrize("shape", [(200, 120), (120, 200)])
def test_the_seed_decides(shape: tuple[int, int], power_iterations: int):
    """After power iterations too: what no longer depends on it is no sketch, but a whole SVD."""
    a = matrix(SPECTRA["slow"], *shape)
    first, again, other = (randomized_svd(a, 5, 2, power_iterations, seed)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-6


@pytest.mark.exercise("svd.randomized_svd")
def test_the_defaults_are_those_of_the_signature_and_the_global_generator_is_left_alone():
    a = matrix(SPECTRA["slow"])
    np.random.seed(5)  # noqa: NPY002 - what must not be drawn from
    default = randomized_svd(a, 5)
    drawn = np.random.random()  # noqa: NPY002
    assert drawn == np.random.RandomState(5).random_sample()
    for ours, stated in zip(default, randomized_svd(a, 5, 10, 4, 0), strict=True):
        np.testing.assert_array_equal(ours, stated)


@pytest.mark.exercise("svd.randomized_svd")
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rank": 0}, "below 1"),
        ({"rank": -1}, "below 1"),
        ({"rank": 6}, "above min(M, N)"),
        ({"rank": 1, "oversampling": -1}, "no column is left"),
        ({"rank": 3, "oversampling": -1}, "fewer columns than triplets"),
        ({"rank": 2, "power_iterations": -1}, "no number of times"),
    ],
)
def test_arguments_that_cannot_be_are_refused(options: dict[str, int], why: str):
    a = np.random.default_rng(0).standard_normal((8, 5))
    with pytest.raises(ValueError):
        randomized_svd(a, **options)
    assert randomized_svd(a, 5, 0, 0)[1].shape == (5,), why


@pytest.mark.exercise("svd.randomized_svd")
@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_rank_above_the_matrixs_own_is_refused_and_its_own_is_not(
    shape: tuple[int, int], dtype: type
):
    a = matrix([3.0, 2.0, 1.0], *shape).astype(dtype)
    np.testing.assert_allclose(randomized_svd(a, 3)[1], [3, 2, 1], rtol=1e-5)
    with pytest.raises(ValueError):
        randomized_svd(a, 4)
    for bad in (np.zeros((6, 6)), np.full((3, 3), np.nan), np.zeros((0, 4)), np.ones(4)):
        with pytest.raises(ValueError):
            randomized_svd(bad, 1)


@pytest.mark.exercise("svd.randomized_svd")
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("size", [1.0, 1e200, 1e-200])
def test_a_row_and_a_column_of_any_size(shape: tuple[int, int], size: float):
    a = size * np.random.default_rng(0).standard_normal(shape)
    u, s, vt = randomized_svd(a, 1)
    assert (u.shape, s.shape, vt.shape) == ((shape[0], 1), (1,), (1, shape[1]))
    np.testing.assert_allclose((u * s) @ vt / size, a / size, rtol=1e-12)


@pytest.mark.parametrize("rank", [0, -1, 6, 100, 2.5])
def test_a_rank_above_the_shapes_is_refused(rank: Any):
    with pytest.raises(ValueError, match=r"number from 1 to 5 for a matrix of shape \(8, 5\)"):
        randomized_svd(np.ones((8, 5)), rank)


@pytest.mark.parametrize(
    ("a", "true"),
    [
        (matrix([3.0, 2.0, 1.0]), 3),
        (np.zeros((6, 6)), 0),
        (np.ones((9, 6)), 1),
        (np.column_stack([np.eye(6), np.eye(6)[:, 0], np.zeros(6)])[:5], 5),
        (scipy.linalg.hilbert(30), None),
    ],
    ids=["rank 3", "zero", "one", "columns twice and zero", "Hilbert"],
)
def test_a_rank_above_the_matrixs_is_refused(a: np.ndarray, true: int | None):
    if true is None:
        true = int(np.linalg.matrix_rank(a))
    if true + 2 <= min(a.shape):
        with pytest.raises(ValueError, match=r"the matrix has rank .* ask for at most"):
            randomized_svd(a, true + 2)
    if true >= 1:
        u, s, vt = randomized_svd(a, max(1, true - 1))
        expected = np.linalg.svd(a, compute_uv=False)[: len(s)]
        np.testing.assert_allclose(s, expected, rtol=1e-3, atol=1e-14)
        assert all(np.isfinite(part).all() for part in (u, s, vt))


def test_bad_input_is_refused():
    a = np.ones((4, 4))
    a[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"a\[2, 1\] is nan"):
        randomized_svd(a, 1)
    with pytest.raises(ValueError, match="at least one of each"):
        randomized_svd(np.zeros((0, 4)), 1)
    with pytest.raises(ValueError, match="must be 0 or more, got -1 and 4"):
        randomized_svd(np.eye(3), 1, oversampling=-1)


def test_approximation_error_is_the_norm_of_the_rest():
    a = matrix([4.0, 3.0, 2.0])
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    errors = approximation_error(a, u[:, :1], s[:1], vt[:1])
    np.testing.assert_allclose(errors, [3, 13**0.5], rtol=1e-12)
    for size in (1e200, 1e-200):  # squares overflow, or vanish
        errors = approximation_error(a * size, u[:, :1], s[:1] * size, vt[:1])
        np.testing.assert_allclose(np.array(errors) / size, [3, 13**0.5], rtol=1e-12)
    assert approximation_error(np.zeros((2, 3)), u[:2, :1], s[:1] * 0, vt[:1, :3]) == (0, 0)
