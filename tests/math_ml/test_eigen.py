"""Power iteration and Lanczos against numpy and ARPACK; ghosts; non-convergence; bad input."""

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from scipy.sparse.linalg import eigsh

from math_ml import eigen
from math_ml.checks import ConvergenceWarning
from math_ml.operators import column_norms, norm


def symmetric(values: Any, seed: int = 0) -> np.ndarray:
    """A matrix with these eigenvalues and random eigenvectors."""
    size = len(values)
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    a = (q * np.asarray(values)) @ q.T
    return (a + a.T) / 2


def start(size: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size)


@pytest.mark.exercise("eigen.power_iteration")
@pytest.mark.parametrize(
    "values", [[1, 2, 3, 5], [-7, 1, 2, 6], [3e9, 1e9, 2], [1e-9, 3e-10], [2], [-2], [5, 5, 1]]
)
def test_power_iteration_finds_the_largest_in_size(values: list[float]):
    a = symmetric(values)
    b = start(len(a))
    kept = b.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, v, steps = eigen.power_iteration(a, b, tol=1e-9)
    expected = max(values, key=abs)
    assert value == pytest.approx(expected, rel=1e-12)
    assert np.linalg.norm(v) == pytest.approx(1, rel=1e-12)
    assert np.linalg.norm(a @ v - value * v) <= 1.01e-9 * abs(value)
    assert steps < 500
    np.testing.assert_array_equal(b, kept, "start must not be changed")


@pytest.mark.exercise("eigen.power_iteration")
def test_power_iteration_stops_as_soon_as_its_rule_is_met():
    """Eigenvalues 2 and 1: the residual after n products is known in closed form."""
    count = 0

    def apply(v: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return v * np.array([2.0, 1.0])

    value, v, steps = eigen.power_iteration(apply, np.array([1.0, 1.0]), tol=1e-3)
    # v is proportional to (1, t), t = 2^-(n-1): λ = (2 + t²)/(1 + t²), residual t/(1 + t²)
    t = 0.5 ** np.arange(30)
    expected = 1 + int(np.argmax(t / (2 + t**2) <= 1e-3))
    assert steps == count == expected
    t_end = 0.5 ** (expected - 1)
    assert value == pytest.approx((2 + t_end**2) / (1 + t_end**2), rel=1e-14)
    np.testing.assert_allclose(v[1] / v[0], t_end, rtol=1e-12)


@pytest.mark.exercise("eigen.power_iteration")
@pytest.mark.parametrize("values", [[3, -3, 1], [1.0, 0.9999, 0.5]])
def test_power_iteration_says_that_it_did_not_converge(values: list[float]):
    a, count = symmetric(values), 0

    def apply(v: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return a @ v

    with pytest.warns(ConvergenceWarning, match="50") as caught:
        value, v, steps = eigen.power_iteration(apply, start(3), max_steps=50)
    assert len(caught) == 1
    assert steps == count == 50
    assert value == pytest.approx(v @ a @ v, rel=1e-12), "λ must be that of the v returned"
    assert np.linalg.norm(v) == pytest.approx(1)
    expected = np.linalg.matrix_power(a, 49) @ start(3)  # the 50th product only judges
    np.testing.assert_allclose(v, expected / np.linalg.norm(expected), atol=1e-9)


@pytest.mark.exercise("eigen.power_iteration")
def test_power_iteration_of_a_single_product():
    with pytest.warns(ConvergenceWarning, match="1"):
        value, v, steps = eigen.power_iteration(np.diag([3.0, 1.0]), np.ones(2), max_steps=1)
    assert (value, steps) == (pytest.approx(2), 1)
    np.testing.assert_allclose(v, [0.5**0.5] * 2)


@pytest.mark.exercise("eigen.power_iteration")
def test_power_iteration_takes_1e_8_and_ten_thousand_steps_by_default():
    """Eigenvalues 2 and 1, where the residual halves in each step; and 1 and -1, where it stays."""
    t = 0.5 ** np.arange(60)
    _, _, steps = eigen.power_iteration(np.diag([2.0, 1.0]), np.ones(2))
    assert steps == 1 + int(np.argmax(t / (2 + t**2) <= 1e-8))
    with pytest.warns(ConvergenceWarning, match="10000"):
        _, _, steps = eigen.power_iteration(np.diag([1.0, -1.0]), np.array([2.0, 1.0]))
    assert steps == 10_000


@pytest.mark.exercise("eigen.power_iteration")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e200, 1e-200])
@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_power_iteration_of_numbers_whose_squares_overflow_or_vanish(size: float, scale: float):
    """A norm of infinity makes v 0, and 0 is always converged; so is a residual of 0."""
    a = symmetric([-7, 1, 2, 6])
    expected = eigen.power_iteration(a, start(4))
    value, v, steps = eigen.power_iteration(a * size, start(4) * scale)
    assert value / size == pytest.approx(-7, rel=1e-12)
    assert steps == expected[2]
    np.testing.assert_allclose(v, expected[1], atol=1e-12)


