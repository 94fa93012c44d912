"""Frechet distance against closed forms and SciPy's general matrix square root."""

import numpy as np
import pytest
import scipy.linalg

from labkit.learning.metrics import frechet_distance, gaussian_statistics


def random_covariance(rng: np.random.Generator, d: int, rank: int) -> np.ndarray:
    a = rng.normal(size=(d, rank))
    return a @ a.T


@pytest.mark.parametrize("rank", [3, 8, 20])
def test_against_matrix_square_root(rank: int) -> None:
    rng = np.random.default_rng(rank)
    m1, m2 = rng.normal(size=(2, 8))
    c1, c2 = random_covariance(rng, 8, rank), random_covariance(rng, 8, 20)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-6)


def test_closed_form_in_one_dimension() -> None:
    """Between N(a, s^2) and N(b, t^2) it is (a - b)^2 + (s - t)^2."""
    value = frechet_distance(
        np.array([1.0]), np.array([[4.0]]), np.array([-2.0]), np.array([[9.0]])
    )
    assert value == pytest.approx(9 + 1)


def test_of_a_set_with_itself_is_zero_and_shift_adds_its_square() -> None:
    x = np.random.default_rng(0).normal(size=(500, 6)) @ np.diag([1, 2, 3, 0.1, 5, 0])
    mean, cov = gaussian_statistics(x)
    assert frechet_distance(mean, cov, mean, cov) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(mean + 2, cov, mean, cov) == pytest.approx(6 * 4)
    np.testing.assert_allclose(cov, np.cov(x.T))


def test_bad_shape() -> None:
    with pytest.raises(ValueError, match=r"\(N, D\)"):
        gaussian_statistics(np.zeros(5))
