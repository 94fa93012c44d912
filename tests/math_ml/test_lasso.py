"""The lasso against scikit-learn, its optimality conditions, and brute force."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Lasso
from sklearn.linear_model import lasso_path as sklearn_path

from labkit.data import load
from math_ml import checks, lasso


def table(rho: float = 0.0, rows: int = 200, columns: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Neighbouring columns correlated by rho; six weights that are not 0; an intercept."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, columns))
    for j in range(1, columns):
        x[:, j] = rho * x[:, j - 1] + (1 - rho**2) ** 0.5 * x[:, j]
    y = x[:, :30:5] @ np.array([3.0, -2.0, 1.5, 1.0, -0.7, 0.4]) + 10 + rng.standard_normal(rows)
    return x + 3, y


def objective(x: np.ndarray, y: np.ndarray, fit: lasso.LassoFit, alpha: float) -> float:
    r = y - fit.predict(x)
    return float(r @ r / (2 * len(y)) + alpha * np.abs(fit.coef).sum())


def optimal(x: np.ndarray, y: np.ndarray, fit: lasso.LassoFit, alpha: float, tol: float) -> None:
    """The Karush-Kuhn-Tucker conditions, from the rows themselves."""
    r = y - fit.predict(x)
    g = x.T @ r / len(y)
    support = fit.coef != 0
    assert abs(r.mean()) < tol, "the intercept is not penalised"
    np.testing.assert_allclose(g[support], alpha * np.sign(fit.coef[support]), atol=tol)
    assert (np.abs(g[~support]) <= alpha + tol).all()


@pytest.mark.exercise("lasso.soft_threshold")
def test_soft_threshold():
    z = np.array([[3.0, -3.0, 1.0], [-1.0, 0.4, 0.0]])
    kept = z.copy()
    np.testing.assert_array_equal(lasso.soft_threshold(z, 1.0), [[2, -2, 0], [0, 0, 0]])
    np.testing.assert_array_equal(lasso.soft_threshold(z, 0.0), z)
    np.testing.assert_array_equal(z, kept)


@pytest.mark.exercise("lasso.soft_threshold")
def test_soft_threshold_of_whole_numbers_of_float32_and_of_any_shape():
    whole = lasso.soft_threshold(np.array([3, -3, 1, 0]), 0.5)
    assert whole.dtype == np.float64
    np.testing.assert_array_equal(whole, [2.5, -2.5, 0.5, 0])
    np.testing.assert_array_equal(lasso.soft_threshold(np.array([3, -3, 1]), 0.0), [3, -3, 1])
    assert lasso.soft_threshold(np.array([3.0, -3.0], np.float32), 0.5).dtype == np.float32
    for shape in ((), (0,), (1,), (2, 1, 3)):
        z = np.full(shape, -2.0)
        shrunk = np.asarray(lasso.soft_threshold(z, 0.75))
        assert shrunk.shape == shape
        assert (shrunk == -1.25).all()
        assert (z == -2).all()
    numbers = np.array([np.inf, -np.inf, 1e308, -1e308, 5e-324])
    np.testing.assert_array_equal(
        lasso.soft_threshold(numbers, 1e300), [np.inf, -np.inf, 1e308 - 1e300, 1e300 - 1e308, 0]
    )


@pytest.mark.exercise("lasso.soft_threshold")
def test_soft_threshold_is_the_proximal_map():
    """argmin_u ½(u - z)² + t|u|, by trying a fine grid of u."""
    grid = np.linspace(-4, 4, 80_001)
    for z in (-2.3, -0.5, 0.2, 0.9, 3.1):
        best = grid[np.argmin(0.5 * (grid - z) ** 2 + 0.8 * np.abs(grid))]
        assert lasso.soft_threshold(np.array([z]), 0.8)[0] == pytest.approx(best, abs=1e-4)


def problem(columns: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """G, c and a start; the columns have unlike sizes, and signs both ways."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((40, columns)) * np.arange(1, columns + 1)
    return x.T @ x / 40, x.T @ (x @ rng.standard_normal(columns)) / 40, rng.standard_normal(columns)


@pytest.mark.exercise("lasso.coordinate_sweep")
def test_each_coordinate_goes_to_its_minimum_in_turn():
    """By a search along one axis at a time."""
    from scipy.optimize import minimize_scalar

    gram, c, w = problem()
    alpha, expected = 0.6, w.copy()

    def value(new: float, j: int) -> float:
        v = expected.copy()
        v[j] = new
        return float(0.5 * v @ gram @ v - c @ v + alpha * np.abs(v).sum())

    for j in range(len(w)):
        best = minimize_scalar(value, args=(j,), bounds=(-20, 20), options={"xatol": 1e-12}).x
        expected[j] = 0.0 if value(0.0, j) <= value(best, j) + 1e-12 else best
    g = c - gram @ w
    lasso.coordinate_sweep(w, g, gram, alpha)
    np.testing.assert_allclose(w, expected, atol=1e-5)
    np.testing.assert_allclose(g, c - gram @ w, atol=1e-12)