@pytest.mark.exercise("eigen.power_iteration")
def test_power_iteration_without_a_tolerance_stops_where_nothing_is_left():
    """‖w - λv‖ = 0 is at most tol |λ| = 0. An operator may hand back the vector that it got."""
    for a in (np.eye(3), lambda v: v):
        value, v, steps = eigen.power_iteration(a, np.array([0.0, -2.0, 0.0]), tol=0.0)
        assert (value, steps) == (1, 1)
        np.testing.assert_array_equal(v, [0, -1, 0])
    value, _, _ = eigen.power_iteration(np.eye(2, dtype=np.float32), np.array([0, 2], np.float32))
    assert isinstance(value, float)


@pytest.mark.exercise("eigen.power_iteration")
@pytest.mark.parametrize("b", [np.zeros(2), np.array([1.0, np.inf]), np.array([np.nan, 1.0])])
def test_power_iteration_refuses_a_start_without_a_direction(b: np.ndarray):
    with pytest.raises(ValueError):
        eigen.power_iteration(np.eye(2), b)
    for steps in (0, -1):
        with pytest.raises(ValueError):
            eigen.power_iteration(np.eye(2), np.ones(2), max_steps=steps)


@pytest.mark.exercise("eigen.power_iteration")
def test_power_iteration_of_zero_is_zero_at_once():
    value, v, steps = eigen.power_iteration(np.zeros((3, 3)), np.array([0.0, 3.0, 4.0]))
    assert (value, steps) == (0, 1)
    np.testing.assert_allclose(v, [0, 0.6, 0.8])


