"""Logistic regression against scikit-learn and finite differences; separable data are refused."""

from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from labkit.data import load
from math_ml import checks, logistic, model, model_selection


def table(rows: int = 300, columns: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, columns)) * [1, 2, 0.5, 1] + [0, 1, 0, -2]
    z = x @ [1.5, -0.5, 1.0, 0.0] + 0.7
    return x, (rng.random(rows) < expit(z)).astype(float)


def cancer() -> tuple[np.ndarray, np.ndarray]:
    data = load("breast_cancer")
    return model_selection.Standardizer.fit(data.x_train)(data.x_train), data.y_train


def peer_of(x: np.ndarray, y: np.ndarray, l2: float) -> Any:
    c = 1 / l2 if l2 else np.inf
    return LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(x, y)


@pytest.mark.parametrize("l2", [0.0, 0.1, 1.0, 30.0])
def test_newton_is_scikit_learns(l2: float):
    x, y = table()
    ours, peer = logistic.fit_newton(x, y, l2, tol=1e-14), peer_of(x, y, l2)
    np.testing.assert_allclose(ours.coef, peer.coef_[0], atol=1e-6)
    assert ours.intercept == pytest.approx(peer.intercept_[0], abs=1e-6)
    np.testing.assert_allclose(ours.probability(x), peer.predict_proba(x)[:, 1], atol=1e-6)


def test_newton_is_scikit_learns_on_thirty_correlated_columns():
    x, y = cancer()
    np.testing.assert_allclose(
        logistic.fit_newton(x, y, 1.0, tol=1e-14).coef, peer_of(x, y, 1.0).coef_[0], atol=1e-6
    )


def test_descent_reaches_newtons_optimum_and_never_rises():
    x, y = table()
    slow, fast = logistic.fit_gradient_descent(x, y, 1.0), logistic.fit_newton(x, y, 1.0)
    np.testing.assert_allclose(slow.coef, fast.coef, atol=1e-4)
    assert (np.diff(slow.objective) <= 1e-9).all()
    assert len(slow.objective) > 10 * len(fast.objective)
    np.testing.assert_allclose(slow.objective[0], len(y) * np.log(2))


@pytest.mark.exercise("logistic.newton_direction")
def test_gradient_and_hessian_are_those_of_the_objective():
    """Gradient by central differences of P; the direction by central differences of the gradient.

    The labels are unlike in number, the penalties unlike in size, and the last one is 0.
    """
    x, y = table(50)
    a, theta = np.hstack([x, np.ones((50, 1))]), np.array([0.3, -0.2, 1.1, 0.4, -0.6])
    penalty = np.array([0.5, 2.0, 1.0, 3.0, 0.0])

    def value(t: np.ndarray) -> float:
        z = a @ t
        return float(np.logaddexp(0, z).sum() - y @ z + 0.5 * penalty @ t**2)

    def slope(t: np.ndarray) -> np.ndarray:
        steps = 1e-5 * np.eye(5)
        return np.array([(value(t + e) - value(t - e)) / 2e-5 for e in steps])

    gradient, direction = logistic.newton_direction(a, y, theta, penalty)
    np.testing.assert_allclose(gradient, slope(theta), atol=1e-6)
    hessian = np.array([(slope(theta + e) - slope(theta - e)) / 2e-3 for e in 1e-3 * np.eye(5)])
    np.testing.assert_allclose(hessian @ direction, -gradient, atol=1e-3)


@pytest.mark.exercise("logistic.newton_direction")
def test_steps_of_newton_end_at_scikit_learns_optimum():
    x, y = table()
    a, theta = np.hstack([x, np.ones((len(y), 1))]), np.zeros(5)
    for _ in range(8):
        theta = theta + logistic.newton_direction(a, y, theta, np.array([2.0, 2, 2, 2, 0]))[1]
    peer = peer_of(x, y, 2.0)
    np.testing.assert_allclose(theta, [*peer.coef_[0], *peer.intercept_], atol=1e-7)


