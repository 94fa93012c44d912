"""Fits against laws that are known, against SciPy's, and against the closed form of the optimum."""

import numpy as np
import pytest

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
def test_power_law_does_not_overflow() -> None:
    log_loss, gradient = powerlaw.power_law(np.array([0.0, 2000.0, 1.0]), np.array([[1.0]]))
    np.testing.assert_allclose(log_loss, 1999.0)
    np.testing.assert_allclose(gradient, [[0.0, 1.0, -1.0]])


@pytest.mark.exercise("powerlaw.descend")
def test_descend_finds_what_scipys_robust_least_squares_finds() -> None:
    """The same sum of Huber losses, with outliers in it: one run in ten went badly wrong."""
    from scipy.optimize import least_squares

    loss, n, d = grid(noise=0.01)
    loss[::10] *= 1.2
    log_x = np.log(np.column_stack([n, d]))
    log_x -= log_x.mean(axis=0)
    start = np.array([0.5, -1.0, -1.0, 0.3, 0.3])
    for delta in (0.02, 1.0):
        theta, total = powerlaw.descend(start, log_x, np.log(loss), delta)
        reference = least_squares(
            lambda t: powerlaw.power_law(t, log_x)[0] - np.log(loss),
            start, loss="huber", f_scale=delta, xtol=1e-15, ftol=1e-15, gtol=1e-15,
        )  # fmt: skip
        np.testing.assert_allclose(total, reference.cost, rtol=1e-6)
        np.testing.assert_allclose(theta, reference.x, atol=2e-4)


@pytest.mark.exercise("powerlaw.descend")
def test_descend_does_not_stop_at_a_sum_that_is_merely_small() -> None:
    """With delta = 1e-3 the sum begins near 1e-4; what is left at the end must be rounding."""
    loss, n, d = grid()
    log_x = np.log(np.column_stack([n, d]))
    log_x -= log_x.mean(axis=0)
    theta, total = powerlaw.descend(np.array([0.3, -1.0, -1.0, 0.5, 0.5]), log_x, np.log(loss))
    assert total < 1e-16
    np.testing.assert_allclose(theta[3:], HOFFMANN.exponents, atol=1e-5)


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
def test_a_law_that_rises_has_no_best_size() -> None:
    with pytest.raises(ValueError, match="rises with size or data"):
        compute_optimal(Law(1.0, (2.0, 3.0), (-0.1, 0.3)), 1e18)


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
    for compute in (1e18, 1e21):
        n = compute_optimal(HOFFMANN, compute)[0] * np.geomspace(1 / 3, 3, 5)
        best, lowest = isoflop_minimum(n, HOFFMANN(n, compute / 6 / n))
        assert np.log(best / n[2]) == pytest.approx(0, abs=0.05)
        assert lowest == pytest.approx(float(HOFFMANN(n[2], compute / 6 / n[2])), rel=1e-3)


@pytest.mark.exercise("powerlaw.isoflop_minimum")
def test_isoflop_minimum_refuses_a_hill_and_two_sizes() -> None:
    n = np.array([1e4, 1e5, 1e6])
    with pytest.raises(ValueError, match="no minimum"):
        isoflop_minimum(n, [2.0, 2.2, 2.1])
    with pytest.raises(ValueError, match="three sizes"):
        isoflop_minimum([1e4, 1e5, 1e5], [2.0, 1.9, 1.9])


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
