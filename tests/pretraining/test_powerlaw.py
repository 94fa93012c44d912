"""Fits against laws that are known, against SciPy's, and against the closed form of the optimum."""

import itertools

import numpy as np
import pytest
from scipy.special import huber as special_huber
from scipy.special import logsumexp, softmax

from pretraining import powerlaw
from pretraining.powerlaw import Law, compute_optimal, fit, isoflop_minimum, straight_line

HOFFMANN = Law(1.69, (406.4, 410.7), (0.34, 0.28))
"""Hoffmann et al. 2022, appendix D.3 (equation 10)."""


def grid(noise: float = 0.0, law: Law = HOFFMANN) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses, N and D of five sizes under four budgets each."""
    n, c = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e18, 1e21, 4)))
    d = c / 6 / n
    wobble = np.exp(noise * np.random.default_rng(1).standard_normal(len(n)))
    return law(n, d) * wobble, n, d


@pytest.mark.exercise("powerlaw.huber")
def test_huber_is_scipys() -> None:
    from scipy.special import huber as reference

    r = np.linspace(-3, 3, 101)
    for delta in (0.5, 1.0, 2.7):
        np.testing.assert_allclose(powerlaw.huber(r, delta), reference(delta, r), atol=1e-12)


@pytest.mark.exercise("powerlaw.huber")
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 1, 4)])
def test_huber_of_any_shape_at_its_joint_and_far_from_it(shape: tuple[int, ...]) -> None:
    from scipy.special import huber as reference

    size = int(np.prod(shape))
    r = np.resize([0.001, -0.001, 0.0, 2e-3, -5.0, 1e-5, 1e6, -9e-4], size).reshape(shape)
    given = r.copy()
    found = powerlaw.huber(r)
    assert np.shape(found) == shape
    np.testing.assert_allclose(found, reference(1e-3, r), rtol=1e-12)  # 1e-3 is the default
    np.testing.assert_allclose(powerlaw.huber(r, 2.0), reference(2.0, r), rtol=1e-12)
    np.testing.assert_array_equal(r, given)


@pytest.mark.exercise("powerlaw.power_law")
def test_power_law_is_the_sum_and_its_gradient_the_difference_quotient() -> None:
    theta = np.array([0.4, 2.0, 1.5, 0.3, 0.7])
    log_x = np.log(np.array([[3.0, 7.0], [40.0, 2.0], [900.0, 5e4]]))
    log_loss, gradient = powerlaw.power_law(theta, log_x)
    n, d = np.exp(log_x).T
    by_hand = np.exp(0.4) + np.exp(2.0) / n**0.3 + np.exp(1.5) / d**0.7
    np.testing.assert_allclose(np.exp(log_loss), by_hand)
    for j, step in enumerate(1e-6 * np.eye(5)):
        up, down = (powerlaw.power_law(theta + s, log_x)[0] for s in (step, -step))
        np.testing.assert_allclose(gradient[:, j], (up - down) / 2e-6, atol=1e-8)


@pytest.mark.exercise("powerlaw.power_law")
@pytest.mark.parametrize(("runs", "variables"), [(1, 1), (6, 1), (1, 2), (7, 2), (4, 3)])
def test_power_law_of_any_number_of_runs_and_variables(runs: int, variables: int) -> None:
    """By exponentials, one run after the other, and by differences; what is given stays."""
    rng = np.random.default_rng(runs)
    theta, log_x = rng.normal(size=1 + 2 * variables), rng.normal(size=(runs, variables))
    given = theta.copy(), log_x.copy()
    log_loss, gradient = powerlaw.power_law(theta, log_x)
    assert log_loss.shape == (runs,)
    assert gradient.shape == (runs, 1 + 2 * variables)
    e, a, exponents = theta[0], theta[1 : 1 + variables], theta[1 + variables :]
    for row, x in enumerate(np.exp(log_x)):
        terms = [np.exp(a[k]) * x[k] ** -exponents[k] for k in range(variables)]
        assert np.exp(log_loss[row]) == pytest.approx(np.exp(e) + sum(terms))
    for j, step in enumerate(1e-6 * np.eye(len(theta))):
        up, down = (powerlaw.power_law(theta + s, log_x)[0] for s in (step, -step))
        np.testing.assert_allclose(gradient[:, j], (up - down) / 2e-6, atol=1e-8)
    np.testing.assert_array_equal(theta, given[0])
    np.testing.assert_array_equal(log_x, given[1])


@pytest.mark.exercise("powerlaw.power_law")
@pytest.mark.parametrize("level", [-2000.0, 0.0, 2000.0])
def test_power_law_neither_overflows_nor_vanishes(level: float) -> None:
    theta = np.array([level, level + 2000.0, 1.0])
    log_loss, gradient = powerlaw.power_law(theta, np.array([[1.0]]))
    np.testing.assert_allclose(log_loss, level + 1999.0)
    np.testing.assert_allclose(gradient, [[0.0, 1.0, -1.0]])
    far = powerlaw.power_law(np.array([-3000.0, 0.0, 1.0]), np.array([[0.0], [2000.0]]))
    np.testing.assert_allclose(far[0], [0.0, -2000.0])  # rows on quite different levels
    np.testing.assert_allclose(far[1], [[0.0, 1.0, 0.0], [0.0, 1.0, -2000.0]])
    equal = powerlaw.power_law(np.array([level, level, 0.0]), np.array([[3.0]]))
    np.testing.assert_allclose(equal[0], level + np.log(2))
    np.testing.assert_allclose(equal[1], [[0.5, 0.5, -1.5]])


class Reference:
    """Law and loss that `descend` is graded with, whatever became of the other exercises."""

    def __init__(self) -> None:
        self.calls = 0

    def power_law(self, theta: np.ndarray, log_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        k = log_x.shape[1]
        terms = np.hstack(
            [np.full((len(log_x), 1), theta[0]), theta[1 : k + 1] - theta[k + 1 :] * log_x]
        )
        share = softmax(terms, axis=1)
        return logsumexp(terms, axis=1), np.hstack([share, -share[:, 1:] * log_x])

    @staticmethod
    def huber(residual: np.ndarray, delta: float = 1e-3) -> np.ndarray:
        return special_huber(delta, residual)

    def total(
        self, theta: np.ndarray, log_x: np.ndarray, log_loss: np.ndarray, delta: float = 1e-3
    ) -> float:
        """What `descend` is to lower."""
        return float(special_huber(delta, self.power_law(theta, log_x)[0] - log_loss).sum())


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Reference:
    made = Reference()
    monkeypatch.setattr(powerlaw, "power_law", made.power_law)
    monkeypatch.setattr(powerlaw, "huber", made.huber)
    return made


@pytest.mark.exercise("powerlaw.descend")
def test_descend_finds_what_scipys_robust_least_squares_finds(reference: Reference) -> None:
    """The same sum of Huber losses, with outliers in it: one run in ten went badly wrong."""
    from scipy.optimize import least_squares

    loss, n, d = grid(noise=0.01)
    loss[::10] *= 1.2
    log_x = np.log(np.column_stack([n, d]))
    log_x -= log_x.mean(axis=0)
    start = np.array([0.5, -1.0, -1.0, 0.3, 0.3])
    for delta in (1e-3, 0.02, 1.0):
        theta, total = powerlaw.descend(start, log_x, np.log(loss), delta)
        scipys = least_squares(
            lambda t: reference.power_law(t, log_x)[0] - np.log(loss),
            start, loss="huber", f_scale=delta, xtol=1e-15, ftol=1e-15, gtol=1e-15,
        )  # fmt: skip
        np.testing.assert_allclose(total, scipys.cost, rtol=1e-8)
        np.testing.assert_allclose(theta, scipys.x, atol=2e-4)
        assert total == pytest.approx(reference.total(theta, log_x, np.log(loss), delta), rel=1e-9)


@pytest.mark.exercise("powerlaw.descend")
@pytest.mark.usefixtures("reference")
def test_descend_does_not_stop_at_a_sum_that_is_merely_small() -> None:
    """With delta = 1e-3 the sum begins near 1e-4; what is left at the end must be rounding."""
    loss, n, d = grid()
    log_x = np.log(np.column_stack([n, d]))
    log_x -= log_x.mean(axis=0)
    theta, total = powerlaw.descend(np.array([0.3, -1.0, -1.0, 0.5, 0.5]), log_x, np.log(loss))
    assert total < 1e-16
    np.testing.assert_allclose(theta[3:], HOFFMANN.exponents, atol=1e-5)


LOG_X = np.log([[1e2], [1e3], [1e4], [1e5]])
LOG_LOSS = np.log(1 + 5 * np.exp(LOG_X[:, 0]) ** -0.3)
"""Four runs of L = 1 + 5 / x^0.3."""


def far_start(seed: int) -> np.ndarray:
    """A start that is far from the law."""
    rng = np.random.default_rng(seed)
    return np.array([rng.uniform(-1, 1), rng.uniform(-2, 5), rng.uniform(0, 1)])


@pytest.mark.exercise("powerlaw.descend")
@pytest.mark.parametrize("delta", [1.0, 1e-3])
def test_damping_brings_far_starts_home(reference: Reference, delta: float) -> None:
    """Neither plain Gauss-Newton, nor taking every step, nor damping that never falls does: it has
    to rise where a step leads up, and to fall where one leads down."""
    for seed in (0, 2, 3, 4, 6, 9, 11, 13, 14, 17, 21, 25, 31):
        start = far_start(seed)
        given = start.copy()
        begun = reference.total(start, LOG_X, LOG_LOSS, delta)
        theta, total = powerlaw.descend(start, LOG_X, LOG_LOSS, delta)
        assert total <= begun
        assert total == pytest.approx(reference.total(theta, LOG_X, LOG_LOSS, delta), abs=1e-20)
        np.testing.assert_allclose(np.exp(theta[:2]), [1, 5], rtol=1e-3)
        assert theta[2] == pytest.approx(0.3, abs=1e-4)
        np.testing.assert_array_equal(start, given)


@pytest.mark.exercise("powerlaw.descend")
def test_descend_tries_as_many_steps_as_it_is_given(reference: Reference) -> None:
    start = np.array([0.5, 1.0, 0.1])
    data = LOG_X.copy(), LOG_LOSS.copy()
    begun = reference.total(start, LOG_X, LOG_LOSS)
    theta, total = powerlaw.descend(start, *data, steps=0)
    np.testing.assert_array_equal(theta, start)
    assert total == pytest.approx(begun)
    totals = [powerlaw.descend(start, *data, steps=steps)[1] for steps in (1, 2, 4, 400)]
    assert begun > totals[0] > totals[-1]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > 1e-6, "one step cannot be all"
    assert totals[-1] < 1e-16
    np.testing.assert_array_equal(data[0], LOG_X)
    np.testing.assert_array_equal(data[1], LOG_LOSS)


@pytest.mark.exercise("powerlaw.descend")
@pytest.mark.usefixtures("reference")
def test_descend_does_not_stop_at_gains_that_are_merely_small() -> None:
    """With delta = 1e-8 the whole sum is below 1e-10, and so is what a step gains."""
    loss, n, d = grid()
    log_x = np.log(np.column_stack([n, d]))
    log_x -= log_x.mean(axis=0)
    exact = np.concatenate([[np.log(1.69)], np.log(HOFFMANN.scales), HOFFMANN.exponents])
    exact[1:3] -= exact[3:] * np.log(np.column_stack([n, d])).mean(axis=0)
    start = exact + 0.01 * np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    theta, _ = powerlaw.descend(start, log_x, np.log(loss), 1e-8)
    np.testing.assert_allclose(theta, exact, atol=1e-9)


@pytest.mark.exercise("powerlaw.descend")
def test_descend_ends_where_a_step_gains_less_than_the_tolerance(reference: Reference) -> None:
    """1e-7 beside the lowest point a step gains 1e-11 of the sum: it is the last."""
    loss, n, d = grid(noise=0.01)
    log_x = np.log(np.column_stack([n, d]))
    log_x -= log_x.mean(axis=0)
    start = np.array([0.5, -1.0, -1.0, 0.3, 0.3])
    theta, total = powerlaw.descend(start, log_x, np.log(loss), 1.0)
    reference.calls = 0
    beside = theta + 1e-7 * np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    again = powerlaw.descend(beside, log_x, np.log(loss), 1.0, steps=4000)[1]
    assert reference.calls <= 6
    assert again == pytest.approx(total, rel=1e-9)


@pytest.mark.exercise("powerlaw.descend")
def test_descend_ends_where_no_step_gains_anything(reference: Reference) -> None:
    """At a law that fits to the last bit no step is taken, and damping has risen far enough."""
    theta = np.array([0.0, 1.5, 0.3])
    exact = reference.power_law(theta, LOG_X)[0]
    reference.calls = 0
    end, total = powerlaw.descend(theta, LOG_X, exact, steps=4000)
    assert reference.calls < 200
    assert total == 0
    np.testing.assert_array_equal(end, theta)


@pytest.mark.exercise("powerlaw.descend")
def test_descend_tries_400_steps_unless_it_is_said(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is smaller at every look never gives a reason to end."""

    def calls(**steps: int) -> int:
        size = itertools.count()
        monkeypatch.setattr(powerlaw, "huber", lambda r, delta=1e-3: 0.9 ** next(size) + 0 * r)
        reference.calls = 0
        powerlaw.descend(np.array([0.5, 1.0, 0.1]), LOG_X, LOG_LOSS, **steps)
        return reference.calls

    assert calls() == calls(steps=400)
    assert calls(steps=0) <= calls(steps=1) <= calls(steps=399) <= calls()


