"""Conjugate gradient against scipy's iterates and the Chebyshev bound; hard systems; bad input."""

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, cg

from math_ml.checks import ConvergenceWarning
from math_ml.conjugate_gradient import (
    chebyshev_bound,
    conjugate_gradient,
    incomplete_cholesky,
    jacobi,
)


def definite(values: Any, seed: int = 0) -> np.ndarray:
    """A matrix with these eigenvalues and random eigenvectors."""
    size = len(values)
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    a = (q * np.asarray(values)) @ q.T
    return (a + a.T) / 2


def poisson(side: int) -> np.ndarray:
    """The five-point Laplacian on a square grid, (side², side²)."""
    line = 2 * np.eye(side) - np.eye(side, k=1) - np.eye(side, k=-1)
    return np.kron(line, np.eye(side)) + np.kron(np.eye(side), line)


def normal(size: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size)


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
@pytest.mark.parametrize("from_zero", [True, False])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_every_iterate_is_scipys(from_zero: bool, preconditioned: bool):
    """Both forms of a: an array, and a function."""
    a = definite(np.geomspace(1, 300, 50)) + np.diag(np.linspace(0, 1000, 50))
    b, x0 = normal(50), None if from_zero else normal(50, 2)
    diagonal = a.diagonal()
    ours: list[np.ndarray] = []
    theirs: list[np.ndarray] = []
    peer = LinearOperator(a.shape, lambda r: r / diagonal) if preconditioned else None
    expected, info = cg(
        a, b, x0, rtol=1e-9, atol=0, M=peer, callback=lambda x: theirs.append(x.copy())
    )
    assert info == 0
    for form in (a, lambda v: a @ v):
        ours.clear()
        solution = conjugate_gradient(
            form,
            b,
            x0,
            (lambda r: r / diagonal) if preconditioned else None,
            1e-9,
            None,
            ours.append,
        )
        assert solution.converged
        assert len(ours) == len(theirs) == len(solution.residuals) - 1
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(solution.x, expected, atol=1e-10)
        points = [np.zeros(50) if x0 is None else x0, *ours]
        true = [np.linalg.norm(b - a @ x) for x in points]
        np.testing.assert_allclose(solution.residuals, true, rtol=1e-4)
        assert solution.residuals[-1] <= 1e-9 * np.linalg.norm(b) < solution.residuals[-2]


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
@pytest.mark.parametrize("condition", [1.0, 9.0, 1e2, 1e4])
def test_error_stays_below_the_bound(condition: float):
    values = np.linspace(1, condition, 80)
    a, b, points = definite(values), normal(80), [np.zeros(80)]
    conjugate_gradient(a, b, tol=1e-6, callback=points.append)
    errors = np.array(points) - np.linalg.solve(a, b)
    norms = np.sqrt(np.einsum("ni,ij,nj->n", errors, a, errors))
    bounds = [chebyshev_bound(condition, n) for n in range(len(norms))]
    assert (norms <= np.array(bounds) * norms[0] + 1e-12 * norms[0]).all()


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
@pytest.mark.parametrize("different", [1, 2, 4])
def test_as_many_steps_as_different_eigenvalues(different: int):
    a = definite(np.repeat([1.0, 5, 20, 100][:different], 6))
    solution = conjugate_gradient(a, normal(6 * different), tol=1e-9)
    assert len(solution.residuals) - 1 == different


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
def test_right_hand_side_of_zero_and_one_by_one():
    nothing = conjugate_gradient(np.eye(3), np.zeros(3))
    assert nothing.converged
    np.testing.assert_array_equal(nothing.x, np.zeros(3))
    np.testing.assert_array_equal(nothing.residuals, [0])
    one = conjugate_gradient(np.array([[4.0]]), np.array([2.0]))
    np.testing.assert_allclose(one.x, [0.5])
    assert len(one.residuals) == 2


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
def test_float32_is_kept_and_nothing_is_changed():
    a, b = definite(np.linspace(1, 9, 20)).astype(np.float32), normal(20).astype(np.float32)
    x0 = np.ones(20, np.float32)
    kept = a.copy(), b.copy(), x0.copy()
    solution = conjugate_gradient(a, b, x0, tol=1e-5)
    assert solution.x.dtype == np.float32
    np.testing.assert_allclose(solution.x, np.linalg.solve(a, b), atol=1e-4)
    for now, before in zip((a, b, x0), kept, strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
def test_float32_is_kept_without_a_start_and_whole_numbers_become_float64():
    a, b = 2 * np.eye(3, dtype=np.float32), np.ones(3, np.float32)
    assert conjugate_gradient(a, b).x.dtype == np.float32
    assert conjugate_gradient(a, b, precondition=lambda r: r / 2).x.dtype == np.float32
    whole = conjugate_gradient(np.array([[4, 0], [0, 2]]), np.array([1, 1]))
    assert whole.x.dtype == np.float64
    np.testing.assert_allclose(whole.x, [0.25, 0.5], rtol=1e-12)


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
def test_no_step_where_none_is_allowed_or_needed():
    """max_steps = 0 is a number of steps, and not "none given"."""
    a, b, points = np.diag([1.0, 2, 3]), np.ones(3), []
    with pytest.warns(ConvergenceWarning):
        solution = conjugate_gradient(a, b, max_steps=0, callback=points.append)
    assert not solution.converged
    np.testing.assert_array_equal(solution.x, np.zeros(3))
    np.testing.assert_allclose(solution.residuals, [3**0.5])
    x0 = np.array([1, 1 / 2, 1 / 3])
    there = conjugate_gradient(a, b, x0, callback=points.append)
    assert there.converged
    assert len(there.residuals) == 1
    np.testing.assert_array_equal(there.x, x0)
    assert points == [], "callback is called after a step"


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
@pytest.mark.filterwarnings("error")
def test_the_rule_is_on_b_is_met_at_its_limit_and_is_1e_8_by_default():
    """A = I: one step solves it, and none is taken where x0 is near enough."""
    for off, tol, steps in ((0.5, 0.5, 0), (0.5, 0.49, 1), (0.25, 0.5, 0), (0.5, 0.0, 1)):
        solution = conjugate_gradient(np.eye(2), np.array([0, 4.0]), np.array([0, 4 - 4 * off]),
                                      tol=tol)  # fmt: skip
        assert solution.converged is True
        assert len(solution.residuals) - 1 == steps
    for off, steps in ((0.9e-8, 0), (1.5e-8, 1)):
        solution = conjugate_gradient(np.eye(2), np.ones(2), (1 - off) * np.ones(2))
        assert len(solution.residuals) - 1 == steps


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
@pytest.mark.parametrize("size", [2, 3])
def test_ten_steps_for_each_unknown_by_default(size: int):
    """Of an operator that is another one at each call no solution is ever reached."""
    rng = np.random.default_rng(0)
    with pytest.warns(ConvergenceWarning):
        solution = conjugate_gradient(
            lambda v: v * rng.uniform(0.5, 2, size), np.ones(size), np.full(size, 0.5), tol=0.0
        )
    assert len(solution.residuals) - 1 == 10 * size
    assert solution.converged is False


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("dtype", "sizes", "tol"),
    [(np.float64, (1e200, 1e-200), 1e-10), (np.float32, (1e25, 1e-25), 1e-5)],
)
@pytest.mark.parametrize("from_zero", [True, False])
def test_a_right_hand_side_whose_squares_overflow_or_vanish(
    dtype: type, sizes: tuple[float, ...], tol: float, from_zero: bool
):
    """A norm of 0 would be "converged" at x = 0, and one of infinity would make NaN."""
    a, b = definite(np.linspace(1, 9, 20)).astype(dtype), normal(20).astype(dtype)
    start = None if from_zero else normal(20, 2).astype(dtype)
    expected = np.linalg.solve(a, b)
    for size in map(dtype, sizes):
        points: list[np.ndarray] = []
        x0 = None if start is None else start * size
        solution = conjugate_gradient(a, b * size, x0, tol=tol, callback=points.append)
        assert solution.converged
        np.testing.assert_allclose(solution.x / size, expected, atol=20 * tol)
        np.testing.assert_array_equal(points[-1], solution.x)
        first = b if start is None else b - a @ start
        assert solution.residuals[0] / size == pytest.approx(np.linalg.norm(first), rel=1e-5)
        true = np.linalg.norm((b * size - a @ points[0]) / size)
        assert solution.residuals[1] / size == pytest.approx(true, rel=1e-3)
    far = np.array([sizes[0], 1, 0, -3], dtype)  # one entry alone is out of reach
    near = np.diag(np.array([2, 2, 4, 4], dtype))
    solution = conjugate_gradient(near, far, None if from_zero else far / 3, tol=tol)
    np.testing.assert_allclose(solution.x / sizes[0], [0.5, 0, 0, 0], rtol=1e-5, atol=tol)
    for size in map(dtype, sizes):
        solution = conjugate_gradient(a * size, b, tol=tol)
        np.testing.assert_allclose(solution.x * size, expected, atol=20 * tol)


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
def test_a_length_beyond_float32_is_a_float_all_the_same():
    """Four numbers of 3e38: ‖b‖ is 6e38, which float32 calls infinity, and ∞ <= tol ∞."""
    b = np.full(4, 3e38, np.float32)
    solution = conjugate_gradient(2 * np.eye(4, dtype=np.float32), b)
    np.testing.assert_allclose(solution.residuals, [6e38, 0], rtol=1e-6, atol=1e33)
    np.testing.assert_allclose(solution.x, b / 2, rtol=1e-6)


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
@pytest.mark.parametrize("a", [np.diag([1.0, -2.0, 3.0]), -np.eye(3), np.zeros((3, 3))])
def test_a_matrix_that_is_not_positive_definite_is_refused(a: np.ndarray):
    for form in (a, lambda v: a @ v):
        with pytest.raises(ValueError):
            conjugate_gradient(form, np.ones(3))


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
@pytest.mark.parametrize("factor", [-1.0, 0.0, np.nan])
def test_a_preconditioner_that_is_not_positive_definite_is_refused(factor: float):
    with pytest.raises(ValueError):
        conjugate_gradient(np.eye(3), np.ones(3), precondition=lambda r: factor * r)


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
def test_what_is_no_finite_vector_is_refused():
    for bad in (np.float64(3), np.ones(0), np.array([1.0, np.nan]), np.array([np.inf, 1.0])):
        with pytest.raises(ValueError):
            conjugate_gradient(np.eye(2), bad)
        with pytest.raises(ValueError):
            conjugate_gradient(np.eye(2), np.ones(2), bad)