@pytest.mark.exercise("eigen.lanczos")
@pytest.mark.parametrize("reorthonormalise", [True, False])
def test_lanczos_makes_a_tridiagonal(reorthonormalise: bool):
    """A Q = Q T + β q eᵀ, QᵀQ = I and QᵀAQ = T; Krylov's own basis by QR spans the same."""
    a, b = symmetric(np.linspace(-3, 8, 40)), start(40)
    kept = b.copy()
    alpha, beta, q = eigen.lanczos(a, b, 6, reorthonormalise)
    assert (alpha.shape, beta.shape, q.shape) == ((6,), (6,), (40, 6))
    t = np.diag(alpha) + np.diag(beta[:5], 1) + np.diag(beta[:5], -1)
    np.testing.assert_allclose(q.T @ q, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(q.T @ a @ q, t, atol=1e-11)
    left = a @ q - q @ t
    np.testing.assert_allclose(left[:, :5], 0, atol=1e-12)
    assert np.linalg.norm(left[:, 5]) == pytest.approx(beta[5], rel=1e-10)
    krylov = np.column_stack([np.linalg.matrix_power(a, k) @ b for k in range(6)])
    expected, r = np.linalg.qr(krylov)
    np.testing.assert_allclose(q, expected * np.sign(r.diagonal()), atol=1e-9)
    np.testing.assert_array_equal(b, kept, "start must not be changed")


@pytest.mark.exercise("eigen.lanczos")
def test_lanczos_to_the_end_has_all_eigenvalues():
    """Where rounding would be at its worst: one eigenvalue far out is found at once."""
    values = np.append(np.linspace(0, 1, 59), 1000.0)
    alpha, beta, q = eigen.lanczos(symmetric(values), start(60), 60)
    found = scipy.linalg.eigh_tridiagonal(alpha, beta[: len(alpha) - 1], eigvals_only=True)
    np.testing.assert_allclose(found, values, atol=1e-10)
    np.testing.assert_allclose(q.T @ q, np.eye(60), atol=1e-13)


@pytest.mark.exercise("eigen.lanczos")
def test_without_reorthonormalisation_ghosts_appear():
    """Paige: orthogonality goes as soon as an eigenvalue converges, and then copies of it come."""
    values = np.append(np.linspace(0, 1, 59), 1000.0)
    a, b = symmetric(values), start(60)
    alpha, beta, q = eigen.lanczos(a, b, 60, reorthonormalise=False)
    found = scipy.linalg.eigh_tridiagonal(alpha, beta[:-1], eigvals_only=True)
    assert np.abs(q.T @ q - np.eye(60)).max() > 0.5
    assert (np.abs(found - 1000) < 1e-6).sum() > 1
    assert eigen.ghosts(found, 1e-9) >= 1
    assert eigen.ghosts(values, 1e-9) == 0


@pytest.mark.exercise("eigen.lanczos")
@pytest.mark.parametrize(
    ("a", "b", "steps"),
    [
        (np.diag([2.0, 2, 2, 5, 5]), np.ones(5), 2),  # two different eigenvalues
        (np.eye(4), np.arange(4.0), 1),
        (np.diag([1.0, 2, 3, 4]), np.array([1.0, 0, 1, 0]), 2),  # an invariant subspace
        (np.array([[7.0]]), np.array([2.0]), 1),
        (np.zeros((3, 3)), np.ones(3), 1),
    ],
)
def test_lanczos_stops_at_an_invariant_subspace(a: np.ndarray, b: np.ndarray, steps: int):
    alpha, beta, q = eigen.lanczos(a, b, len(b))
    assert (len(alpha), len(beta), q.shape) == (steps, steps, (len(b), steps))
    assert beta[-1] <= 1e-14 * max(1.0, np.abs(a).max())
    found = scipy.linalg.eigh_tridiagonal(alpha, beta[:-1], eigvals_only=True)
    true = np.linalg.eigvalsh(a)
    assert all(np.abs(true - value).min() < 1e-13 for value in found)


@pytest.mark.exercise("eigen.lanczos")
def test_lanczos_stops_by_the_rounding_of_its_dtype():
    """Thirds: what is left of two eigenspaces is 1e-7 in float32, and must not become a third."""
    a = np.diag([2.0, 2, 2, 5, 5]).astype(np.float32) * np.float32(1 / 3)
    b = np.array([1, 0.3, 0.7, 0.2, 0.9], np.float32)
    alpha, beta, q = eigen.lanczos(a, b, 5)
    assert (len(alpha), len(beta), q.shape) == (2, 2, (5, 2))
    assert alpha.dtype == beta.dtype == q.dtype == np.float32


@pytest.mark.exercise("eigen.lanczos")
@pytest.mark.parametrize(
    ("alpha", "beta"),
    [([1 - 2.0**33, 1, 1, 1], [1.0, 0, 1]), ([2.0, 1, 1, 1], [2.0**33 - 2, 0, 1])],
    ids=["|alpha|", "beta"],
)
@pytest.mark.parametrize("size", [1.0, 2.0**80, 2.0**-80])
def test_lanczos_stops_exactly_at_its_rule(alpha: list[float], beta: list[float], size: float):
    """From e₁ on a tridiagonal matrix Lanczos finds the matrix itself, without a rounding error.

    s = |α₀| + β₀ = 2³³ from the first step on, and D eps s = 4 · 2⁻⁵² · 2³³ = 2⁻¹⁷: β₁ is put at
    that, and then just above it.
    """
    for second, expected in ((2.0**-17, 2), (1.5 * 2.0**-17, 4)):
        beta[1] = second
        a = size * (np.diag(alpha) + np.diag(beta, 1) + np.diag(beta, -1))
        found, left, q = eigen.lanczos(a, np.array([3.0, 0, 0, 0]), 4)
        assert len(found) == len(left) == q.shape[1] == expected
        np.testing.assert_allclose(found / size, alpha[:expected], rtol=1e-15)
        np.testing.assert_allclose(left[: min(expected, 3)] / size, beta[:expected], rtol=1e-15)
        np.testing.assert_array_equal(np.abs(q), np.eye(4)[:, :expected])


@pytest.mark.exercise("eigen.lanczos")
@pytest.mark.parametrize("size", [1e200, 1e-200])
@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_lanczos_of_numbers_whose_squares_overflow_or_vanish(size: float, scale: float):
    a, b = symmetric(np.linspace(-3, 8, 40)), start(40)
    expected = eigen.lanczos(a, b, 6)
    alpha, beta, q = eigen.lanczos(a * size, b * scale, 6)
    for ours, theirs in ((alpha / size, expected[0]), (beta / size, expected[1]), (q, expected[2])):
        np.testing.assert_allclose(ours, theirs, atol=1e-11)


@pytest.mark.exercise("eigen.lanczos")
def test_lanczos_may_go_on_beyond_the_size_where_it_does_not_reorthonormalise():
    """Rounding never leaves exactly nothing of a random start; and the identity's own vector may
    come back from its operator.
    """
    a = symmetric(np.append(np.linspace(0, 1, 19), 1000.0))
    alpha, beta, q = eigen.lanczos(a, start(20), 30, reorthonormalise=False)
    assert (len(alpha), len(beta), q.shape) == (30, 30, (20, 30))
    np.testing.assert_allclose(np.linalg.norm(q, axis=0), 1, rtol=1e-12)
    alpha, beta, q = eigen.lanczos(lambda v: v, np.array([0.0, 3, 4]), 3)
    np.testing.assert_allclose(alpha, [1])
    np.testing.assert_allclose(q, [[0], [0.6], [0.8]])


@pytest.mark.exercise("eigen.lanczos")
def test_lanczos_stays_orthogonal_where_the_start_is_nearly_an_eigenvector():
    """w is then hardly more than the rounding error of A q, and most of that lies along the q's."""
    a = symmetric(np.append(np.linspace(0, 1e-9, 29), 1.0))
    _, vectors = np.linalg.eigh(a)
    b = vectors[:, -1] + 1e-7 * start(30)
    _, _, q = eigen.lanczos(a, b, 30)
    np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=1e-14)