@pytest.mark.exercise("powerlaw.descend")
def test_descend_takes_huber_where_it_turns_by_default(reference: Reference) -> None:
    """delta is 1e-3 unless it is said, and another delta is another end."""
    loss, n, d = grid(noise=0.05)
    log_x = np.log(np.column_stack([n, d]))
    log_x -= log_x.mean(axis=0)
    start = np.array([0.5, -1.0, -1.0, 0.3, 0.3])
    theta, total = powerlaw.descend(start, log_x, np.log(loss))
    said = powerlaw.descend(start, log_x, np.log(loss), 1e-3)
    np.testing.assert_array_equal(theta, said[0])
    assert total == said[1] == pytest.approx(reference.total(theta, log_x, np.log(loss), 1e-3))
    assert not np.allclose(theta, powerlaw.descend(start, log_x, np.log(loss), 1.0)[0], atol=1e-3)


@pytest.mark.exercise("powerlaw.descend")
@pytest.mark.usefixtures("reference")
def test_a_parameter_without_influence_stays() -> None:
    """E = e^-900 is 0 beside the other term, so its column of J is 0: A and α still are found."""
    log_loss = np.log(5.0) - 0.3 * LOG_X[:, 0]
    theta, total = powerlaw.descend(np.array([-900.0, 1.0, 0.2]), LOG_X, log_loss, 1.0)
    np.testing.assert_allclose(theta, [-900, np.log(5), 0.3], rtol=1e-6)
    assert total < 1e-16


