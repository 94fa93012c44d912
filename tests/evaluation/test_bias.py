"""Bias and intervals: closed forms, NumPy's fit, coverage over simulated repetitions."""

import numpy as np
import pytest

from evaluation import bias, frechet


@pytest.mark.exercise("bias.extrapolate")
@pytest.mark.parametrize(("a", "b"), [(3.0, 100.0), (0.0, 20.0), (7.5, -4.0)])
def test_a_line_in_1_over_n_is_found_exactly(a: float, b: float) -> None:
    counts = [100, 150, 400, 1000]
    found = bias.extrapolate(counts, [a + b / n for n in counts])
    assert found == pytest.approx(a, abs=1e-9)
    assert isinstance(found, float)


@pytest.mark.exercise("bias.extrapolate")
def test_it_is_the_least_squares_line_also_with_repeated_counts() -> None:
    rng = np.random.default_rng(0)
    counts = [50, 50, 80, 80, 200, 200, 200]
    values = list(2 + 30 / np.array(counts) + rng.standard_normal(7) * 0.1)
    design = np.stack([np.ones(7), 1 / np.array(counts)], axis=1)
    expected = np.linalg.lstsq(design, np.array(values), rcond=None)[0][0]
    assert bias.extrapolate(counts, values) == pytest.approx(expected)
    assert bias.extrapolate([10, 40], [5.0, 2.0]) == pytest.approx(1.0)


@pytest.mark.exercise("bias.extrapolate")
def test_one_count_is_no_line() -> None:
    with pytest.raises(ValueError, match="counts"):
        bias.extrapolate([100, 100], [1.0, 2.0])


def test_the_bias_of_equal_gaussians_is_removed() -> None:
    """Two sets of one distribution: distances are far above 0 and fall as 1 / N."""
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((2, 2000, 16))
    at, values = bias.distances_at(real, fake, [250, 500, 1000, 2000], draws=4)
    assert at == [250] * 4 + [500] * 4 + [1000] * 4 + [2000] * 4
    by_count = {n: np.mean([v for m, v in zip(at, values, strict=True) if m == n]) for n in at}
    assert by_count[250] / by_count[1000] == pytest.approx(4, rel=0.25)
    found = bias.extrapolate(at, values)
    assert abs(found) < 0.15 * by_count[2000]
    assert bias.distances_at(real, fake, [250], 1, seed=1) != bias.distances_at(
        real, fake, [250], 1, seed=2
    )


def test_a_true_distance_is_found() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.standard_normal((2, 3000, 8))
    fake = 1.5 * fake + 0.2  # 8 (0.2^2 + 0.5^2) = 2.32
    found = bias.extrapolate(*bias.distances_at(real, fake, [300, 600, 1500, 3000], draws=6))
    assert found == pytest.approx(2.32, rel=0.08)


# --- bootstrap ---


@pytest.mark.exercise("bias.bootstrap_interval")
def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    x = np.random.default_rng(0).gamma(2.0, 1.0, (400, 1))
    before, state = x.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    low, high = bias.bootstrap_interval(lambda part: float(part.mean()), x, 3000)
    half = 1.96 * x.std() / np.sqrt(400)
    assert low == pytest.approx(x.mean() - half, abs=0.12 * half)
    assert high == pytest.approx(x.mean() + half, abs=0.12 * half)
    assert isinstance(low, float)
    assert isinstance(high, float)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.exercise("bias.bootstrap_interval")
def test_level_and_seed_are_used() -> None:
    x = np.random.default_rng(0).standard_normal((200, 2))

    def mean(part: np.ndarray) -> float:
        return float(part.mean())

    wide = bias.bootstrap_interval(mean, x, 2000, level=0.95)
    narrow = bias.bootstrap_interval(mean, x, 2000, level=0.5)
    ratio = (wide[1] - wide[0]) / (narrow[1] - narrow[0])
    assert ratio == pytest.approx(1.96 / 0.6745, rel=0.1)
    assert bias.bootstrap_interval(mean, x, 20, seed=4) == bias.bootstrap_interval(
        mean, x, 20, seed=4
    )
    assert bias.bootstrap_interval(mean, x, 20) == bias.bootstrap_interval(mean, x, 20, seed=0)
    assert bias.bootstrap_interval(mean, x, 20, seed=4) != bias.bootstrap_interval(
        mean, x, 20, seed=5
    )
    assert bias.bootstrap_interval(mean, x) == bias.bootstrap_interval(mean, x, 100, 0.95, 0)


@pytest.mark.exercise("bias.bootstrap_interval")
def test_draws_repeat_samples_are_as_many_and_as_told() -> None:
    x, seen = np.arange(50.0)[:, None], []

    def statistic(part: np.ndarray) -> float:
        seen.append(part)
        return float(part.mean())

    bias.bootstrap_interval(statistic, x, 30)
    draws = [part for part in seen if not np.array_equal(part, x)]
    assert len(draws) == 30
    assert all(part.shape == (50, 1) for part in draws)
    different = np.mean([len(np.unique(part)) for part in draws]) / 50
    assert different == pytest.approx(1 - 1 / np.e, abs=0.03)


@pytest.mark.exercise("bias.bootstrap_interval")
def test_a_skewed_statistic_is_reflected_and_a_biased_one_is_centred() -> None:
    """By hand, from the draws themselves."""
    x, seen = np.random.default_rng(2).gamma(1.0, 1.0, (60, 1)), []

    def statistic(part: np.ndarray) -> float:
        value = float(part.var() + len(np.unique(part)) / 60)  # a draw is biased by -1 / e
        seen.append((value, np.array_equal(part, x)))
        return value

    low, high = bias.bootstrap_interval(statistic, x, 500, level=0.9)
    draws = [value for value, original in seen if not original]
    own = next(value for value, original in seen if original)
    assert low == pytest.approx(own - (np.quantile(draws, 0.95) - np.mean(draws)))
    assert high == pytest.approx(own - (np.quantile(draws, 0.05) - np.mean(draws)))
    assert low < own < high


def test_intervals_of_a_distance_hold_as_often_as_they_say() -> None:
    """Repeated from the start: the mean distance at this N is inside in about 19 of 20 cases."""
    rng = np.random.default_rng(3)
    reference = frechet.gaussian(rng.standard_normal((4000, 4)))

    def distance(part: np.ndarray) -> float:
        return frechet.distance_from(part, reference)

    sets = [1.2 * rng.standard_normal((150, 4)) for _ in range(120)]
    mean = np.mean([distance(part) for part in sets])
    inside = 0
    for part in sets:
        low, high = bias.bootstrap_interval(distance, part, 60)
        inside += low <= mean <= high
    assert 0.85 <= inside / len(sets) <= 0.99
