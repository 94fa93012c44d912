"""Gradient descent on quadratics: torch's path, closed forms, steps against κ, the figures."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from math_ml import descent_figures
from math_ml import gradient_descent as gd


def valley(condition: float, angle: float = 0.5) -> gd.Quadratic:
    """Two weights, eigenvalues 1 and κ, turned by an angle; minimum at (1, 2)."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    a = turn @ np.diag([1.0, condition]) @ turn.T
    return gd.Quadratic(a, a @ np.array([1.0, 2.0]))


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_path_is_torchs(momentum: float):
    """Heavy ball with a constant rate is torch's SGD with momentum, and autograd's gradient."""
    f, start = valley(10), np.array([4.0, -1.0])
    path = gd.gradient_descent(f, start, 12, 0.05, momentum)
    w = torch.nn.Parameter(torch.tensor(start))
    opt = torch.optim.SGD([w], lr=0.05, momentum=momentum)
    a, b = torch.tensor(f.a), torch.tensor(f.b)
    for point in path:
        np.testing.assert_allclose(point, w.detach(), rtol=1e-12, atol=1e-14)
        loss = 0.5 * w @ a @ w - b @ w
        assert f(point) == pytest.approx(loss.item())
        opt.zero_grad()
        loss.backward()
        opt.step()


def test_least_squares_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 3)) @ np.diag([1, 2, 3]), rng.standard_normal(40)
    f, w = gd.least_squares(x, y), rng.standard_normal(3)
    expected = LinearRegression(fit_intercept=False).fit(x, y).coef_
    np.testing.assert_allclose(f.minimum(), expected, rtol=1e-10)
    loss = 0.5 * np.mean((y - x @ w) ** 2) - 0.5 * np.mean(y**2)
    assert f(w) == pytest.approx(loss)
    np.testing.assert_allclose(f(np.stack([w, expected])), [f(w), f(expected)])
    np.testing.assert_allclose(f.gradient(w), x.T @ (x @ w - y) / 40)
    low, high = gd.extreme_eigenvalues(f.a)
    path = gd.gradient_descent(f, w, 400, *gd.best_rates(low, high))
    np.testing.assert_allclose(path[-1], expected, atol=1e-10)


@pytest.mark.parametrize("condition", [1.0, 7.0, 1e5])
def test_condition_number_is_numpys(condition: float):
    a = valley(condition).a
    assert gd.condition_number(a) == pytest.approx(np.linalg.cond(a), rel=1e-9)


@pytest.mark.parametrize("a", [np.ones((2, 2)), np.diag([1.0, -1.0]), np.zeros((2, 2))])
def test_a_flat_valley_is_refused(a: np.ndarray):
    with pytest.raises(ValueError, match="f has no single minimum; leave out dependent columns"):
        gd.condition_number(a)


def test_best_rates_are_the_best_of_a_search():
    """The slowest of the error's components, from the spectral radius of one step, over a grid."""
    low, high = 1.0, 25.0

    def radius(rate: float, momentum: float) -> float:
        steps = [
            np.array([[1 + momentum - rate * value, -momentum], [1, 0]]) for value in (low, high)
        ]
        return max(float(np.abs(np.linalg.eigvals(step)).max()) for step in steps)

    rate, _ = gd.best_rates(low, high)
    best = min(np.linspace(0.001, 0.08, 2000), key=lambda r: radius(r, 0.0))
    assert rate == pytest.approx(best, rel=1e-3)
    assert radius(rate, 0.0) == pytest.approx(gd.contraction(25), rel=1e-12)
    rate, momentum = gd.best_rates(low, high, "momentum")
    reached = radius(rate, momentum)
    assert reached == pytest.approx(gd.contraction(25, "momentum"), rel=1e-6)
    grid = [(r, m) for r in np.linspace(0.01, 0.15, 60) for m in np.linspace(0, 0.99, 60)]
    assert reached < min(radius(r, m) for r, m in grid) + 1e-3


def test_gradient_descent_zig_zags():
    """At the worst start the path jumps to the other side each step, and loses (κ-1)/(κ+1)."""
    f = valley(10, angle=0)
    low, high = gd.extreme_eigenvalues(f.a)
    path = gd.gradient_descent(
        f, f.minimum() + np.array([10.0, 1.0]), 20, *gd.best_rates(low, high)
    )
    errors = path - f.minimum()
    assert (np.sign(errors[1:, 1]) == -np.sign(errors[:-1, 1])).all()
    assert (np.sign(errors[:, 0]) == 1).all()
    np.testing.assert_allclose(np.abs(errors[1:] / errors[:-1]), 9 / 11, rtol=1e-9)