def test_fit_recovers_known_laws() -> None:
    loss, n, d = grid()
    law = fit(loss, n, d)
    np.testing.assert_allclose(law.exponents, HOFFMANN.exponents, atol=1e-6)
    np.testing.assert_allclose(law.scales, HOFFMANN.scales, rtol=1e-4)
    assert law.irreducible == pytest.approx(1.69, abs=1e-5)
    x = np.geomspace(1e3, 1e8, 12)
    alone = fit(Law(0.8, (30.0,), (0.21,))(x), x)
    found = [alone.irreducible, *alone.scales, *alone.exponents]
    np.testing.assert_allclose(found, [0.8, 30, 0.21], rtol=1e-4)


def test_fit_of_one_variable_is_curve_fits() -> None:
    """Least squares (a large delta) on log L, with noise, against scipy.optimize.curve_fit."""
    from scipy.optimize import curve_fit

    x = np.geomspace(1e4, 1e9, 40)
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal(40))
    loss = Law(1.2, (50.0,), (0.3,))(x) * noise
    law = fit(loss, x, delta=10.0)
    reference, _ = curve_fit(
        lambda x, e, a, alpha: np.log(e + a / x**alpha), x, np.log(loss), (1.0, 30.0, 0.25)
    )
    found = [law.irreducible, *law.scales, *law.exponents]
    np.testing.assert_allclose(found, reference, rtol=1e-3)


