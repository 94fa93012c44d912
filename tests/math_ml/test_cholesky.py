"""Cholesky against numpy and scipy; matrices that are not positive definite are refused."""

import numpy as np
import pytest
import scipy.linalg

from math_ml.cholesky import cholesky, cholesky_solve


def definite(size: int = 8, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((2 * size, size))
    return x.T @ x


@pytest.mark.parametrize(
    "a",
    [definite(), scipy.linalg.hilbert(8), np.array([[9.0]]), np.diag([1e12, 1.0, 1e-12])],
    ids=["random", "Hilbert", "1 x 1", "graded"],
)
def test_factor_and_solution_are_the_libraries(a: np.ndarray):
    kept, lower = a.copy(), cholesky(a)
    np.testing.assert_allclose(lower, np.linalg.cholesky(a), rtol=1e-6, atol=1e-14)
    np.testing.assert_allclose(lower @ lower.T, a, rtol=1e-13, atol=1e-15)
    for b in (np.ones(len(a)), np.eye(len(a))):
        expected = scipy.linalg.cho_solve((lower, True), b)
        np.testing.assert_allclose(cholesky_solve(lower, b), expected, rtol=1e-10, atol=1e-16)
    np.testing.assert_array_equal(a, kept)


def test_it_solves_ridge():
    """(xᵀx + αI) w = xᵀy: the same w as least squares with √α I and zeros put below."""
    x, y = np.random.default_rng(0).standard_normal((20, 30)), np.arange(20.0)
    w = cholesky_solve(cholesky(x.T @ x + 0.3 * np.eye(30)), x.T @ y)
    below = np.vstack([x, 0.3**0.5 * np.eye(30)]), np.append(y, np.zeros(30))
    np.testing.assert_allclose(w, np.linalg.lstsq(*below, rcond=None)[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("a", "message"),
    [
        (np.diag([1.0, -1.0, 1.0]), "pivot of column 1 is -1"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), "pivot of column 1 is -3"),
        (np.zeros((3, 3)), "pivot of column 0 is 0"),
        (np.ones((3, 3)), "pivot of column 1 is 0"),
        (scipy.linalg.hilbert(15), "not positive definite \\(to rounding\\)"),
        (np.array([[1.0, 2.0], [0.0, 5.0]]), r"a\[0, 1\] is 2 and a\[1, 0\] is 0"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), r"a\[0, 1\] is nan"),
        (np.ones((2, 3)), "must be square"),
        (np.ones((0, 0)), "at least one of each"),
    ],
)
def test_other_matrices_are_refused(a: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        cholesky(a)


def test_collinear_columns_are_found_in_spite_of_rounding():
    x = np.random.default_rng(1).standard_normal((50, 5))
    x[:, 4] = x[:, 0] + x[:, 1]
    with pytest.raises(ValueError, match="the pivot of column 4"):
        cholesky(x.T @ x)


def test_a_right_hand_side_with_nan_is_refused():
    with pytest.raises(ValueError, match=r"b\[1\] is nan"):
        cholesky_solve(np.eye(2), np.array([1.0, np.nan]))


def test_float32_is_kept():
    lower = cholesky(definite().astype(np.float32))
    assert lower.dtype == cholesky_solve(lower, np.ones(8, np.float32)).dtype == np.float32
    np.testing.assert_allclose(lower, np.linalg.cholesky(definite()), rtol=1e-4, atol=1e-4)
