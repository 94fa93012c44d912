"""KID: brute force over pairs, unbiasedness, and the field's tools."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from evaluation import kernel
from labkit import UsageError


def features(n: int, d: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)) + 0.3 * seed


def by_pairs(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    def within(z: np.ndarray) -> float:
        return float(np.mean([k(a, b) for a, b in itertools.permutations(z, 2)]))

    return within(x) + within(y) - 2 * float(np.mean([k(a, b) for a in x for b in y]))


@pytest.mark.exercise("kernel.mmd")
@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (5, 3, 4), (3, 6, 2)])
def test_mmd_is_that_over_all_pairs(n: int, m: int, d: int) -> None:
    x, y = features(n, d, 1), features(m, d, 2)
    before = x.copy(), y.copy()
    found = kernel.mmd(x, y)
    assert isinstance(found, float)
    assert found == pytest.approx(by_pairs(x, y))
    assert kernel.mmd(y, x) == pytest.approx(found)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


@pytest.mark.exercise("kernel.mmd")
def test_mmd_is_unbiased_for_equal_distributions() -> None:
    """The mean over draws is 0 within its error, at five samples as at fifty."""
    rng = np.random.default_rng(0)
    for n in (5, 50):
        draws = [kernel.mmd(rng.standard_normal((n, 3)), rng.standard_normal((n, 3)))
                 for _ in range(400)]  # fmt: skip
        error = np.std(draws) / np.sqrt(len(draws))
        assert abs(np.mean(draws)) < 4 * error
        assert min(draws) < 0


def test_kernel_is_cubic_and_divided_by_the_dimensions() -> None:
    x, y = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(kernel.kernel(x, y), [[(11 / 2 + 1) ** 3, 1.0]])


def test_kid_averages_subsets_and_does_not_change_with_their_size() -> None:
    x, y = features(300, seed=1), features(400, seed=2)
    whole = kernel.mmd(x, y)
    mean, deviation = kernel.kid(x, y, size=60, subsets=200)
    assert mean == pytest.approx(whole, abs=4 * deviation / np.sqrt(200) + 0.05 * whole)
    assert deviation > 0
    assert kernel.kid(x, y, 60, 3, seed=1) == kernel.kid(x, y, 60, 3, seed=1)
    assert kernel.kid(x, y, 60, 3, seed=1) != kernel.kid(x, y, 60, 3, seed=2)
    all_of_them, nothing = kernel.kid(x, y[:300], size=1000, subsets=2)
    assert all_of_them == pytest.approx(kernel.mmd(x, y[:300]))
    assert nothing == pytest.approx(0, abs=1e-12)
    with pytest.raises(UsageError, match="two images or more"):
        kernel.kid(x[:1], y)


def test_torch_fidelity_agrees() -> None:
    theirs: Any = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = features(50, 6, 1), features(50, 6, 2)
    found = theirs.kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=1, kid_subset_size=50, verbose=False
    )
    assert kernel.mmd(x, y) == pytest.approx(found["kernel_inception_distance_mean"])


def test_clean_fid_agrees() -> None:
    theirs: Any = pytest.importorskip("cleanfid.fid")
    x, y = features(40, 6, 1), features(40, 6, 2)
    found = theirs.kernel_distance(x, y, num_subsets=1, max_subset_size=40)
    assert kernel.mmd(x, y) == pytest.approx(found)
