"""Householder QR against LAPACK (numpy and scipy), signs included; hard matrices; bad input."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
from scipy.linalg import lapack

from math_ml import qr


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def graded(rows: int = 30) -> np.ndarray:
    """Columns of lengths from 1e8 down to 1e-8."""
    return normal(rows, 9) * 10.0 ** np.arange(8, -9, -2)


def collinear() -> np.ndarray:
    a = normal(12, 4)
    return np.column_stack([a, a[:, 0] - 2 * a[:, 2]])


def with_zero_column() -> np.ndarray:
    a = normal(8, 4)
    a[:, 1] = 0
    return a


MATRICES = {
    "tall": normal(20, 7),
    "square": normal(9, 9),
    "wide": normal(5, 11),
    "1 x 1": np.array([[-3.0]]),
    "a row": normal(1, 4),
    "a column": normal(6, 1),
    "Hilbert": scipy.linalg.hilbert(12),
    "graded": graded(),
    "zero": np.zeros((4, 3)),
    "triangular already": np.triu(normal(5, 5)),
    "whole numbers": np.arange(12).reshape(4, 3) ** 2,
}


@pytest.mark.exercise("qr.reflector")
@pytest.mark.parametrize("first", [2.0, -2.0, 0.0, 1e-9])
def test_reflector_is_lapacks(first: float):
    x = normal(7)
    x[0] = first
    kept = x.copy()
    v, tau, beta = qr.reflector(x)
    their_beta, their_tail, their_tau = lapack.dlarfg(len(x), x[0], x[1:])
    np.testing.assert_allclose(v, [1, *their_tail], rtol=1e-14)
    assert tau == pytest.approx(their_tau, rel=1e-14)
    assert beta == pytest.approx(their_beta, rel=1e-14)
    np.testing.assert_array_equal(x, kept, "x must not be changed")


@pytest.mark.exercise("qr.reflector")
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_reflector_loses_no_digits_next_to_the_axis(sign: float):
    """x is e₁ and a little: the other sign would subtract 1 from 1."""
    x = np.array([sign, 1e-7, -2e-7, 3e-8])
    v, tau, beta = qr.reflector(x)
    h = np.eye(4) - tau * np.outer(v, v)
    np.testing.assert_allclose(h @ h.T, np.eye(4), atol=1e-15)
    np.testing.assert_allclose(h @ x, [beta, 0, 0, 0], atol=1e-15)


@pytest.mark.exercise("qr.reflector")
@pytest.mark.parametrize("x", [[0.0, 0.0, 0.0], [-5.0, 0.0], [4.0]])
def test_reflector_leaves_what_is_done_alone(x: list[float]):
    v, tau, beta = qr.reflector(np.array(x))
    assert (tau, beta) == (0, x[0])
    np.testing.assert_array_equal(v, np.eye(len(x))[0])


@pytest.mark.exercise("qr.reflector")
@pytest.mark.parametrize("size", [1e200, 1e-200, 1.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_reflector_neither_overflows_nor_vanishes(size: float, dtype: type):
    if dtype == np.float32:
        size **= 0.15  # 1e30 and 1e-30: their squares are beyond float32
    v, tau, beta = qr.reflector(np.array([3, 4], dtype) * dtype(size))
    assert v.dtype == dtype
    assert float(beta) / size == pytest.approx(-5, rel=1e-6)
    np.testing.assert_allclose([v[1], tau], [0.5, 1.6], rtol=1e-6)


@pytest.mark.exercise("qr.reflector")
@pytest.mark.parametrize(
    ("dtype", "sizes"),
    [(np.float64, (1.2e308, 1e-305, 1e154, 1e-154)), (np.float32, (2.3e38, 1e-35, 1e19, 1e-19))],
)
def test_reflector_reaches_as_far_as_its_dtype(dtype: type, sizes: tuple[float, ...]):
    """x₀ - β is beyond the dtype at the largest size, where ‖x‖ = 1.25 |x₀| is still inside."""
    for size in sizes:
        x = np.array([-4, 0, 3], dtype) / 4 * dtype(size)
        v, tau, beta = qr.reflector(x)
        np.testing.assert_allclose(v, [1, 0, -1 / 3], rtol=1e-6)
        assert float(tau) == pytest.approx(1.8, rel=1e-6)
        assert float(beta) / size == pytest.approx(1.25, rel=1e-6)


@pytest.mark.exercise("qr.reflector")
def test_reflector_of_numbers_that_are_all_negative_or_0():
    """The largest |x_i| is not the largest x_i, which is 0 here."""
    v, tau, beta = qr.reflector(np.array([-3.0, 0.0, -4.0]))
    np.testing.assert_allclose(v, [1, 0, 0.5], rtol=1e-15)
    assert (tau, beta) == (pytest.approx(1.6), pytest.approx(5))


@pytest.mark.exercise("qr.reflector")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("tail", [[0.0, 1e-30], [1e-30, 0.0], [0.0, 0.0, -1e-30]])
def test_reflector_of_a_tail_that_is_all_but_0(dtype: type, tail: list[float]):
    """Not 0 is not 0: the reflection is made, and τ is 2 to rounding."""
    x = np.array([3, *tail], dtype)
    v, tau, beta = qr.reflector(x)
    assert v.dtype == dtype
    np.testing.assert_allclose(v[1:], x[1:] / 6, rtol=1e-6)
    assert (float(tau), float(beta)) == pytest.approx((2, -3))


def condition_of_leading_columns(a: np.ndarray) -> np.ndarray:
    """For each column j the condition number of the columns up to j; the last goes on for those of
    a wide matrix. Columns of zeros alone are taken as well conditioned: no rounding occurs there.
    """
    leading = [a[:, : j + 1] for j in range(min(a.shape))]
    known = [np.linalg.cond(part) if part.any() else 1.0 for part in leading]
    return np.array(known + [known[-1]] * (a.shape[1] - len(known)))


@pytest.mark.parametrize("name", MATRICES)
def test_qr_is_numpys_signs_included(name: str):
    """Two backward stable algorithms each give the exact factors of a matrix within m n eps of
    ours, column by column (Higham 2002, theorem 19.4). How far that moves the factors' column j is
    bounded by the condition of the columns up to j, on every processor and with every BLAS.
    """
    a = MATRICES[name]
    rows, columns = a.shape
    size = np.abs(a).max(axis=0) + 1e-300  # the algorithm does not see how columns are scaled
    backward = rows * columns * np.finfo(float).eps
    forward = 4 * backward * condition_of_leading_columns(a / size)
    for mode, theirs in (("reduced", "reduced"), ("full", "complete")):
        q, r = qr.householder_qr(a, mode)  # type: ignore[arg-type]
        expected_q, expected_r = np.linalg.qr(a, theirs)  # type: ignore[call-overload]
        assert q.shape == expected_q.shape
        assert r.shape == expected_r.shape
        np.testing.assert_allclose((q @ r) / size, a / size, atol=backward)
        np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=backward)
        np.testing.assert_array_equal(r, np.triu(r))
        assert (np.abs(r - expected_r) / size <= forward).all()
        # Columns of Q beyond those of A follow from all reflectors.
        bound = np.pad(forward, (0, max(0, rows - columns)), mode="edge")[: q.shape[1]]
        assert (np.abs(q - expected_q) <= bound).all()


@pytest.mark.parametrize("a", [collinear(), with_zero_column()])
def test_q_stays_orthogonal_where_columns_depend_on_each_other(a: np.ndarray):
    q, r = qr.householder_qr(a)
    np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=1e-14)
    np.testing.assert_allclose(q @ r, a, atol=1e-14)


def test_q_is_applied_without_being_formed():
    a, b = normal(9, 4), normal(9, 3, seed=1)
    factors, (q, _) = qr.factor(a), np.linalg.qr(a, "complete")
    for right in (b, b[:, 0]):
        kept = right.copy()
        np.testing.assert_allclose(qr.apply_q(factors, right), q @ right, atol=1e-14)
        np.testing.assert_allclose(qr.apply_qt(factors, right), q.T @ right, atol=1e-14)
        np.testing.assert_array_equal(right, kept)


def test_float32_is_kept():
    a = normal(10, 4).astype(np.float32)
    q, r = qr.householder_qr(a)
    assert q.dtype == r.dtype == np.float32
    np.testing.assert_allclose(q @ r, a, atol=1e-6)
    assert qr.least_squares(a, a[:, 0]).dtype == np.float32


@pytest.mark.parametrize("lower", [False, True])
def test_triangular_solve_is_scipys(lower: bool):
    r = normal(8, 8) + 4 * np.eye(8)  # the other triangle must not be looked at
    for b in (normal(8, seed=1), normal(8, 3, seed=1)):
        kept = b.copy()
        expected = scipy.linalg.solve_triangular(r, b, lower=lower)
        np.testing.assert_allclose(qr.solve_triangular(r, b, lower), expected, rtol=1e-12)
        np.testing.assert_array_equal(b, kept)
    np.testing.assert_allclose(qr.solve_triangular(np.array([[4.0]]), np.array([2])), [0.5])


def test_a_zero_on_the_diagonal_is_named():
    r = np.triu(normal(4, 4))
    r[2, 2] = 0
    with pytest.raises(ValueError, match=r"r\[2, 2\] is 0: column 2"):
        qr.solve_triangular(r, np.ones(4))
    with pytest.raises(ValueError, match=r"r must be square, got shape \(4, 3\)"):
        qr.solve_triangular(r[:, :3], np.ones(4))


@pytest.mark.parametrize("solve", [qr.solve_triangular, qr.least_squares])
def test_bad_right_hand_sides_are_refused(solve: Any):
    with pytest.raises(ValueError, match=r"b\[1\] is nan"):
        solve(np.eye(2), np.array([1.0, np.nan]))
    for b in (np.ones(3), np.float64(3), np.ones((2, 2, 2)), np.ones((2, 0))):
        with pytest.raises(ValueError, match=r"b must be \(2,\) or \(2, P\)"):
            solve(np.eye(2), b)


@pytest.mark.parametrize("name", ["tall", "square", "graded", "a column", "1 x 1"])
def test_least_squares_is_numpys(name: str):
    a = MATRICES[name]
    b = normal(len(a), seed=2)
    scale = np.abs(a).max(axis=0)
    expected = np.linalg.lstsq(a / scale, b, rcond=None)[0]
    np.testing.assert_allclose(qr.least_squares(a, b) * scale, expected, rtol=1e-10)
    both = qr.least_squares(a, np.column_stack([b, 2 * b]))
    np.testing.assert_allclose(both[:, 1] * scale, 2 * expected, rtol=1e-10)


def test_least_squares_keeps_the_digits_that_normal_equations_lose():
    """Läuchli's matrix: cond(a) = 1.4e7, so that aᵀa has hardly a digit left."""
    a = np.array([[1, 1], [1e-7, 0], [0, 1e-7]])
    x = qr.least_squares(a, a @ np.array([1.0, 2.0]))
    np.testing.assert_allclose(x, [1, 2], rtol=1e-8)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_least_squares_of_columns_whose_squares_overflow_or_vanish(size: float):
    """Lengths of 0 or infinity used to call no column, or every one, dependent."""
    a, b = normal(20, 3), normal(20, seed=2)
    np.testing.assert_allclose(
        qr.least_squares(a * size, b) * size, qr.least_squares(a, b), rtol=1e-12
    )
    with pytest.raises(ValueError, match="column 4 follows from the columns before it"):
        qr.least_squares(collinear() * size, np.ones(12))


