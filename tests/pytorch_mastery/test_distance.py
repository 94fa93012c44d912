"""The distance over features, with features whose distances are known in closed form."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pytorch_mastery.distance import FeatureDistance


class Pixels:
    """Features are the pixels, each in its own unit: a stand-in for a classifier of any scale."""

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1) * self.scale


def pictures(n: int, seed: int, mean: float = 128.0, deviation: float = 20.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = mean + deviation * torch.randn(n, 1, 2, 3, generator=generator)
    return x.round().clamp(0, 255).to(torch.uint8)


UNITS = [torch.ones(6), torch.tensor([1e-3, 1.0, 1e3, 5.0, 0.2, 40.0])]


@pytest.mark.parametrize("scale", UNITS)
def test_a_shift_counts_squared_in_deviations_of_each_feature(scale: Tensor) -> None:
    """All 6 features moved by half a deviation: 6 * 0.5^2 = 1.5, in whatever units."""
    distance = FeatureDistance(Pixels(scale), pictures(20_000, 0), pictures(20_000, 1), 20_000)  # type: ignore[arg-type]
    assert distance(pictures(20_000, 2, mean=138.0)) == pytest.approx(1.5, abs=0.06)


@pytest.mark.parametrize("scale", UNITS)
def test_a_wider_set_counts_by_the_difference_of_deviations(scale: Tensor) -> None:
    """Deviation 30 instead of 20 in 6 independent features: 6 * (1.5 - 1)^2 = 1.5."""
    distance = FeatureDistance(Pixels(scale), pictures(20_000, 0), pictures(20_000, 1), 20_000)  # type: ignore[arg-type]
    assert distance(pictures(20_000, 2, deviation=30.0)) == pytest.approx(1.5, abs=0.06)


def test_real_against_real_falls_as_one_over_the_count() -> None:
    """Two sets of one law are apart by the error of their own means and covariances alone."""
    draws = [
        [
            FeatureDistance(Pixels(UNITS[0]), pictures(9_000, 2 * i), pictures(9_000, 2 * i + 1), n)
            for i in range(6)
        ]
        for n in (200, 3200)
    ]  # type: ignore[arg-type]
    small, large = (np.mean([d.real for d in row]) for row in draws)
    assert small / large == pytest.approx(16, rel=0.4)


def test_the_same_pictures_are_at_no_distance() -> None:
    test = pictures(500, 1)
    distance = FeatureDistance(Pixels(UNITS[1]), pictures(500, 0), test, 500)  # type: ignore[arg-type]
    assert distance(test) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(distance.real)
