"""Least squares and ridge against scikit-learn, scipy and closed forms; bad tables are refused."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from labkit.data import load
from math_ml import checks, linear
from math_ml.model import LinearModel

EXACT = [linear.fit_normal, linear.fit_qr, linear.fit_svd]


def table(rows: int = 60, columns: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Columns of unlike means and sizes, and a target with an intercept and noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns)) * 10.0 ** np.arange(columns) + 7
    y = x @ rng.standard_normal(columns) - 30 + rng.standard_normal(rows)
    return x, y


def agree(model: LinearModel, peer: Any, tolerance: float = 1e-8) -> None:
    np.testing.assert_allclose(model.coef, peer.coef_, rtol=tolerance, atol=tolerance)
    assert model.intercept == pytest.approx(peer.intercept_, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("fit", EXACT)
def test_least_squares_is_scikit_learns(fit: Any):
    for x, y in (table(), (load("diabetes").x_train, load("diabetes").y_train)):
        peer = LinearRegression().fit(x, y)
        agree(fit(x, y), peer)
        np.testing.assert_allclose(fit(x, y).predict(x[:7]), peer.predict(x[:7]))


def test_qr_keeps_digits_that_the_normal_equations_lose():
    """Longley-like: two columns a millionth apart. cond(x)² is then near 1/eps."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal(50)
    x = np.column_stack([a, a + 1e-6 * rng.standard_normal(50)])
    true = np.array([1.0, 2.0])
    error = [float(np.abs(fit(x, x @ true).coef - true).max()) for fit in EXACT]
    assert error[1] < 1e-8
    assert error[2] < 1e-8
    assert error[0] > 100 * error[1]


def test_svd_gives_the_smallest_weights_and_says_so():
    x, y = table(columns=2)
    x = np.column_stack([x, x[:, 0]])  # a column twice
    with pytest.warns(checks.CollinearWarning, match="3 columns have rank 2"):
        model = linear.fit_svd(x, y)
    xc, yc = x - x.mean(axis=0), y - y.mean()
    np.testing.assert_allclose(model.coef, np.linalg.pinv(xc) @ yc, rtol=1e-9)
    assert model.coef[0] == pytest.approx(model.coef[2])


@pytest.mark.parametrize("fit", [linear.fit_normal, linear.fit_qr])
@pytest.mark.parametrize("case", ["twice", "sum", "constant", "few rows"])
def test_columns_that_depend_on_each_other_are_refused(fit: Any, case: str):
    x, y = table()
    if case == "few rows":
        x, y = x[:5], y[:5]
    extra = {"twice": 3 * x[:, 1], "sum": x[:, 0] + x[:, 1], "constant": np.full(len(x), 4.0)}
    if case in extra:
        x = np.column_stack([x, extra[case]])
    with pytest.raises(ValueError, match="leave columns out, take fit_svd"):
        fit(x, y)


@pytest.mark.exercise("linear.ridge")
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4])
def test_ridge_is_scikit_learns(alpha: float):
    for rows, columns in ((60, 5), (8, 20)):
        x, y = table(rows, min(columns, 6))
        if columns > 6:
            x = np.random.default_rng(1).standard_normal((rows, columns)) + 3
        kept = x.copy(), y.copy()
        coef, intercept = linear.ridge(x, y, alpha)
        peer = Ridge(alpha, solver="cholesky" if rows > columns else "svd").fit(x, y)
        np.testing.assert_allclose(coef, peer.coef_, rtol=1e-7, atol=1e-9)
        assert intercept == pytest.approx(peer.intercept_, rel=1e-7)
        assert isinstance(intercept, float)
        np.testing.assert_array_equal(x, kept[0])
        np.testing.assert_array_equal(y, kept[1])


@pytest.mark.exercise("linear.ridge")
def test_a_shifted_target_moves_only_the_intercept():
    """What penalising the intercept would break."""
    x, y = table()
    coef, intercept = linear.ridge(x, y, 50.0)
    shifted, moved = linear.ridge(x, y + 1000, 50.0)
    np.testing.assert_allclose(shifted, coef, rtol=1e-9, atol=1e-9)
    assert moved - intercept == pytest.approx(1000)


