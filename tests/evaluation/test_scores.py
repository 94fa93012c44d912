"""Inception score, two-sample test, copies: closed forms, SciPy, known cases."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from evaluation import inception, memorisation, two_sample
from labkit import UsageError

# --- Inception score ---


@pytest.mark.exercise("inception.inception_score")
def test_sure_and_equally_frequent_classes_give_the_number_of_classes() -> None:
    assert inception.inception_score(np.eye(5)[[0, 1, 2, 3, 4] * 3]) == pytest.approx(5)
    assert inception.inception_score(np.eye(5)[[0, 1, 1, 0]]) == pytest.approx(2)
    found = inception.inception_score(np.eye(5)[[3, 3, 3]])
    assert found == pytest.approx(1)
    assert isinstance(found, float)


@pytest.mark.exercise("inception.inception_score")
def test_undecided_images_give_1() -> None:
    assert inception.inception_score(np.full((7, 4), 0.25)) == pytest.approx(1)
    same = np.tile([0.7, 0.2, 0.1], (6, 1))
    assert inception.inception_score(same) == pytest.approx(1)


@pytest.mark.exercise("inception.inception_score")
def test_inception_score_is_scipys_mean_divergence() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(4), size=9)
    before = p.copy()
    divergences = [stats.entropy(row, p.mean(axis=0)) for row in p]
    assert inception.inception_score(p) == pytest.approx(math.exp(np.mean(divergences)))
    np.testing.assert_array_equal(p, before)


def test_torch_fidelity_agrees_on_the_inception_score() -> None:
    theirs: Any = pytest.importorskip("torch_fidelity.metric_isc")
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = theirs.isc_features_to_metric(logits, splits=1)["inception_score_mean"]
    assert inception.inception_score(logits.softmax(dim=1).numpy()) == pytest.approx(found)


# --- two-sample test ---


@pytest.mark.exercise("two_sample.p_value")
@pytest.mark.parametrize(("accuracy", "count"), [(0.5, 10), (0.53, 1000), (0.47, 400), (0.9, 30)])
def test_p_value_is_the_upper_tail_of_the_binomials_gaussian(accuracy: float, count: int) -> None:
    tail = stats.norm.sf(accuracy, loc=0.5, scale=math.sqrt(0.25 / count))
    assert two_sample.p_value(accuracy, count) == pytest.approx(tail, rel=1e-9)


@pytest.mark.exercise("two_sample.p_value")
def test_p_value_is_near_the_exact_binomial() -> None:
    exact = stats.binomtest(1060, 2000, alternative="greater").pvalue
    assert two_sample.p_value(1060 / 2000, 2000) == pytest.approx(exact, rel=0.1)


def test_equal_distributions_pass_and_different_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    x, y, z = (rng.standard_normal((300, 5)) for _ in range(3))
    before = torch.get_rng_state()
    accuracy, p = two_sample.two_sample_test(x, y)
    assert 0.4 < accuracy < 0.6
    assert p > 0.01
    z[:, 2] *= 4  # equal means, so a linear classifier would see nothing
    accuracy, p = two_sample.two_sample_test(x, z)
    assert accuracy > 0.65
    assert p < 1e-6
    assert torch.equal(torch.get_rng_state(), before), "the run's own generator is not touched"
    assert two_sample.two_sample_test(x, z, seed=3) == two_sample.two_sample_test(x, z, seed=3)


def test_copies_in_both_halves_do_not_help_and_few_images_are_refused() -> None:
    x = np.random.default_rng(0).standard_normal((50, 3))
    accuracy, _ = two_sample.two_sample_test(x, x.copy()[:33])
    assert 0.2 < accuracy < 0.8
    with pytest.raises(UsageError, match="four images or more"):
        two_sample.two_sample_test(x, x[:3])


def test_p_values_of_equal_distributions_are_spread_evenly() -> None:
    rng = np.random.default_rng(1)
    values = [two_sample.two_sample_test(*rng.standard_normal((2, 60, 2)), seed=i)[1]
              for i in range(12)]  # fmt: skip
    assert 0.2 < np.mean(values) < 0.8


# --- copies ---


@pytest.mark.exercise("memorisation.copied_share")
def test_an_honest_model_comes_out_at_the_share() -> None:
    held_out = np.arange(1, 1001.0)
    before = held_out.copy()
    assert memorisation.copied_share(held_out, held_out, 0.01) == pytest.approx(1.0)
    assert memorisation.copied_share(held_out, held_out) == pytest.approx(1.0)
    assert memorisation.copied_share(held_out, held_out, 0.25) == pytest.approx(25)
    np.testing.assert_array_equal(held_out, before)


@pytest.mark.exercise("memorisation.copied_share")
def test_copies_and_far_samples() -> None:
    held_out = np.array([4.0, 5.0, 6.0, 7.0, 9.0])
    found = memorisation.copied_share(np.array([0.0, 0.0, 5.0, 4.0, 8.0, 2.0]), held_out, 0.0)
    assert found == pytest.approx(100 * 4 / 6)  # the limit is 4, and 4 itself counts
    assert isinstance(found, float)
    assert memorisation.copied_share(np.array([50.0]), held_out, 0.5) == 0


@pytest.mark.exercise("memorisation.copied_share")
def test_exact_copies_count_also_when_held_out_images_are_copies() -> None:
    held_out = np.array([0.0, 0.0, 0.0, 3.0])
    assert memorisation.copied_share(np.array([0.0, 1.0]), held_out, 0.01) == 50


def test_copying_z_is_scipys_mann_whitney() -> None:
    rng = np.random.default_rng(0)
    samples, held_out = rng.gamma(2, 1.0, 60), rng.gamma(2, 1.3, 80)
    z = memorisation.copying_z(samples, held_out)
    tail = stats.mannwhitneyu(
        samples, held_out, alternative="less", method="asymptotic", use_continuity=False
    ).pvalue
    assert stats.norm.cdf(z) == pytest.approx(tail)
    assert z < 0
    assert memorisation.copying_z(np.zeros(60), held_out) < -9
    assert memorisation.copying_z(held_out + 9, held_out) > 9
