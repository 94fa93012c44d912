"""Clips: the dynamics against a simulation, pixels against sums, splits without anything shared."""

import numpy as np
import pytest

from labkit import UsageError
from video_generation import data
from video_generation.data import Motion, Pool


def simulated(start: float, velocity: float, time: float, room: float) -> tuple[float, int]:
    """The position after `time`, and the reflections, in small steps that end at each wall."""
    place, speed, hits = start, velocity, 0
    while True:
        wall = room if speed > 0 else 0.0
        until = (wall - place) / speed if speed else float("inf")
        if until > time:
            return place + speed * time, hits
        place, speed, time, hits = wall, -speed, time - until, hits + 1


@pytest.mark.exercise("data.bounce")
@pytest.mark.parametrize("room", [9.0, 1.5])
def test_bounce_is_the_simulation(room: float) -> None:
    rng = np.random.default_rng(0)
    start = rng.uniform(0, room, (5, 2, 2))
    velocity = rng.uniform(-7, 7, (5, 2, 2))
    velocity[0, 0] = 0
    times = np.array([0.0, 0.5, 1.0, 3.0, 7.25])
    kept = start.copy(), velocity.copy(), times.copy()
    places, hits = data.bounce(start, velocity, times, room)
    assert places.shape == hits.shape == (5, 2, 2, 5)
    assert (places.dtype, hits.dtype) == (np.float64, np.int64)
    for index in np.ndindex(start.shape):
        for j, time in enumerate(times):
            place, count = simulated(start[index], velocity[index], time, room)
            assert places[index][j] == pytest.approx(place, abs=1e-9)
            assert hits[index][j] == count
    assert all(np.array_equal(a, b) for a, b in zip(kept, (start, velocity, times), strict=True))


@pytest.mark.exercise("data.bounce")
def test_bounce_of_one_point_by_hand() -> None:
    places, hits = data.bounce(np.array(1.0), np.array(-2.0), np.arange(5), 4.0)
    assert places.tolist() == [1, 1, 3, 3, 1]  # 1, -1, -3, -5, -7 unfolded
    assert hits.tolist() == [0, 1, 1, 2, 2]


@pytest.mark.exercise("data.coverage")
@pytest.mark.parametrize(("cells", "size", "side"), [(5, 3.5, 9), (2, 3.0, 4), (7, 2.0, 5)])
def test_coverage_is_the_share_of_fine_points(cells: int, size: float, side: int) -> None:
    corner = np.array([[0.0, 0.3], [1.25, -0.7]])
    kept = corner.copy()
    found = data.coverage(corner, size, cells, side)
    assert found.shape == (2, 2, side, cells)
    assert found.dtype == np.float32
    fine = 4000
    point = (np.arange(side * fine) + 0.5) / fine
    for index in np.ndindex(corner.shape):
        cell = np.floor((point - corner[index]) / (size / cells))
        for j in range(cells):
            share = (cell == j).reshape(side, fine).mean(axis=1)
            np.testing.assert_allclose(found[index][:, j], share, atol=2e-3)
    assert np.array_equal(corner, kept)


@pytest.mark.exercise("data.coverage")
def test_coverage_of_one_corner_is_computed_in_float64() -> None:
    found = data.coverage(np.array(2.0), 2.0, 2, 5)
    assert found.tolist() == [[0, 0], [0, 0], [1, 0], [0, 1], [0, 0]]
    far = data.coverage(np.array(4_000_000.3), 1.0, 1, 4_000_002)[-2:, 0]
    np.testing.assert_allclose(far, [0.7, 0.3], atol=1e-6)