def test_one_wild_run_moves_a_huber_fit_little_and_least_squares_much() -> None:
    loss, n, d = grid(noise=0.002)
    loss[7] *= 1.3
    robust, squares = fit(loss, n, d), fit(loss, n, d, delta=10.0)
    error = [max(abs(np.subtract(f.exponents, HOFFMANN.exponents))) for f in (robust, squares)]
    assert error[0] < 0.02 < error[1]


def test_fit_refuses_what_it_cannot_fit() -> None:
    loss, n, d = grid()
    with pytest.raises(ValueError, match="has 5 parameters; 4 runs"):
        fit(loss[:4], n[:4], d[:4])
    for wrong in (loss - loss.max(), loss * np.nan, loss * np.inf):
        with pytest.raises(ValueError, match="must be positive"):
            fit(wrong, n, d)
    for shorter in (n[:1], n[:-1]):
        with pytest.raises(ValueError, match="of one length"):
            fit(loss, shorter, d)
    with pytest.raises(ValueError, match="of the fit"):
        powerlaw.resample(loss, loss[:1], 2, 3)


@pytest.mark.exercise("powerlaw.straight_line")
def test_straight_line_is_polyfit_on_logarithms_and_kaplans_law() -> None:
    x = np.geomspace(10, 1e6, 9)
    y = 3 * x**0.7 * np.exp(0.1 * np.random.default_rng(0).standard_normal(9))
    slope, log_c = np.polyfit(np.log(x), np.log(y), 1)
    np.testing.assert_allclose(straight_line(x, y), (np.exp(log_c), slope))
    c, s = straight_line(x, (8.8e13 / x) ** 0.076)  # Kaplan et al. 2020, equation 1.1
    assert -s == pytest.approx(0.076)
    assert c ** (1 / 0.076) == pytest.approx(8.8e13, rel=1e-6)


