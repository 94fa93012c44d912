"""CMA-ES: its update against loops and against the `cma` package, its search on known functions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from world_models.cmaes import CMAES, Constants, adapted, evolution_path, recombined

SIZES = [(2, 6), (5, 8), (12, 11), (40, 16)]


@pytest.mark.exercise("cmaes.recombined")
@pytest.mark.parametrize(("n", "population"), SIZES)
def test_the_mean_step_is_a_weighted_sum_of_the_best(n: int, population: int) -> None:
    rng = np.random.default_rng(n)
    steps, cost = rng.normal(size=(population, n)), rng.normal(size=population)
    weights = Constants.of(n, population).weights
    kept = steps.copy(), cost.copy(), weights.copy()
    expected = np.zeros(n)
    for place, i in enumerate(sorted(range(population), key=lambda i: cost[i])):
        if weights[place] > 0:
            expected += weights[place] * steps[i]
    np.testing.assert_allclose(recombined(steps, cost, weights), expected, rtol=1e-12)
    assert all((a == b).all() for a, b in zip(kept, (steps, cost, weights), strict=True))


@pytest.mark.exercise("cmaes.recombined")
def test_the_lowest_cost_counts_most_and_bad_ones_not_at_all() -> None:
    steps = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [9.0, 9.0, 9.0]])
    weights = np.array([0.7, 0.3, -0.2, -0.5])
    step = recombined(steps, np.array([3.0, -1.0, 2.0, 50.0]), weights)
    np.testing.assert_allclose(step, [0.0, 0.7, 0.3])
    step = recombined(steps[:, :1], np.array([3.0, -1.0, 2.0, math.inf]), weights)
    np.testing.assert_allclose(step, [0.0])


@pytest.mark.exercise("cmaes.evolution_path")
def test_a_path_under_random_selection_keeps_its_covariance() -> None:
    """Steps of variance 1 / mu_eff leave a path of variance 1 as it is, whatever c is."""
    rng, mu_eff = np.random.default_rng(0), 3.7
    for c in (0.1, 0.5, 0.9):
        path = rng.normal(size=200_000)
        step = rng.normal(size=200_000) / math.sqrt(mu_eff)
        assert evolution_path(path, step, c, mu_eff).var() == pytest.approx(1, abs=0.02)


@pytest.mark.exercise("cmaes.evolution_path")
def test_a_path_by_hand() -> None:
    path, step = np.array([1.0, -2.0, 0.5]), np.array([3.0, 0.0, 1.0])
    found = evolution_path(path, step, 0.2, 4.0)
    np.testing.assert_allclose(found, 0.8 * path + 1.2 * step)  # sqrt(0.2 * 1.8 * 4) = 1.2
    assert path.tolist() == [1.0, -2.0, 0.5]
    assert step.tolist() == [3.0, 0.0, 1.0]
    np.testing.assert_allclose(evolution_path(path, step, 0.0, 4.0), path)
    np.testing.assert_allclose(evolution_path(path, step, 1.0, 4.0), 2 * step)


def slowly(
    covariance: np.ndarray, path: np.ndarray, steps: np.ndarray, constants: Constants, stalled: bool
) -> np.ndarray:
    """Equation 47, an element at a time; the lengths are computed from C itself."""
    n, c = len(path), constants
    inverse = np.linalg.inv(covariance)
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            delta = c.c_c * (2 - c.c_c) if stalled else 0
            kept = 1 + c.c_1 * delta - c.c_1 - c.c_mu * sum(c.weights)
            out[i, j] = kept * covariance[i, j] + c.c_1 * path[i] * path[j]
            for w, y in zip(c.weights, steps, strict=True):
                if w < 0:
                    w = w * n / (y @ inverse @ y)
                out[i, j] += c.c_mu * w * y[i] * y[j]
    return out


@pytest.mark.exercise("cmaes.adapted")
@pytest.mark.parametrize(("n", "population"), SIZES[:3])
@pytest.mark.parametrize("stalled", [False, True])
def test_the_covariance_follows_equation_47(n: int, population: int, stalled: bool) -> None:
    rng = np.random.default_rng(population)
    root = rng.normal(size=(n, n))
    covariance = root @ root.T + np.eye(n)
    path, steps = rng.normal(size=n), rng.normal(size=(population, n))
    lengths = np.sqrt(np.einsum("in,nm,im->i", steps, np.linalg.inv(covariance), steps))
    constants = Constants.of(n, population)
    kept = [x.copy() for x in (covariance, path, steps, lengths, constants.weights)]
    found = adapted(covariance, path, steps, lengths, constants, stalled)
    expected = slowly(covariance, path, steps, constants, stalled)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found, found.T)
    assert np.linalg.eigvalsh(found).min() > 0
    now = (covariance, path, steps, lengths, constants.weights)
    assert all((a == b).all() for a, b in zip(kept, now, strict=True))


@pytest.mark.parametrize(("n", "population"), [*SIZES, (243, 32)])
def test_constants_are_those_of_cma(n: int, population: int) -> None:
    cma = pytest.importorskip("cma")
    theirs = cma.CMAEvolutionStrategy(np.zeros(n), 1.0, {"popsize": population, "verbose": -9})
    ours = Constants.of(n, population)
    weights = theirs.sp.weights
    assert ours.mu_eff == pytest.approx(weights.mueff)
    assert ours.parents == weights.mu
    np.testing.assert_allclose(ours.weights, np.asarray(weights), rtol=1e-6, atol=1e-12)
    assert ours.c_1 == pytest.approx(theirs.sp.c1)
    assert ours.c_mu == pytest.approx(theirs.sp.cmu)
    assert ours.c_c == pytest.approx(theirs.sp.cc)


def ellipsoid(x: np.ndarray) -> float:
    return float((1e6 ** np.linspace(0, 1, len(x)) * x**2).sum())


def rosenbrock(x: np.ndarray) -> float:
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def sphere(x: np.ndarray) -> float:
    return float((x**2).sum())


def evaluations(search: CMAES, function: Callable[[np.ndarray], float], target: float) -> int:
    for generation in range(2000):
        cost = np.array([function(x) for x in search.ask()])
        if cost.min() < target:
            return (generation + 1) * search.population
        search.tell(cost)
    raise AssertionError(f"{cost.min()} after {search.generation} generations")


@pytest.mark.parametrize("function", [sphere, ellipsoid, rosenbrock])
def test_it_needs_as_many_evaluations_as_cma(function: Callable[[np.ndarray], float]) -> None:
    cma = pytest.importorskip("cma")
    n, target, ours, theirs = 6, 1e-8, [], []
    for seed in range(3):
        start = np.full(n, 0.5)
        ours.append(evaluations(CMAES(start, 0.5, 10, seed), function, target))
        options = {"popsize": 10, "seed": seed + 1, "ftarget": target, "verbose": -9}
        theirs.append(cma.fmin2(function, start, 0.5, options)[1].countevals)
    assert 0.7 < np.mean(ours) / np.mean(theirs) < 1.4, (ours, theirs)


def test_one_generation_beside_cma() -> None:
    """The same candidates and costs: the same mean to rounding, nearly the same matrix."""
    cma = pytest.importorskip("cma")
    n, population = 5, 10
    start = np.arange(n) / 3
    theirs = cma.CMAEvolutionStrategy(start, 0.4, {"popsize": population, "seed": 2, "verbose": -9})
    ours = CMAES(start, 0.4, population, seed=0)
    for _ in range(20):
        candidates = np.array(theirs.ask())
        cost = np.array([ellipsoid(x - 0.1) for x in candidates])
        ours.ask()
        ours.steps = (candidates - ours.mean) / ours.sigma
        ours.tell(cost)
        theirs.tell(list(candidates), list(cost))
        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-6, atol=1e-9)
        ours.sigma = theirs.sigma  # c_sigma differs: 5 in the tutorial's denominator, 3 in cma's
    ratio = np.linalg.eigvalsh(ours.covariance) / np.linalg.eigvalsh(theirs.C)
    assert (np.abs(np.log(ratio)) < 0.1).all(), ratio


def test_an_even_population_ranks_ties_and_infinities() -> None:
    search = CMAES(np.zeros(3), 1.0, 4, seed=0)
    candidates = search.ask()
    search.tell(np.array([np.inf, 1.0, np.inf, 1.0]))
    assert np.isfinite(search.mean).all()
    weights = search.constants.weights
    np.testing.assert_allclose(search.mean, weights[:2] @ candidates[[1, 3]])


def test_a_cost_that_is_no_number_is_refused() -> None:
    search = CMAES(np.zeros(3), 1.0, 4, seed=0)
    search.ask()
    with pytest.raises(ValueError, match="NaN"):
        search.tell(np.array([0.0, 1.0, np.nan, 2.0]))


def test_state_comes_back_between_ask_and_tell() -> None:
    search, other = CMAES(np.ones(4), 0.3, 6, seed=1), CMAES(np.ones(4), 9.0, 6, seed=2)
    for _ in range(5):
        search.tell(np.array([rosenbrock(x) for x in search.ask()]))
    asked = search.ask()
    state = search.state_dict()
    saved = json.dumps(state, default=lambda x: x.tolist())
    other.load_state_dict(state)
    for a in (search, other):
        a.tell(np.array([rosenbrock(x) for x in asked]))
        a.ask()
    assert json.dumps(state, default=lambda x: x.tolist()) == saved, "a snapshot must not move"
    for name, value in search.state_dict().items():
        assert np.array_equal(value, other.state_dict()[name]), name