@pytest.mark.exercise("lasso.coordinate_sweep")
def test_sweeps_end_at_scikit_learns_lasso_with_exact_zeros():
    x, y = table(rho=0.5)
    x, y = x - x.mean(axis=0), y - y.mean()
    gram, c = x.T @ x / len(y), x.T @ y / len(y)
    w, g = np.zeros(x.shape[1]), c.copy()
    for _ in range(300):
        lasso.coordinate_sweep(w, g, gram, 0.2)
    peer = Lasso(0.2, tol=1e-14, max_iter=100_000).fit(x, y)
    np.testing.assert_allclose(w, peer.coef_, atol=1e-7)
    np.testing.assert_array_equal(w == 0, peer.coef_ == 0)


@pytest.mark.exercise("lasso.coordinate_sweep")
def test_a_column_of_zeros_is_left_alone():
    gram, c, w = problem()
    gram[1], gram[:, 1], c[1], w[1] = 0, 0, 0, 0.7
    g = c - gram @ w
    lasso.coordinate_sweep(w, g, gram, 0.1)
    assert w[1] == 0.7
    assert np.isfinite(w).all()


@pytest.mark.exercise("lasso.coordinate_sweep")
def test_only_a_column_of_zeros_is_left_alone_whatever_its_slope():
    """G_jj = 0: the weight stays, though rounding has left a slope there."""
    gram, g = np.diag([0.0, 1e-30, 4.0]), np.array([0.5, 1e-30, 9.0])
    w, kept = np.array([0.7, 0.0, 0.0]), gram.copy()
    assert lasso.coordinate_sweep(w, g, gram, 0.0) is None
    np.testing.assert_allclose(w, [0.7, 1.0, 2.25], rtol=1e-14)
    np.testing.assert_allclose(g, [0.5, 0, 0], atol=1e-45)
    np.testing.assert_array_equal(gram, kept)


@pytest.mark.exercise("lasso.coordinate_sweep")
def test_a_sweep_without_a_price_is_gauss_and_seidels():
    """α = 0: (lower triangle of G) w' = c - (what is above) w; scipy solves it at once."""
    from scipy.linalg import solve_triangular

    gram, c, w = problem(5)
    g = c - gram @ w
    expected = solve_triangular(np.tril(gram), c - np.triu(gram, 1) @ w, lower=True)
    lasso.coordinate_sweep(w, g, gram, 0.0)
    np.testing.assert_allclose(w, expected, rtol=1e-12)
    np.testing.assert_allclose(g, c - gram @ w, atol=1e-12)


@pytest.mark.exercise("lasso.coordinate_sweep")
@pytest.mark.parametrize(
    ("z", "alpha", "expected"),
    [(3.0, 1.0, 1.0), (-3.0, 1.0, -1.0), (1.0, 1.0, 0.0), (-1.0, 1.0, 0.0), (0.5, 1.0, 0.0)],
)
def test_one_coordinate_alone(z: float, alpha: float, expected: float):
    """G = (2): w = S(z, α)/2, an exact 0 where |z| = α, from above and from below, from any start.

    w and g may be views of larger arrays.
    """
    for old in (0.0, 5.0, -5.0):
        both = np.array([old, 9.0, z - 2 * old, 9.0])
        w, g = both[:1], both[2:3]
        lasso.coordinate_sweep(w, g, np.array([[2.0]]), alpha)
        np.testing.assert_array_equal(both, [expected, 9, z - 2 * expected, 9])


@pytest.mark.parametrize("fit", [lasso.fit_lasso, lasso.fit_proximal])
@pytest.mark.parametrize("rho", [0.0, 0.9])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.003])
def test_coefficients_are_scikit_learns(fit: Any, rho: float, share: float):
    x, y = table(rho)
    alpha = share * lasso.alpha_max(x, y)
    peer = Lasso(alpha, tol=1e-13, max_iter=100_000).fit(x, y)
    ours = fit(x, y, alpha, tol=1e-13)
    np.testing.assert_allclose(ours.coef, peer.coef_, atol=1e-6)
    assert ours.intercept == pytest.approx(peer.intercept_, abs=1e-5)
    np.testing.assert_array_equal(ours.coef == 0, peer.coef_ == 0)
    optimal(x, y, ours, alpha, 1e-5)


@pytest.mark.parametrize("mean", [0.0, 8.0, 1e7])
def test_means_far_from_zero_cost_no_digits(mean: float):
    """8 deviations: means are taken off the products; 1e7: off the columns first."""
    x, y = table(0.5)
    alpha = 0.05
    plain = lasso.fit_lasso(x - x.mean(axis=0), y, alpha, tol=1e-13)
    moved = lasso.fit_lasso(x - x.mean(axis=0) + mean, y, alpha, tol=1e-13)
    np.testing.assert_allclose(moved.coef, plain.coef, atol=1e-7)
    assert moved.intercept == pytest.approx(plain.intercept - mean * plain.coef.sum(), rel=1e-7)