def test_the_refusal_says_which_of_both_is_not_positive_definite():
    with pytest.raises(ValueError, match=r"pᵀ A p is .*: a is not symmetric positive definite"):
        conjugate_gradient(-np.eye(3), np.ones(3))
    with pytest.raises(ValueError, match=r"rᵀ M⁻¹ r is -3, .*: the preconditioner is not"):
        conjugate_gradient(np.eye(3), np.ones(3), precondition=lambda r: -r)
    with pytest.raises(ValueError, match=r"rᵀ M⁻¹ r is inf, and must be above 0 and finite"):
        conjugate_gradient(np.eye(3), np.ones(3), precondition=lambda r: np.inf * r)
    hard = definite(np.geomspace(1, 1e4, 60))
    with pytest.warns(ConvergenceWarning, match="after 5 steps the residual is"):
        conjugate_gradient(hard, normal(60), max_steps=5)


@pytest.mark.exercise("conjugate_gradient.conjugate_gradient")
def test_too_few_steps_are_told():
    a, b = definite(np.geomspace(1, 1e4, 60)), normal(60)
    with pytest.warns(ConvergenceWarning) as caught:
        solution = conjugate_gradient(a, b, max_steps=5)
    assert len(caught) == 1
    assert not solution.converged
    assert len(solution.residuals) == 6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, _ = cg(a, b, rtol=0, atol=0, maxiter=5)
    np.testing.assert_allclose(solution.x, expected, rtol=1e-8, atol=1e-10)