@pytest.mark.exercise("powerlaw.straight_line")
def test_straight_line_from_any_runs() -> None:
    """Two runs are enough, whole numbers and lists will do, in any order; two floats come back."""
    c, s = straight_line([100, 1], [3, 300])
    assert (type(c), type(s)) == (float, float)
    assert (c, s) == pytest.approx((300, -1))
    rng = np.random.default_rng(3)
    x = rng.uniform(0.01, 5, 7)
    y = rng.uniform(1e-3, 2, 7)
    given = x.copy(), y.copy()
    slope, log_c = np.polyfit(np.log(x), np.log(y), 1)
    assert straight_line(x, y) == pytest.approx((np.exp(log_c), slope))
    assert straight_line(x[::-1], y[::-1]) == pytest.approx((np.exp(log_c), slope))
    for a, b in ((x.astype(np.float32), y), (x, y.astype(np.float32))):
        in_double = straight_line(a.astype(np.float64), b.astype(np.float64))
        assert straight_line(a, b) == pytest.approx(in_double, rel=1e-12)
    np.testing.assert_array_equal((x, y), given)


@pytest.mark.exercise("powerlaw.compute_optimal")
def test_compute_optimal_is_the_lowest_point_of_a_search() -> None:
    from scipy.optimize import minimize_scalar

    for compute in (1e18, 1e21, 5.76e23):
        search = minimize_scalar(
            lambda u, c=compute: float(HOFFMANN(np.exp(u), c / 6 / np.exp(u))),
            bounds=(np.log(1e6), np.log(1e13)), method="bounded", options={"xatol": 1e-10},
        )  # fmt: skip
        n, d = compute_optimal(HOFFMANN, compute)
        assert 6 * n * d == pytest.approx(compute)
        assert np.log(n) == pytest.approx(search.x, abs=1e-3)


@pytest.mark.exercise("powerlaw.compute_optimal")
def test_the_frontier_of_a_law_is_a_power_law_with_the_product_over_the_sum() -> None:
    """L_opt(C) - E ~ C^(-αβ/(α+β)), and N_opt ~ C^(β/(α+β)) = C^0.45 for the published law."""
    compute = np.geomspace(1e18, 1e24, 7)
    n, d = compute_optimal(HOFFMANN, compute)
    assert n.shape == d.shape == (7,)
    assert np.diff(np.log(n)) / np.diff(np.log(compute)) == pytest.approx(0.28 / 0.62)
    rest = np.log(HOFFMANN(n, d) - 1.69)
    assert np.diff(rest) / np.diff(np.log(compute)) == pytest.approx(-0.34 * 0.28 / 0.62)