def test_too_large_a_rate_is_told():
    f = valley(10)
    with pytest.raises(ValueError, match=r"diverged at step \d+: .* below 2 \(1 \+ β\)/L = 0.2"):
        gd.gradient_descent(f, np.zeros(2), 10_000, 0.25)
    inside = gd.gradient_descent(f, np.zeros(2), 2000, 0.199)
    np.testing.assert_allclose(inside[-1], f.minimum(), atol=1e-6)


def test_conjugate_gradient_needs_a_step_for_each_weight():
    f = valley(1000)
    path = gd.conjugate_gradient_path(f, np.array([-3.0, 5.0]))
    assert path.shape == (3, 2)
    np.testing.assert_allclose(path[-1], f.minimum(), atol=1e-8)


@pytest.mark.parametrize("condition", [10.0, 100.0, 1000.0])
def test_steps_measured_are_those_predicted(condition: float):
    """GD's prediction is exact for two eigenvalues, and a bound; CG's bound has a factor 2."""
    ends = np.array([1.0, condition])
    exact = gd.predicted_steps(condition, 1e-6, "gradient descent")
    assert exact == pytest.approx(0.5 * condition * np.log(1e6), rel=0.01)
    assert gd.steps_needed(ends, 1e-6, "gradient descent") == np.ceil(exact)
    values = descent_figures.spectrum(condition)
    assert 0.7 * exact < gd.steps_needed(values, 1e-6, "gradient descent") <= np.ceil(exact)
    quick = gd.predicted_steps(condition, 1e-6, "conjugate gradient")
    bound = gd.predicted_steps(condition, 0.5e-6, "conjugate gradient")
    assert 0.8 * quick < gd.steps_needed(values, 1e-6, "conjugate gradient") <= np.ceil(bound)
    assert quick < gd.steps_needed(values, 1e-6, "momentum") < 1.5 * quick


def test_predictions_for_the_worst_conditions_are_numbers():
    """(κ - 1)/(κ + 1) rounds to 1, whose logarithm is 0, and ∞/∞ is no number."""
    assert gd.contraction(np.inf) == gd.contraction(np.inf, "momentum") == 1
    exact = 0.5 * 1e20 * np.log(1e6)
    assert gd.predicted_steps(1e20, 1e-6, "gradient descent") == pytest.approx(exact)
    assert gd.predicted_steps(np.inf, 1e-6, "momentum") == np.inf
    assert gd.predicted_steps(1.0, 1e-6, "momentum") == 1


@pytest.mark.parametrize(("values", "reduction"), [([1.0, -2.0], 0.1), ([0.0], 0.1), ([1.0], 0.0)])
def test_steps_of_what_has_no_minimum_are_not_counted(values: list[float], reduction: float):
    with pytest.raises(ValueError, match="eigenvalues and reduction must be above 0"):
        gd.steps_needed(np.array(values), reduction, "gradient descent")


def test_steps_grow_like_the_condition_number_and_like_its_root():
    conditions = np.array([100.0, 1000.0])
    slopes = {}
    for method in descent_figures.STYLES:
        counts = [gd.steps_needed(descent_figures.spectrum(k), 1e-6, method) for k in conditions]
        slopes[method] = float(np.log10(counts[1] / counts[0]))
    assert slopes["gradient descent"] == pytest.approx(1, abs=0.05)
    assert slopes["momentum"] == pytest.approx(0.5, abs=0.05)
    assert slopes["conjugate gradient"] == pytest.approx(0.5, abs=0.05)


def test_spectrum_reaches_from_one_to_the_condition_number():
    values = descent_figures.spectrum(50.0, 9)
    assert (values[0], values[-1], values[4]) == pytest.approx((1, 50, 25.5))
    assert (np.diff(values) > 0).all()


def test_figures_show_the_paths_and_the_steps():
    f, start = valley(20), np.array([5.0, 3.0])
    figure = descent_figures.surface(f, start, 10)
    left, right = figure.axes
    lines = {line.get_label(): line for line in left.lines}
    path = gd.gradient_descent(f, start, 10, *gd.best_rates(1.0, 20.0))
    np.testing.assert_allclose(lines["gradient descent"].get_xydata(), path)
    assert len(lines["conjugate gradient"].get_xydata()) == 3
    assert left.get_title() == "condition number 20"
    left_over = right.lines[0].get_ydata()
    np.testing.assert_allclose(left_over, (f(path) - f(f.minimum())) / (f(start) - f(f.minimum())))
    axes = descent_figures.steps_against_condition((10.0, 30.0)).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    marks = {line.get_label(): line.get_ydata() for line in axes.lines}
    for method in descent_figures.STYLES:
        expected = [gd.steps_needed(descent_figures.spectrum(k), 1e-6, method) for k in (10, 30)]
        np.testing.assert_array_equal(marks[method], expected)