@pytest.mark.parametrize(
    ("a", "message"),
    [
        (collinear(), "column 4 follows from the columns before it"),
        (with_zero_column(), "column 1 is all 0"),
        (collinear() * [1, 1e-9, 1, 1, 1e12], "column 4 follows"),
        (normal(3, 5), "a has 5 columns and only 3 rows"),
    ],
)
def test_deficient_rank_is_refused_and_the_column_named(a: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        qr.least_squares(a, np.ones(len(a)))


@pytest.mark.parametrize(
    ("a", "message"),
    [
        (np.array([[1.0, 2.0], [3.0, np.nan]]), r"a\[1, 1\] is nan"),
        (np.array([[1.0, -np.inf]]), r"a\[0, 1\] is -inf"),
        (np.zeros((0, 3)), r"at least one of each, got shape \(0, 3\)"),
        (np.ones(3), r"a single column is a\[:, None\]"),
        (1j * np.eye(2), "a must hold real numbers, got complex128"),
        (np.array([["x"]]), "a must hold real numbers"),
    ],
)
def test_bad_matrices_are_refused(a: Any, message: str):
    with pytest.raises(ValueError, match=message):
        qr.householder_qr(a)


def test_another_mode_is_refused():
    with pytest.raises(ValueError, match="'reduced' or 'full', got 'complete'"):
        qr.householder_qr(np.eye(2), "complete")  # type: ignore[arg-type]