@pytest.mark.exercise("powerlaw.compute_optimal")
def test_compute_of_any_shape() -> None:
    """A number, a list or a table of budgets: sizes of the same shape, budget by budget."""
    law = Law(0.0, (7.0, 900.0), (0.5, 0.25))
    table = np.array([[1e18, 3e20, 1e15], [6e19, 1e10, 2e23]])
    given = table.copy()
    n, d = compute_optimal(law, table)
    np.testing.assert_array_equal(table, given)
    assert n.shape == d.shape == (2, 3)
    # At the lowest point what N still gains is what D still gains: α A / N^α = β B / D^β.
    np.testing.assert_allclose(0.5 * 7 / n**0.5, 0.25 * 900 / d**0.25)
    np.testing.assert_allclose(6 * n * d, table)
    for compute, shape in ((3e20, ()), (10**18, ()), ([1e18], (1,)), ([], (0,))):
        one = compute_optimal(law, compute)
        assert [np.shape(v) for v in one] == [shape, shape]
    np.testing.assert_allclose([float(v) for v in compute_optimal(law, 3e20)], [n[0, 1], d[0, 1]])


@pytest.mark.exercise("powerlaw.compute_optimal")
@pytest.mark.parametrize(
    "exponents", [(-0.1, 0.3), (0.3, -0.1), (0.0, 0.3), (0.3, 0.0), (-0.1, -0.2)]
)
def test_a_law_that_rises_or_stays_has_no_best_size(exponents: tuple[float, float]) -> None:
    with pytest.raises(ValueError):
        compute_optimal(Law(1.0, (2.0, 3.0), exponents), 1e18)


@pytest.mark.exercise("powerlaw.isoflop_minimum")
def test_isoflop_minimum_of_a_parabola_is_its_vertex() -> None:
    n = np.geomspace(1e4, 1e7, 6)
    loss = 2.5 + 0.03 * (np.log(n) - np.log(3e5)) ** 2
    best, lowest = isoflop_minimum(n, loss)
    assert best == pytest.approx(3e5)
    assert lowest == pytest.approx(2.5)


@pytest.mark.exercise("powerlaw.isoflop_minimum")
def test_isoflop_minimum_is_near_that_of_the_law() -> None:
    """Near its minimum a law at equal compute is nearly a parabola in log N."""
    g = (0.34 * 406.4 / (0.28 * 410.7)) ** (1 / 0.62)  # Hoffmann et al. 2022, equation 4
    for compute in (1e18, 1e21):
        n = g * (compute / 6) ** (0.28 / 0.62) * np.geomspace(1 / 3, 3, 5)
        best, lowest = isoflop_minimum(n, HOFFMANN(n, compute / 6 / n))
        assert np.log(best / n[2]) == pytest.approx(0, abs=0.05)
        assert lowest == pytest.approx(float(HOFFMANN(n[2], compute / 6 / n[2])), rel=1e-3)


@pytest.mark.exercise("powerlaw.isoflop_minimum")
def test_isoflop_minimum_is_polyfits_whatever_the_runs() -> None:
    """With noise, unsorted, some sizes twice, the vertex outside of the sizes; two floats."""
    rng = np.random.default_rng(0)
    for middle in (2e4, 5e6, 3e7):
        n = np.array([1e7, 1e4, 3e5, 3e5, 2e6, 1e4])
        loss = 3 + 0.05 * np.log(n / middle) ** 2 + 0.01 * rng.standard_normal(6)
        given = n.copy(), loss.copy()
        c2, c1, c0 = np.polyfit(np.log(n), loss, 2)
        found = isoflop_minimum(n, loss)
        assert [type(v) for v in found] == [float, float]
        assert found == pytest.approx((np.exp(-c1 / (2 * c2)), c0 - c1**2 / (4 * c2)), rel=1e-6)
        np.testing.assert_array_equal((n, loss), given)
        for a, b in ((n.astype(np.float32), loss), (n, loss.astype(np.float32))):
            in_double = isoflop_minimum(a.astype(np.float64), b.astype(np.float64))
            assert isoflop_minimum(a, b) == pytest.approx(in_double, rel=1e-11)
    three = isoflop_minimum([1, 10, 100], [3, 1, 3])
    assert three == pytest.approx((10, 1))


