"""Nearest neighbours: by hand on a line, brute force, the paper's closed form, and peers."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from evaluation import manifold
from labkit import UsageError


def line(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def cloud(n: int, d: int = 3, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)) + shift


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every matrix here comes in several blocks, the last one smaller."""
    monkeypatch.setattr(manifold, "BLOCK", 120)


def test_squared_distances_are_scipys_and_exactly_0_for_copies() -> None:
    a, b = cloud(20, 50), cloud(13, 50, seed=1) * 3
    b[4] = a[7]
    before = a.copy(), b.copy()
    found = manifold.squared_distances(a + 1000, b + 1000)
    np.testing.assert_allclose(found, cdist(a, b, "sqeuclidean"), rtol=1e-8, atol=1e-7)
    assert found[7, 4] == 0
    assert (found == 0).sum() == 1
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])


def test_nearest_names_distance_and_row() -> None:
    a, b = cloud(31, 4), cloud(17, 4, seed=1)
    distances, rows = manifold.nearest(a, b)
    full = cdist(a, b, "sqeuclidean")
    np.testing.assert_array_equal(rows, full.argmin(axis=1))
    np.testing.assert_allclose(distances, full.min(axis=1), atol=1e-12)


# --- radii ---


@pytest.mark.exercise("manifold.radii")
@pytest.mark.parametrize("k", [1, 2, 3])
def test_radii_are_distances_to_the_kth_other_point(k: int) -> None:
    points = line(0, 1, 3, 7, 20)
    others = {1: [1, 1, 2, 4, 13], 2: [3, 2, 3, 6, 17], 3: [7, 6, 4, 7, 19]}
    np.testing.assert_allclose(manifold.radii(points, k), np.square(others[k]), atol=1e-9)


@pytest.mark.exercise("manifold.radii")
def test_a_copy_is_a_neighbour_and_the_point_itself_is_not() -> None:
    found = manifold.radii(line(5, 5, 9), 1)
    np.testing.assert_array_equal(found, [0, 0, 16])


@pytest.mark.exercise("manifold.radii")
def test_radii_of_many_points_are_brute_force() -> None:
    points = cloud(50, 4)
    before = points.copy()
    found = manifold.radii(points, 5)
    assert found.shape == (50,)
    np.testing.assert_allclose(found, np.sort(cdist(points, points, "sqeuclidean"))[:, 5])
    np.testing.assert_array_equal(points, before)


@pytest.mark.exercise("manifold.radii")
def test_more_neighbours_than_points_are_refused() -> None:
    assert manifold.radii(line(1, 2, 4), 2).shape == (3,)
    with pytest.raises(UsageError, match="neighbours"):
        manifold.radii(line(1, 2, 4), 3)


# --- precision and recall ---


@pytest.mark.exercise("manifold.precision_recall")
def test_precision_and_recall_by_hand() -> None:
    """Real 0, 1, 2 and 10, 11 with radii 1; fake samples near the first group and far away."""
    real, fake = line(0, 1, 2, 10, 11), line(0.5, 1.5, 2.4, 50)
    precision, recall = manifold.precision_recall(real, fake, k=1)
    assert precision == pytest.approx(3 / 4)
    # radii of the fake ones: 1, 0.9, 0.9, 47.6; the last ball reaches down to 2.4
    assert recall == pytest.approx(5 / 5)
    precision, recall = manifold.precision_recall(real, line(0.4, 0.5, 0.6), k=1)
    assert precision == 1.0
    assert recall == 0.0


@pytest.mark.exercise("manifold.precision_recall")
def test_a_sample_on_the_border_is_inside() -> None:
    precision, _ = manifold.precision_recall(line(0, 1), line(2, 5), k=1)
    assert precision == 0.5


@pytest.mark.exercise("manifold.precision_recall")
def test_lost_variety_costs_recall_and_lost_quality_costs_precision() -> None:
    """The closed case that tells the two apart, whatever a library calls them."""
    modes = np.concatenate([cloud(60), cloud(60, seed=1, shift=40)])
    precision, recall = manifold.precision_recall(modes, cloud(80, seed=2))
    assert precision > 0.8
    assert recall < 0.55
    noisy = np.concatenate(
        [cloud(120, seed=3), cloud(120, seed=4, shift=40), cloud(240, seed=5, shift=-90)]
    )
    precision, recall = manifold.precision_recall(modes, noisy)
    assert precision == pytest.approx(0.45, abs=0.06)
    assert recall > 0.8