@pytest.mark.exercise("logistic.newton_direction")
def test_newton_direction_of_large_logits_is_exact():
    """One row and one weight, no penalty: ∇ = (p - y) a and d = (y - p)/(p (1 - p) a), by scipy's
    p. At z = -200, y = 1 that is e^200: a clipped logit is wrong by many orders.
    """
    for z, label in ((-200.0, 1), (-30.0, 1), (-12.0, 0), (0.0, 1), (12.0, 0), (25.0, 0)):
        a, theta = np.array([[-2.0]]), np.array([-z / 2])
        gradient, direction = logistic.newton_direction(a, np.array([label]), theta, np.zeros(1))
        p = expit(z)
        assert gradient[0] == pytest.approx(-2 * (p - label), rel=1e-12)
        assert direction[0] == pytest.approx((p - label) / (2 * p * (1 - p)), rel=1e-9)


@pytest.mark.exercise("logistic.newton_direction")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_newton_direction_of_any_logits_is_finite_and_changes_nothing():
    a = np.array([[1e4, 1.0], [-1e4, 1.0], [30.0, 1.0]])
    arguments = a, np.array([1.0, 1.0, 0.0]), np.array([2.0, -1.0]), np.array([0.5, 0.25])
    kept = [each.copy() for each in arguments]
    gradient, direction = logistic.newton_direction(*arguments)
    for now, before in zip(arguments, kept, strict=True):
        np.testing.assert_array_equal(now, before)
    p = expit(a @ kept[2])  # 1, 0 and 1 to rounding: H is diag(λ)
    expected = a.T @ (p - kept[1]) + kept[3] * kept[2]
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)
    np.testing.assert_allclose(direction, -expected / kept[3], rtol=1e-9)


@pytest.mark.exercise("logistic.newton_direction")
def test_newton_direction_solves_and_does_not_invert():
    """Columns a millionth apart: the residual is rounding, and far more by an inverse."""
    x, y = table(60, 4)
    near = x[:, 0] + 1e-6 * np.random.default_rng(1).standard_normal(60)
    a, theta = np.column_stack([x, near, np.ones(60)]), np.zeros(6)
    penalty = np.array([1e-9] * 5 + [0.0])
    gradient, direction = logistic.newton_direction(a, y, theta, penalty)
    hessian = a.T @ a / 4 + np.diag(penalty)  # p = 1/2
    size = np.linalg.norm(hessian) * np.linalg.norm(direction) + np.linalg.norm(gradient)
    assert np.linalg.norm(hessian @ direction + gradient) <= 1e-13 * size


@pytest.mark.exercise("logistic.newton_direction")
def test_a_singular_hessian_is_numpys_error():
    """fit_newton makes a sentence of it."""
    a = np.array([[1.0, 0.0], [2.0, 0.0]])
    with pytest.raises(np.linalg.LinAlgError):
        logistic.newton_direction(a, np.array([0.0, 1.0]), np.zeros(2), np.zeros(2))


@pytest.mark.filterwarnings("error")
def test_sigmoid_and_log_loss_are_exact_for_any_logit():
    z = np.array([-1e4, -800.0, -30.0, -1.0, 0.0, 2.0, 40.0, 900.0])
    np.testing.assert_allclose(model.sigmoid(z), expit(z), rtol=1e-14)
    y = np.array([1.0, 1, 0, 0, 1, 0, 1, 0])
    assert logistic.log_loss(z, y) == pytest.approx(
        (1e4 + 800 + 900 + 0.3132617 + 0.6931472 + 2.1269280) / 8
    )
    assert logistic.log_loss(z[2:7], y[2:7]) == pytest.approx(
        log_loss(y[2:7], expit(z[2:7])), rel=1e-9
    )


def test_step_halving_saves_newton_where_the_full_step_overshoots():
    """From 0 on heavy-tailed rows without a penalty, undamped Newton leaves for infinity."""
    x, y = table(columns=4)
    x = np.sign(x) * np.abs(x) ** 4
    ours = logistic.fit_newton(x, y, 1e-3, tol=1e-12)
    assert (np.diff(ours.objective) <= 0).all()
    peer = LogisticRegression(C=1e3, tol=1e-10, max_iter=100_000).fit(x, y)
    a = np.hstack([x, np.ones((len(y), 1))])
    theta = np.array([*peer.coef_[0], *peer.intercept_])
    z = a @ theta
    theirs = np.logaddexp(0, z).sum() - y @ z + 0.5e-3 * theta[:-1] @ theta[:-1]
    assert ours.objective[-1] <= theirs + 1e-6