@pytest.mark.exercise("eigen.lanczos")
@pytest.mark.parametrize("b", [np.zeros(2), np.array([1.0, np.inf]), np.array([np.nan, 1.0])])
def test_lanczos_refuses_a_start_without_a_direction_and_impossible_steps(b: np.ndarray):
    with pytest.raises(ValueError):
        eigen.lanczos(np.eye(2), b, 1)
    for steps, reorthonormalise in ((3, True), (0, True), (-1, True), (0, False), (-1, False)):
        with pytest.raises(ValueError):
            eigen.lanczos(np.diag([1.0, 2.0]), np.ones(2), steps, reorthonormalise)


@pytest.mark.exercise("eigen.lanczos")
def test_lanczos_keeps_float32_and_takes_functions():
    a = symmetric(np.linspace(1, 2, 30)).astype(np.float32)
    alpha, beta, q = eigen.lanczos(lambda v: a @ v, start(30).astype(np.float32), 20)
    assert alpha.dtype == beta.dtype == q.dtype == np.float32
    np.testing.assert_allclose(q.T @ q, np.eye(20), atol=1e-5)


def test_largest_eigenpairs_are_arpacks():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 200)) * np.geomspace(1, 0.01, 200)
    a = x.T @ x
    values, vectors = eigen.largest_eigenpairs(a, start(200), 5, steps=60)
    expected, expected_vectors = eigsh(a, 5, which="LA")
    np.testing.assert_allclose(values, expected[::-1], rtol=1e-10)
    overlap = np.abs((vectors * expected_vectors[:, ::-1]).sum(axis=0))
    np.testing.assert_allclose(overlap, 1, atol=1e-10)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-12)
    everything, _ = eigen.largest_eigenpairs(a[:5, :5], start(5), 5)
    np.testing.assert_allclose(everything, np.linalg.eigvalsh(a[:5, :5])[::-1], rtol=1e-10)