def test_hilberts_matrix_gives_a_small_residual_if_not_the_digits():
    """κ is 1e16: x cannot be had, a residual of 1e-10 can."""
    a = scipy.linalg.hilbert(12)
    b = a @ np.ones(12)
    solution = conjugate_gradient(a, b, tol=1e-10)
    assert solution.converged
    assert np.linalg.norm(b - a @ solution.x) <= 1.1e-10 * np.linalg.norm(b)


def test_preconditioners_save_steps():
    """Columns of unlike units: Jacobi. A grid: incomplete Cholesky."""
    units = np.geomspace(1, 1e3, 40)
    table = definite(np.linspace(1, 4, 40)) * np.outer(units, units)
    plain, scaled = (
        conjugate_gradient(table, normal(40), precondition=m, max_steps=3000)
        for m in (None, jacobi(table))
    )
    assert len(scaled.residuals) < 25 < len(plain.residuals)
    grid = poisson(20)
    plain, better = (
        conjugate_gradient(grid, normal(400), precondition=m)
        for m in (None, incomplete_cholesky(grid))
    )
    assert len(better.residuals) < 0.6 * len(plain.residuals)
    np.testing.assert_allclose(better.x, np.linalg.solve(grid, normal(400)), atol=1e-6)


def test_incomplete_cholesky_is_cholesky_where_nothing_fills_in():
    """A tridiagonal matrix has no fill, so that M = A and one step is enough."""
    a = 2.5 * np.eye(9) - np.eye(9, k=1) - np.eye(9, k=-1)
    solve = incomplete_cholesky(a)
    np.testing.assert_allclose(solve(normal(9)), np.linalg.solve(a, normal(9)), rtol=1e-12)
    assert len(conjugate_gradient(a, normal(9), precondition=solve).residuals) == 2