@pytest.mark.exercise("powerlaw.isoflop_minimum")
@pytest.mark.parametrize(
    "loss", [[2.0, 2.2, 2.1, 2.0], [2.0] * 4, [3.3] * 4, [3.5, 2.5, 1.5, 0.5], [0.1, 1.1, 2.1, 3.1]]
)
def test_isoflop_minimum_refuses_a_hill_and_a_line(loss: list[float]) -> None:
    with pytest.raises(ValueError):
        isoflop_minimum(np.array([1e4, 1e5, 1e6, 1e7]), loss)


@pytest.mark.exercise("powerlaw.isoflop_minimum")
@pytest.mark.parametrize("n", [[], [1e4], [1e4, 1e5], [1e4, 1e5, 1e5], [1e4, 1e5, 1e5, 1e4]])
def test_isoflop_minimum_refuses_fewer_than_three_sizes(n: list[float]) -> None:
    with pytest.raises(ValueError):
        isoflop_minimum(n, [2.0, 1.9, 1.9, 2.1][: len(n)])


@pytest.mark.exercise("powerlaw.isoflop_minimum")
@pytest.mark.parametrize(("share", "accepted"), [(1.2, True), (0.8, False)])
def test_a_valley_counts_from_rounding_on(share: float, accepted: bool) -> None:
    """c_2 (log largest - log smallest)² just above and just below ROUNDING · max |loss|."""
    n = np.geomspace(1e4, 1e6, 5)
    from_middle = np.log(n / 1e5) / np.log(100)
    level = 4 + share * powerlaw.ROUNDING * 4 * from_middle**2
    steep = level + 4 * (from_middle - 0.5) * 0.9  # from 0.4 to 4: the largest loss is the measure
    if accepted:
        assert isoflop_minimum(n, level)[0] == pytest.approx(1e5, rel=1e-3)
    for loss in (level, steep):
        if accepted:
            isoflop_minimum(n, loss)
        else:
            with pytest.raises(ValueError):
                isoflop_minimum(n, loss)


def test_slopes_are_difference_quotients_on_logarithmic_axes() -> None:
    n, d, step = 1e8, 1e9, 1e-5
    slope_n = -np.log(HOFFMANN(n * np.exp(step), d) / HOFFMANN(n / np.exp(step), d)) / (2 * step)
    slope_d = -np.log(HOFFMANN(n, d * np.exp(step)) / HOFFMANN(n, d / np.exp(step))) / (2 * step)
    np.testing.assert_allclose(HOFFMANN.slopes(n, d), [slope_n, slope_d], rtol=1e-6)


def test_resampled_losses_have_the_spread_of_the_noise() -> None:
    """Residuals of a fit are too small by √(1 - p/n); stretched, they have the noise's own size."""
    rng = np.random.default_rng(0)
    fitted = np.full(20, 2.0)
    noise = 0.01 * rng.standard_normal(20)
    noise -= noise.mean()
    drawn = powerlaw.resample(fitted * np.exp(noise), fitted, 5, 4000)
    assert drawn.shape == (4000, 20)
    assert np.log(drawn / 2).std() == pytest.approx(noise.std() * np.sqrt(20 / 15), rel=0.02)
    assert np.log(drawn / 2).mean() == pytest.approx(0, abs=1e-4)


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """90 % intervals over 60 experiments of a straight line, whose truth is known."""
    x, covered = np.geomspace(1e3, 1e7, 12), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        y = 5 * x**-0.1 * np.exp(0.02 * rng.standard_normal(12))
        c, s = straight_line(x, y)
        slopes = [straight_line(x, z)[1] for z in powerlaw.resample(y, c * x**s, 2, 200, seed)]
        low, high = powerlaw.interval(slopes)
        covered += low <= -0.1 <= high
    assert 0.75 <= covered / 60 <= 0.99
