"""Standardising and shifting against direct computation."""

import numpy as np
import pytest

from labkit.data import ImageData, Split
from neural_networks import inputs


def test_standardized_training_set_has_mean_0_and_deviation_1():
    rng = np.random.default_rng(0)
    images = rng.integers([[[0]], [[50]], [[200]]], [[[90]], [[60]], [[255]]], (200, 3, 6, 5))
    split = Split(images.astype(np.uint8), np.zeros(200, int))  # channels of unlike means
    data = ImageData("random", "made here", split, split, ("0",))
    x = inputs.Scaling(data.mean, data.std, "standardized")(split.x)
    assert x.dtype == np.float32
    channels = x.reshape(len(x), 3, -1)
    np.testing.assert_allclose(channels.mean(axis=(0, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(channels.std(axis=(0, 2)), 1, atol=1e-3)


@pytest.mark.parametrize(("kind", "largest"), [("unit", 1.0), ("raw", 255.0)])
def test_other_scales(kind: str, largest: float):
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    x = inputs.Scaling([0.3], [0.2], kind)(images)
    np.testing.assert_allclose(x[:, 0], [0, 0.2 * largest, largest], rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_channel_of_one_value_becomes_0_and_not_nan():
    images = np.stack([np.full((4, 4), 51, np.uint8), np.arange(16, dtype=np.uint8).reshape(4, 4)])
    x = inputs.Scaling([0.2, 0.5], [0.0, 0.5], "standardized")(images[None])
    np.testing.assert_allclose(x[0, :16], 0, atol=1e-6)
    np.testing.assert_allclose(x[0, 16:], np.arange(16) / 127.5 - 1, rtol=1e-5)


def test_every_image_is_shifted_on_its_own_and_by_a_pixel_at_most():
    images = np.random.default_rng(0).integers(1, 256, (50, 2, 6, 5), dtype=np.uint8)
    windows = inputs.shifts(images, 1)
    assert np.shares_memory(windows, windows.base)
    np.testing.assert_array_equal(windows[:, :, 1, 1], images)
    indices = np.arange(50)[::-1]
    batch = inputs.shifted_batch(windows, indices, seed=0, step=0)
    assert batch.shape == images.shape
    seen = set()
    for image, shifted in zip(images[indices], batch, strict=True):
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
        places = [(i, j) for i in range(3) for j in range(3)
                  if (padded[:, i : i + 6, j : j + 5] == shifted).all()]  # fmt: skip
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 9


def test_a_batch_depends_on_seed_and_step_only():
    windows = inputs.shifts(np.arange(50 * 9, dtype=np.uint8).reshape(50, 1, 3, 3), 1)
    indices = np.arange(50)
    first = inputs.shifted_batch(windows, indices, seed=3, step=7)
    np.testing.assert_array_equal(first, inputs.shifted_batch(windows, indices, seed=3, step=7))
    assert (first != inputs.shifted_batch(windows, indices, seed=3, step=8)).any()
    assert (first != inputs.shifted_batch(windows, indices, seed=4, step=7)).any()


def test_no_shift_is_the_image_itself():
    images = np.arange(8 * 9, dtype=np.uint8).reshape(8, 1, 3, 3)
    batch = inputs.shifted_batch(inputs.shifts(images, 0), np.arange(8), seed=0, step=0)
    np.testing.assert_array_equal(batch, images)