def test_incomplete_cholesky_agrees_with_a_on_its_pattern():
    """What defines IC(0): (L Lᵀ)_ij = a_ij wherever a_ij is not 0."""
    a = poisson(5)
    inverse = np.column_stack([incomplete_cholesky(a)(e) for e in np.eye(25)])
    m = np.linalg.inv(inverse)
    np.testing.assert_allclose(m[a != 0], a[a != 0], atol=1e-10)
    assert np.abs(m - a).max() > 0.1


def test_preconditioners_refuse_what_is_not_positive_definite():
    with pytest.raises(ValueError, match=r"a\[1, 1\] is -2"):
        jacobi(np.diag([1.0, -2.0]))
    with pytest.raises(ValueError, match="pivot 1 is -3"):
        incomplete_cholesky(np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_bound_in_closed_form():
    assert chebyshev_bound(9.0, 3) == pytest.approx(2 / 8)
    assert chebyshev_bound(1.0, 1) == 0
    assert chebyshev_bound(4.0, 0) == 2
    assert chebyshev_bound(np.inf, 5) == 2


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.array([[1.0, 2.0], [0.0, 1.0]]), np.ones(2), "must be symmetric"),
        (np.full((2, 2), np.nan), np.ones(2), r"a\[0, 0\] is nan"),
        (np.eye(2), np.array([0.0, np.nan]), r"b\[1\] is nan"),
        (lambda v: v * np.nan, np.ones(2), r"a\(v\)\[0\] is nan"),
        (np.eye(3), np.ones(2), r"a has shape \(3, 3\), but the vector has 2"),
        (np.zeros((0, 0)), np.zeros(0), "at least one"),
        (np.ones((2, 3)), np.ones(2), "must be square"),
        (np.eye(2), np.float64(3), r"b must be a vector of at least one number, got shape \(\)"),
    ],
)
def test_bad_input_is_refused(a: Any, b: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        conjugate_gradient(a, b)