def test_half_the_side_is_the_mean_of_four_pixels() -> None:
    rng = np.random.default_rng(0)
    sprite, corner = rng.random((3, 2, 28, 28), dtype=np.float32), rng.uniform(0, 18, (3, 2))
    large = data.draw(sprite, corner, 14, 32)
    small = data.draw(sprite, corner / 2, 7, 16)
    assert large.shape == (3, 2, 32, 32)
    mean = large.reshape(3, 2, 16, 2, 16, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(small, mean, atol=1e-5)


def test_a_clip_has_its_object_where_it_says() -> None:
    """The centre of brightness is the position plus the object's own centre, to rounding."""
    pool = data.ball_pools()["test"]
    clips = pool.clips(20, Motion(7, 16), seed=3)
    assert clips.frames.shape == (20, 7, 1, 16, 16)
    assert clips.frames.dtype == np.uint8
    assert clips.sprites.shape == (20, 1, 1, 7, 7)
    light, place = clips.frames[:, :, 0].astype(float), np.arange(16) + 0.5
    for axis, summed in ((0, light.sum(axis=3)), (1, light.sum(axis=2))):
        centre = (summed * place).sum(axis=2) / summed.sum(axis=2)
        offset = centre - clips.positions[:, :, 0, axis]
        np.testing.assert_allclose(offset, 3.5, atol=0.05)  # all balls are symmetric
    steps = np.linalg.norm(clips.velocity[:, 0], axis=1) / 16
    assert (steps.min() >= data.SLOWEST, steps.max() <= data.FASTEST) == (True, True)
    assert np.array_equal(clips.bounces[:, 0], np.zeros((20, 1)))
    straight = clips.bounces[:, 1, 0] == 0
    moved = clips.positions[straight, 1, 0] - clips.positions[straight, 0, 0]
    np.testing.assert_allclose(moved, clips.velocity[straight, 0], atol=1e-9)


def test_twice_the_rate_has_the_same_clips_between() -> None:
    pool = data.ball_pools()["test"]
    slow, fast = pool.clips(6, Motion(4, 16), 1), pool.clips(6, Motion(7, 16, rate=2), 1)
    assert np.array_equal(slow.frames, fast.frames[:, ::2])
    np.testing.assert_allclose(slow.positions, fast.positions[:, ::2])
    assert np.array_equal(slow.bounces, fast.bounces[:, ::2])
    np.testing.assert_allclose(slow.velocity, 2 * fast.velocity)


def test_of_two_objects_the_brighter_pixel_is_shown() -> None:
    x = np.full((1, 3, 4, 4), 200, np.uint8)
    clips = data.make(x, np.zeros(1, np.int64), 5, Motion(3, 16, objects=2), seed=0)
    assert clips.positions.shape == (5, 3, 2, 2)
    assert clips.frames.shape == (5, 3, 3, 16, 16)
    assert clips.frames.max() == 200


def test_clips_depend_on_the_seed_alone() -> None:
    pool = data.ball_pools()["train"]
    one, same, other = (pool.clips(4, Motion(3, 16), seed) for seed in (5, 5, 6))
    assert np.array_equal(one.frames, same.frames)
    assert not np.array_equal(one.positions, other.positions)


@pytest.mark.exercise("data.split_pools")
@pytest.mark.parametrize(("count", "share", "held"), [(10, 0.25, 2), (7, 0.5, 4), (40, 0.1, 4)])
def test_a_picture_is_in_one_pool_with_its_class(count: int, share: float, held: int) -> None:
    x = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 3), np.uint8)
    y = np.arange(count) + 100
    train, validation = data.split_pools(x, y, share, seed=1)
    assert (len(train), len(validation)) == (count - held, held)
    found = [set(pool.x[:, 0, 0, 0].tolist()) for pool in (train, validation)]
    assert not found[0] & found[1]
    assert found[0] | found[1] == set(range(count))
    for pool in (train, validation):
        assert pool.x.shape[1:] == (1, 2, 3)
        assert np.array_equal(pool.y, pool.x[:, 0, 0, 0] + 100)


@pytest.mark.exercise("data.split_pools")
def test_the_validation_pool_is_the_first_of_the_order_of_the_seed() -> None:
    from labkit.data import epoch_order

    x, y = np.zeros((20, 1, 1, 1), np.uint8), np.arange(20)
    for seed in (0, 3):
        train, validation = data.split_pools(x, y, 0.3, seed)
        order = epoch_order(20, 0, seed)
        assert np.array_equal(validation.y, order[:6])
        assert sorted(train.y) == sorted(order[6:])


@pytest.mark.exercise("data.split_pools")
@pytest.mark.parametrize("share", [0.01, 0.99])
def test_an_empty_pool_is_refused(share: float) -> None:
    with pytest.raises(UsageError):
        data.split_pools(np.zeros((10, 1, 1, 1), np.uint8), np.arange(10), share, 0)


def test_digits_of_the_three_splits_are_different_ones() -> None:
    from labkit.data import ImageData, load

    digits = load("digits", kind=ImageData)
    pools = data.pools(digits, 0.1)
    assert set(pools) == set(data.SPLITS)
    assert np.array_equal(pools["test"].x, digits.test.x)
    kept = np.concatenate([pools["train"].x, pools["validation"].x])
    both = [sorted(map(bytes, np.ascontiguousarray(x))) for x in (kept, digits.train.x)]
    assert both[0] == both[1]


def test_the_digest_is_of_pictures_and_classes() -> None:
    one = Pool(np.zeros((2, 1, 3, 3), np.uint8), np.arange(2))
    assert data.digest({"a": one}) == data.digest({"b": one})
    for other in (Pool(one.x + 1, one.y), Pool(one.x, one.y + 1)):
        assert data.digest({"a": one}) != data.digest({"a": other})