def test_ista_arrives_too_but_later():
    x, y = table(0.5)
    fast = lasso.fit_proximal(x, y, 0.1, tol=1e-8)
    slow = lasso.fit_proximal(x, y, 0.1, tol=1e-8, accelerate=False)
    np.testing.assert_allclose(slow.coef, fast.coef, atol=1e-3)
    assert slow.iterations > 2 * fast.iterations


def test_more_columns_than_rows():
    x, y = table(0.3, rows=60, columns=120)
    alpha = 0.1 * lasso.alpha_max(x, y)
    ours = lasso.fit_lasso(x, y, alpha, tol=1e-12)
    peer = Lasso(alpha, tol=1e-12, max_iter=1_000_000).fit(x, y)
    np.testing.assert_allclose(ours.coef, peer.coef_, atol=1e-5)
    optimal(x, y, ours, alpha, 1e-5)


def test_the_path_is_scikit_learns_whatever_the_order_of_its_alphas():
    data = load("diabetes")
    x = data.x_train / data.x_train.std(axis=0)
    y = data.y_train
    alphas = lasso.alpha_max(x, y) * np.array([0.01, 1.0, 0.3, 0.1])
    fits = lasso.lasso_path(x, y, alphas, tol=1e-12)
    theirs, coefs, _ = sklearn_path(
        x - x.mean(axis=0), y - y.mean(), alphas=alphas, tol=1e-12, max_iter=100_000
    )
    for fit, alpha in zip(fits, alphas, strict=True):
        place = int(np.argmin(np.abs(theirs - alpha)))
        np.testing.assert_allclose(fit.coef, coefs[:, place], atol=1e-5)


def test_alpha_max_is_where_the_first_weight_leaves_zero():
    x, y = table()
    top = lasso.alpha_max(x, y)
    assert not lasso.fit_lasso(x, y, top).coef.any()
    assert np.count_nonzero(lasso.fit_lasso(x, y, 0.99 * top, tol=1e-10).coef) == 1


def test_the_gap_bounds_the_distance_from_the_optimum_and_is_scikit_learns():
    x, y = table(0.8)
    alpha = 0.05
    best = lasso.fit_lasso(x, y, alpha, tol=1e-14)
    for tol in (1e-2, 1e-4, 1e-8):
        fit = lasso.fit_lasso(x, y, alpha, tol=tol)
        assert 0 <= objective(x, y, fit, alpha) - objective(x, y, best, alpha) <= fit.gap
        assert fit.gap <= tol * y.var()
    peer = Lasso(alpha, tol=1e-3).fit(x, y)
    xc, yc = x - x.mean(axis=0), y - y.mean()
    g = xc.T @ (yc - xc @ peer.coef_) / len(y)
    gap = lasso.duality_gap(y.var(), peer.coef_, xc.T @ yc / len(y), g, alpha)
    assert gap == pytest.approx(peer.dual_gap_, rel=1e-6)


@pytest.mark.parametrize("fit", [lasso.fit_lasso, lasso.fit_proximal])
def test_bad_input_is_told_of(fit: Any):
    x, y = table()
    for alpha in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="alpha must be above 0, got"):
            fit(x, y, alpha)
    with pytest.raises(ValueError, match="tol must be above 0"):
        fit(x, y, 0.1, tol=0)
    with pytest.raises(ValueError, match=r"x\[0, 0\] is nan"):
        fit(np.full_like(x, np.nan), y, 0.1)
    with pytest.warns(checks.ConvergenceWarning, match="above the .* asked for: raise max_s"):
        fit(*table(0.9), 1e-4, 1e-13, 2)


@pytest.mark.parametrize("fit", [lasso.fit_lasso, lasso.fit_proximal])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("columns", "target"), [(1, 1e170), (1, 1e-170), (1e170, 1), (1e-170, 1)])
def test_numbers_whose_squares_overflow_or_vanish_are_refused(
    fit: Any, columns: float, target: float
):
    """A target of 1e-170 used to get weights of 0 with a gap of 0, and 1e170 a NaN."""
    x, y = table()
    with pytest.raises(ValueError, match="beyond floating point: divide the columns and"):
        fit(x * columns, y * target, 1e-3 * columns * target)


@pytest.mark.parametrize("fit", [lasso.fit_lasso, lasso.fit_proximal])
@pytest.mark.filterwarnings("error")
def test_constant_and_repeated_columns_are_no_harm(fit: Any):
    x, y = table()
    x = np.column_stack([x, np.full(len(x), 2.5), x[:, 0]])
    alpha = 0.1
    model = fit(x, y, alpha, tol=1e-9)
    assert model.coef[-2] == 0
    optimal(x, y, model, alpha, 1e-3)
    flat = fit(x, np.full(len(y), 3.0), alpha)
    assert not flat.coef.any()
    assert flat.intercept == pytest.approx(3)