@pytest.mark.parametrize("fit", [logistic.fit_newton, logistic.fit_gradient_descent])
def test_classes_that_a_plane_parts_need_a_penalty(fit: Any):
    x = np.array([[1.0, 0.0], [2.0, 1.0], [3.0, -1.0], [4.0, 0.5]])
    y = np.array([0.0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"a plane parts the two classes .* set l2 above 0"):
        fit(x, y, 0.0)
    np.testing.assert_allclose(fit(x, y, 1.0).coef, peer_of(x, y, 1.0).coef_[0], atol=1e-4)


def test_a_part_of_the_rows_that_can_be_parted_is_told_of():
    """A column that is 1 for rows of one class alone: its weight has no best value."""
    x, y = table(200, 4)
    flag = np.zeros(200)
    flag[np.flatnonzero(y == 1)[:20]] = 1
    with pytest.warns(checks.SeparationWarning, match="set l2 above 0"):
        logistic.fit_newton(np.column_stack([x, flag]), y, 0.0)


@pytest.mark.parametrize("fit", [logistic.fit_newton, logistic.fit_gradient_descent])
def test_bad_input_is_told_of(fit: Any):
    x, y = table()
    with pytest.raises(ValueError, match=r"labels must be 0 or 1, got \[-1.0, 1.0\]"):
        fit(x, 2 * y - 1)
    with pytest.raises(ValueError, match=r"labels must be 0 or 1, got \[0.0, 1.0, 2.0\]"):
        fit(x, np.arange(len(y)) % 3)
    with pytest.raises(ValueError, match="every label is 1: both classes are needed"):
        fit(x, np.ones(len(y)))
    with pytest.raises(ValueError, match="l2 must be 0 or more, got -1"):
        fit(x, y, -1)
    with pytest.warns(checks.ConvergenceWarning, match="not the optimum"):
        fit(x, y, 1.0, **{("max_steps" if fit is logistic.fit_newton else "steps"): 2})
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"x\[0, 0\] is nan"):
        fit(x, y)


def test_columns_that_depend_on_each_other_are_refused_without_a_penalty_only():
    x, y = table()
    x = np.column_stack([x, np.zeros(len(y))])
    with pytest.raises(ValueError, match="the Hessian is singular"):
        logistic.fit_newton(x, y, 0.0)
    assert logistic.fit_newton(x, y, 1.0).coef[-1] == 0


def test_the_calibration_curve_is_scikit_learns():
    rng = np.random.default_rng(0)
    p = rng.random(500) ** 2
    y = (rng.random(500) < p).astype(float)
    share, mean_p = calibration_curve(y, p, n_bins=10)
    ours = logistic.reliability(y, p)
    np.testing.assert_allclose(ours[0], mean_p)
    np.testing.assert_allclose(ours[1], share)
    assert ours[2].sum() == 500


def test_expected_calibration_error_by_hand():
    p = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 1.0, 0.55])
    y = np.array([0.0, 0, 0, 1, 1, 1, 0, 1])
    # bins: {0.1 x 4: 1/4 true}, {0.55: 1}, {0.9, 0.9, 1.0: 2/3}
    expected = (4 * 0.15 + 1 * 0.45 + 3 * abs(2.8 / 3 - 2 / 3)) / 8
    assert logistic.expected_calibration_error(y, p) == pytest.approx(expected)
    with pytest.raises(ValueError, match="one probability from 0 to 1"):
        logistic.expected_calibration_error(y, p + 0.2)
    with pytest.raises(ValueError, match="for every label, at least one"):
        logistic.expected_calibration_error(y[:0], p[:0])
    with pytest.raises(ValueError, match=r"labels must be 0 or 1, got \[-1.0, 1.0\]"):
        logistic.expected_calibration_error(2 * y - 1, p)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_descent_on_a_table_whose_squares_overflow_says_that_it_did_not_arrive():
    """It used to return zeros: an infinite gradient is no more than a share of infinity."""
    x, y = table()
    with pytest.warns(checks.ConvergenceWarning, match="not the optimum"):
        logistic.fit_gradient_descent(x * 1e200, y, 1.0, steps=3)