def test_ritz_bounds_are_the_residuals():
    a = symmetric(np.linspace(0, 1, 50))
    ritz = eigen.ritz_pairs(*eigen.lanczos(a, start(50), 12))
    residuals = np.linalg.norm(a @ ritz.vectors - ritz.vectors * ritz.values, axis=0)
    np.testing.assert_allclose(ritz.bounds, residuals, atol=1e-13)
    true = np.linalg.eigvalsh(a)
    distances = np.abs(ritz.values[:, None] - true).min(axis=1)
    assert (distances <= ritz.bounds + 1e-13).all()


def test_too_few_steps_and_repeated_eigenvalues_are_told():
    with pytest.warns(ConvergenceWarning, match="take more than 10 steps"):
        eigen.largest_eigenpairs(symmetric(np.linspace(0, 1, 200)), start(200), 5, steps=10)
    with pytest.raises(ValueError, match="start reaches 1 eigenvectors, fewer than 3"):
        eigen.largest_eigenpairs(np.eye(6), start(6), 3)
    with pytest.raises(ValueError, match="count must be from 1 to 6, the size of a, got 7"):
        eigen.largest_eigenpairs(np.eye(6), start(6), 7)


def test_rayleigh_quotient():
    a = symmetric([1.0, 4.0])
    values, vectors = np.linalg.eigh(a)
    assert eigen.rayleigh_quotient(a, 7 * vectors[:, 1]) == pytest.approx(4)
    assert eigen.rayleigh_quotient(a, vectors.sum(axis=1)) == pytest.approx(values.mean())
    for size in (1e200, 1e-200):  # squares overflow, or vanish
        assert eigen.rayleigh_quotient(a, size * vectors[:, 1]) == pytest.approx(4)
    with pytest.raises(ValueError, match="v is 0 and has no direction"):
        eigen.rayleigh_quotient(a, np.zeros(2))


def test_a_product_that_overflows_is_told():
    """inf - inf would be a NaN for as many steps as are allowed."""
    with (
        np.errstate(over="ignore"),
        pytest.raises(ValueError, match=r"a\(v\)\[0\] is inf: every entry must be finite"),
    ):
        eigen.power_iteration(np.full((2, 2), 1.7e308), np.ones(2))


def test_norm_is_numpys_where_squares_do_not_overflow_or_vanish():
    x = start(12).reshape(3, 4)
    for size in (1.0, 1e200, 1e-200):
        expected = np.linalg.norm(x, axis=0)
        np.testing.assert_allclose(column_norms(size * x) / size, expected, rtol=1e-14)
        assert norm(size * x[0]) / size == pytest.approx(np.linalg.norm(x[0]), rel=1e-14)
    for number in (1e-40, 1e-30, 3e38):
        assert norm(np.full(4, number, np.float32)) == pytest.approx(2 * number, rel=1e-4)
    assert column_norms(np.full((4, 1), 1e-30, np.float32)).dtype == np.float32
    assert norm(np.zeros(3)) == 0
    assert norm(np.array([1.0, np.inf])) == np.inf
    assert np.isnan(norm(np.array([1.0, np.nan])))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), np.ones(2), r"a\[0, 1\] is nan"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), np.ones(2), "must be symmetric"),
        (np.eye(3), np.ones(2), r"a has shape \(3, 3\), but the vector has 2"),
        (np.eye(2), np.zeros(2), "start is 0 and has no direction"),
        (np.eye(2), np.array([1.0, np.inf]), r"start\[1\] is inf"),
        (np.zeros((0, 0)), np.zeros(0), "at least one"),
        (lambda v: v * np.nan, np.ones(2), r"a\(v\)\[0\] is nan"),
        (lambda v: v[:1], np.ones(2), r"a\(v\) has 1 numbers, but v has 2"),
    ],
)
def test_bad_input_is_refused(a: Any, b: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        eigen.power_iteration(a, b)
    with pytest.raises(ValueError, match=message):
        eigen.lanczos(a, b, 1)


def test_impossible_numbers_of_steps_are_refused():
    with pytest.raises(ValueError, match="steps must be 1 or more, got 0"):
        eigen.power_iteration(np.eye(2), np.ones(2), max_steps=0)
    with pytest.raises(ValueError, match="from 1 to 2, the size of a, got 3"):
        eigen.lanczos(np.eye(2), np.ones(2), 3)