def balls(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    def share(points: np.ndarray, centres: np.ndarray) -> float:
        hits = 0
        for p in points:
            near = [np.sum((p - c) ** 2) <= sorted(np.sum((centres - c) ** 2, axis=1))[k]
                    for c in centres]  # fmt: skip
            hits += any(near)
        return hits / len(points)

    return share(fake, real), share(real, fake)


@pytest.mark.exercise("manifold.precision_recall")
@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_brute_force(k: int) -> None:
    real, fake = cloud(30), cloud(22, seed=1, shift=0.8)
    before = real.copy(), fake.copy()
    found = manifold.precision_recall(real, fake, k)
    assert found == pytest.approx(balls(real, fake, k))
    assert all(isinstance(value, float) for value in found)
    np.testing.assert_array_equal(real, before[0])
    np.testing.assert_array_equal(fake, before[1])


@pytest.mark.exercise("manifold.precision_recall")
def test_the_default_is_three_neighbours() -> None:
    real, fake = cloud(30), cloud(22, seed=1, shift=1.5)
    assert manifold.precision_recall(real, fake) == pytest.approx(balls(real, fake, 3))
    assert balls(real, fake, 3) != balls(real, fake, 2)
    assert balls(real, fake, 3) != balls(real, fake, 4)


def test_torch_fidelity_agrees_and_does_not_swap() -> None:
    theirs: Any = pytest.importorskip("torch_fidelity.metric_prc")
    real, fake = cloud(60), cloud(45, seed=1, shift=0.8)
    found = theirs.prc_features_to_metric(
        torch.from_numpy(fake), torch.from_numpy(real), prc_neighborhood=3, prc_batch_size=20,
        save_cpu_ram=False, verbose=False,
    )  # fmt: skip
    assert manifold.precision_recall(real, fake) == pytest.approx(
        (found["precision"], found["recall"])
    )


# --- density and coverage ---


@pytest.mark.exercise("manifold.density_coverage")
def test_density_and_coverage_by_hand() -> None:
    """Real balls of radius 1 around 0, 1, 2 and 10, 11, for k = 1."""
    real = line(0, 1, 2, 10, 11)
    density, coverage = manifold.density_coverage(real, line(0.5, 1.5, 30), k=1)
    # 0.5 is in the balls of 0 and 1, 1.5 in those of 1 and 2, 30 in none
    assert density == pytest.approx(4 / 3)
    assert coverage == pytest.approx(3 / 5)


@pytest.mark.exercise("manifold.density_coverage")
def test_density_is_divided_by_the_neighbours_too() -> None:
    real = line(0, 1, 2, 3)
    density, coverage = manifold.density_coverage(real, line(1.5), k=2)
    # squared radii for k = 2: 4, 1, 1, 4; distances 1.5, 0.5, 0.5, 1.5
    assert density == pytest.approx(4 / 2)
    assert coverage == 1.0


@pytest.mark.exercise("manifold.density_coverage")
def test_the_border_is_inside_and_outliers_do_not_count() -> None:
    assert manifold.density_coverage(line(0, 1), line(2, 500), k=1) == pytest.approx((0.5, 0.5))


@pytest.mark.exercise("manifold.density_coverage")
@pytest.mark.parametrize(("n", "m"), [(40, 25), (25, 40)])
def test_density_and_coverage_are_brute_force(n: int, m: int) -> None:
    real, fake = cloud(n), cloud(m, seed=1, shift=0.5)
    before = real.copy(), fake.copy()
    limit = np.sort(cdist(real, real), axis=1)[:, 5]
    inside = cdist(fake, real) <= limit
    expected = inside.sum() / (5 * m), inside.any(axis=0).mean()
    found = manifold.density_coverage(real, fake)
    assert found == pytest.approx(expected)
    assert all(isinstance(value, float) for value in found)
    np.testing.assert_array_equal(real, before[0])
    np.testing.assert_array_equal(fake, before[1])


@pytest.mark.exercise("manifold.density_coverage")
@pytest.mark.parametrize(("n", "m", "k"), [(40, 40, 5), (30, 60, 3)])
def test_equal_distributions_have_density_1_and_the_papers_coverage(n: int, m: int, k: int) -> None:
    """Naeem et al. 2020, section 3.2, over draws."""
    draws = [manifold.density_coverage(cloud(n, 2, 2 * i), cloud(m, 2, 2 * i + 1), k)
             for i in range(60)]  # fmt: skip
    density, coverage = np.mean(draws, axis=0)
    assert density == pytest.approx(1, abs=0.06)
    assert coverage == pytest.approx(manifold.expected_coverage(n, m, k), abs=0.02)