@pytest.mark.exercise("linear.ridge")
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 1)])
def test_ridge_of_one_row_and_of_one_column(shape: tuple[int, int]):
    """A single row fixes b alone: what is centred is 0, and so is w."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape), rng.standard_normal(shape[0]) + 2
    coef, intercept = linear.ridge(x, y, 0.5)
    xc, yc = x - x.mean(axis=0), y - y.mean()
    expected = xc.T @ np.linalg.solve(xc @ xc.T + 0.5 * np.eye(len(x)), yc)  # the dual form
    assert coef.shape == expected.shape
    np.testing.assert_allclose(coef, expected, rtol=1e-12, atol=1e-14)
    assert intercept == pytest.approx(y.mean() - x.mean(axis=0) @ expected, rel=1e-12)


@pytest.mark.exercise("linear.ridge")
def test_ridge_takes_the_means_off_before_it_multiplies():
    """xᵀx - N m mᵀ would be the same on paper, and has no digit left where the means are 1e9."""
    x, y = table()
    x = x / x.std(axis=0)
    near, _ = linear.ridge(x - x.mean(axis=0), y, 2.0)
    far, intercept = linear.ridge(x + 1e9, y + 1e9, 2.0)
    np.testing.assert_allclose(far, near, rtol=1e-5)
    assert (x + 1e9)[0] @ far + intercept == pytest.approx(y.mean() + 1e9, abs=1e6)


@pytest.mark.exercise("linear.ridge")
@pytest.mark.parametrize("alpha", [1e-12, 1e-9, 1e-6])
def test_ridge_solves_and_does_not_invert(alpha: float):
    """Columns a millionth apart: the residual of the system is rounding for every stable solution,
    and a million times that for the inverse.
    """
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 3)), rng.standard_normal(40)
    x = np.column_stack([x, x[:, 0] + 1e-6 * rng.standard_normal(40)])
    coef, _ = linear.ridge(x, y, alpha)
    xc, yc = x - x.mean(axis=0), y - y.mean()
    matrix, right = xc.T @ xc + alpha * np.eye(4), xc.T @ yc
    size = np.linalg.norm(matrix) * np.linalg.norm(coef) + np.linalg.norm(right)
    assert np.linalg.norm(matrix @ coef - right) <= 1e-13 * size


def test_ridge_path_and_its_ends():
    x, y = table()
    alphas = np.array([1e3, 1.0, 1e-6])
    for coef, alpha in zip(linear.ridge_path(x, y, alphas), alphas, strict=True):
        np.testing.assert_allclose(coef, Ridge(alpha).fit(x, y).coef_, rtol=1e-6)
    agree(linear.fit_ridge(x, y, 0.0), LinearRegression().fit(x, y))
    with pytest.raises(ValueError, match="alpha must be 0 or more, got -1"):
        linear.fit_ridge(x, y, -1)


def test_gradient_descent_arrives_or_says_that_it_did_not():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 4)) @ rng.standard_normal((4, 4)) + 5
    y = x @ np.array([1.0, -2.0, 0.5, 3.0]) + rng.standard_normal(80)
    agree(linear.fit_gradient_descent(x, y, steps=100_000), LinearRegression().fit(x, y), 1e-6)
    with pytest.warns(checks.ConvergenceWarning, match="after 3 steps"):
        linear.fit_gradient_descent(x, y, steps=3)


def test_gradient_descent_grows_above_two_over_l():
    x, y = table(columns=2)
    x = x / x.std(axis=0)
    near, far = 1.9, 2.1
    with pytest.warns(checks.ConvergenceWarning):
        off = linear.fit_gradient_descent(x, y, steps=300, step_size=far)
    best = LinearRegression().fit(x, y)
    agree(linear.fit_gradient_descent(x, y, 5000, step_size=near), best, 1e-6)
    assert np.abs(off.coef - best.coef_).max() > 1e6


def test_stochastic_descent_comes_near_and_exactly_where_nothing_is_left_over():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3)) + 2
    y = x @ np.array([3.0, -1.0, 0.5]) + 4
    exact = linear.fit_sgd(x, y, epochs=300)
    np.testing.assert_allclose(exact.coef, [3, -1, 0.5], atol=1e-6)
    assert exact.intercept == pytest.approx(4, abs=1e-5)
    noisy = y + rng.standard_normal(400)
    near = linear.fit_sgd(x, noisy, epochs=100)
    np.testing.assert_allclose(near.coef, LinearRegression().fit(x, noisy).coef_, atol=0.02)


@pytest.mark.parametrize(
    "fit",
    [*EXACT, linear.fit_gradient_descent, linear.fit_sgd, lambda x, y: linear.fit_ridge(x, y, 1.0)],
)
def test_bad_tables_are_refused(fit: Any):
    x, y = table()
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"x\[3, 1\] is nan: leave such rows out"):
        fit(x, y)
    x, y = table()
    y[4] = np.inf
    with pytest.raises(ValueError, match=r"y\[4\] is inf"):
        fit(x, y)
    with pytest.raises(ValueError, match="one number for each of the 60 rows"):
        fit(x, y[:-1])
    with pytest.raises(ValueError, match=r"a single column is x\[:, None\]"):
        fit(x[:, 0], y)


def test_a_huge_but_finite_table_is_no_nan():
    """The quick test by the sum overflows here, and must not be the last word."""
    x, y = table(columns=2)
    checks.table(x * 1e306, y)


@pytest.mark.parametrize("size", [1e200, 1e-200])
@pytest.mark.parametrize(
    "fit", [*EXACT, linear.fit_gradient_descent, lambda x, y: linear.fit_sgd(x, y, epochs=20)]
)
def test_columns_whose_squares_overflow_or_vanish_are_fitted_all_the_same(fit: Any, size: float):
    """Descent used to stop at once, at weights of 0, and to say nothing."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3)) + 1
    y = x @ np.array([1.0, -2.0, 0.5]) + 4
    np.testing.assert_allclose(fit(x * size, y).coef * size, fit(x, y).coef, rtol=1e-9)


def test_ridge_path_of_columns_whose_squares_overflow():
    """σ is 1e200 there, so that α counts as nothing: w is that of least squares, and not 0."""
    x, y = table(columns=2)
    expected = LinearRegression().fit(x, y).coef_
    coefs = linear.ridge_path(x * 1e200, y, np.array([0.0, 1.0])) * 1e200
    np.testing.assert_allclose(coefs, [expected, expected], rtol=1e-9)
    twice = np.column_stack([x[:, 0], np.zeros(len(x))])
    assert not linear.ridge_path(twice, y, np.array([0.0, 1.0]))[:, 1].any()


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::math_ml.checks.ConvergenceWarning")
def test_a_fit_that_overflows_says_so_instead_of_returning_nan():
    x, y = table(columns=2)
    with pytest.raises(ValueError, match=r"the weights overflowed: .*divide the columns by"):
        linear.fit_ridge(x * 1e200, y, 1.0)
    with pytest.raises(ValueError, match="descent took too large a step"):
        linear.fit_gradient_descent(x, y, step_size=1e3)
