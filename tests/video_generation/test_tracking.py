"""The tracker finds what was drawn where it was drawn; the guesses are lines."""

import numpy as np
import pytest
import torch

from video_generation import data, tracking
from video_generation.data import Motion


@pytest.mark.exercise("tracking.track")
def test_track_finds_whole_positions_exactly() -> None:
    rng = np.random.default_rng(0)
    sprites = rng.uniform(0.2, 1, (3, 2, 2, 3, 3)).astype(np.float32)
    frames = np.zeros((3, 4, 2, 8, 8), np.uint8)
    corners = np.zeros((3, 4, 2, 2))
    for n, t in np.ndindex(3, 4):
        for o, (top, left) in enumerate(((t, (n + t) % 6), (5 - t, 5))):
            if o == 0 or t < 2:  # the second object is there at first only
                piece = (sprites[n, o] * 255).round().astype(np.uint8)
                frames[n, t, :, top : top + 3, left : left + 3] = piece
            corners[n, t, o] = top, left
    alone = torch.from_numpy(frames[:, 2:])
    kept = alone.clone()
    found = tracking.track(alone, torch.from_numpy(sprites))
    assert found.shape == (3, 2, 2, 2)
    assert np.abs(found[:, :, 0].numpy() - corners[:, 2:, 0]).max() <= 0.5
    assert np.array_equal(found[:, :, 0].round().numpy(), corners[:, 2:, 0])
    assert torch.equal(alone, kept)


@pytest.mark.exercise("tracking.track")
def test_track_is_the_best_of_all_sums_and_the_parabola_through_it() -> None:
    """By loops, on noise: there is no object, but there is a best score."""
    torch.manual_seed(0)
    frames = torch.randint(256, (2, 3, 3, 7, 7), dtype=torch.uint8)
    sprites = torch.rand(2, 2, 3, 3, 3, dtype=torch.float64)
    found = tracking.track(frames, sprites)
    assert found.dtype == torch.float32
    for n, t, o in np.ndindex(2, 3, 2):
        scores = np.zeros((5, 5))
        for i, j in np.ndindex(5, 5):
            window = frames[n, t, :, i : i + 3, j : j + 3].double()
            scores[i, j] = float((window * sprites[n, o].double()).sum())
        i, j = np.unravel_index(scores.argmax(), scores.shape)
        expected = []
        for best, line in ((int(i), scores[:, j]), (int(j), scores[i])):
            peak = float(best)
            if 0 < best < 4:
                a, b, _ = np.polyfit([-1, 0, 1], line[best - 1 : best + 2], 2)
                peak += float(np.clip(-b / (2 * a), -0.5, 0.5))
            expected.append(peak)
        assert found[n, t, o].tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.exercise("tracking.track")
def test_track_follows_a_bouncing_object_to_a_part_of_a_pixel() -> None:
    clips = data.ball_pools()["test"].clips(30, Motion(6, 16), seed=1)
    found = tracking.track(torch.from_numpy(clips.frames), torch.from_numpy(clips.sprites))
    error = np.linalg.norm(found.numpy() - clips.positions, axis=-1)
    assert error.mean() < 0.2
    assert error.max() < 0.8


@pytest.mark.exercise("tracking.track")
def test_track_of_an_object_that_fills_the_frame_on_its_device() -> None:
    frames = torch.ones(1, 2, 1, 3, 3, dtype=torch.uint8)
    assert not tracking.track(frames, torch.ones(1, 1, 1, 3, 3)).any()
    found = tracking.track(frames.to("meta"), torch.ones(1, 1, 1, 3, 3, device="meta"))
    assert (found.device.type, found.shape) == ("meta", (1, 2, 1, 2))


def test_vertex_is_the_peak_of_the_parabola() -> None:
    place = torch.arange(6.0)
    for peak, best in ((2.3, 2), (3.5, 3), (3.6, 4)):
        scores = 5 - 2 * (place - peak) ** 2
        found = tracking.vertex(scores[None], torch.tensor([best]))
        assert found.item() == pytest.approx(peak - best, abs=1e-5)
    falling = torch.tensor([[5.0, 4, 3]])
    assert tracking.vertex(falling, torch.tensor([0])).item() == 0


def test_constant_velocity_is_exact_on_a_line_and_stops_at_the_wall() -> None:
    line = np.stack([1.0 + 1.5 * np.arange(6), 5.0 - 0.5 * np.arange(6)], axis=-1)[None, :, None]
    found = tracking.constant_velocity(line, 2, room=7.0)
    np.testing.assert_allclose(found[0, :, 0, 1], line[0, :, 0, 1])
    np.testing.assert_allclose(found[0, :, 0, 0], [1, 2.5, 4, 5.5, 7, 7])
    line[:, 3:] = 99  # what is to be predicted is not looked at
    assert np.array_equal(tracking.constant_velocity(line, 3, room=7.0)[0, 3, 0], [5.5, 3.5])


def test_copy_last_and_distance() -> None:
    true = np.zeros((1, 3, 1, 2))
    true[0, :, 0, 0] = [0, 3, 6]
    true[0, :, 0, 1] = [0, 4, 8]
    guess = tracking.copy_last(true, 1)
    where = np.array([[[False], [True], [True]]])
    assert tracking.distance(guess, true, where) == pytest.approx(7.5)
    assert tracking.distance(true, true, where) == 0
    assert np.isnan(tracking.distance(true, true, where & False))
