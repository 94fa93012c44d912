"""Measures: positions on clips that are known, distances against a closed form."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytorch_mastery import FeatureDistance
from video_generation import data, evaluate, judge
from video_generation.data import Motion
from video_generation.pipeline import Settings

SETTINGS = Settings("base", 6, 16, 3, 0.3, "euler", 2, 1)


def balls(settings: Settings = SETTINGS, n: int = 40) -> data.Clips:
    return data.ball_pools()["test"].clips(n, settings.motion(), seed=1)


@pytest.mark.parametrize(
    ("stage", "frames", "side", "rate"),
    [("base", 6, 16, 1), ("temporal", 11, 16, 2), ("spatial", 11, 32, 2)],
)
def test_the_motion_of_the_stages(stage: str, frames: int, side: int, rate: int) -> None:
    assert replace(SETTINGS, stage=stage).motion(3) == Motion(frames, side, 3, rate)


def test_true_clips_have_the_error_of_the_tracker_and_copies_that_of_the_copy() -> None:
    clips = balls()
    x = torch.from_numpy(clips.frames)
    errors = evaluate.position_errors(SETTINGS, clips, x)
    assert errors["tracking_error"] == errors["tracker_error"] < 0.2
    assert errors["tracking_error"] < errors["velocity_error"] < errors["copy_error"]
    assert errors["bounce_velocity_error"] > errors["velocity_error"]
    still = x.clone()
    still[:, 3:] = x[:, 2:3]
    copied = evaluate.position_errors(SETTINGS, clips, still)
    assert copied["tracking_error"] == pytest.approx(errors["copy_error"], abs=0.1)
    assert copied["bounce_error"] == pytest.approx(errors["bounce_copy_error"], abs=0.1)
    simple = min(copied["bounce_copy_error"], copied["bounce_velocity_error"])
    assert copied["bounce_ratio"] == pytest.approx(copied["bounce_error"] / simple)


def test_guesses_by_loops() -> None:
    clips = balls(n=20)
    copied, line, bounced = evaluate.guesses(SETTINGS, clips)
    for n in range(20):
        true, hits = clips.positions[n, :, 0], clips.bounces[n, :, 0]
        for t in range(3, 6):
            assert np.array_equal(copied[n, t, 0], true[2])
            ahead = np.clip(true[2] + (t - 2) * (true[2] - true[1]), 0, 9)
            np.testing.assert_allclose(line[n, t, 0], ahead)
            assert bounced[n, t, 0] == (hits[t] > hits[2])


def test_guesses_between_two_frames_by_loops() -> None:
    settings = replace(SETTINGS, stage="temporal")
    clips = balls(settings, 20)
    copied, line, bounced = evaluate.guesses(settings, clips)
    drawn = evaluate.drawn_frames(settings, clips)
    for n in range(20):
        true, hits = clips.positions[n, :, 0], clips.bounces[n, :, 0]
        for t in range(11):
            assert drawn[n, t, 0] == (t % 2 == 1)
            if t % 2:
                assert np.array_equal(copied[n, t, 0], true[t - 1])
                np.testing.assert_allclose(line[n, t, 0], (true[t - 1] + true[t + 1]) / 2)
                assert bounced[n, t, 0] == (hits[t + 1] > hits[t - 1])
            else:
                assert not bounced[n, t, 0]


def test_what_is_drawn() -> None:
    assert evaluate.drawn_frames(SETTINGS, balls(n=1))[0, :, 0].tolist() == [False] * 3 + [True] * 3
    spatial = replace(SETTINGS, stage="spatial")
    assert evaluate.drawn_frames(spatial, balls(spatial, 1)).all()


def test_psnr_of_a_known_error() -> None:
    true = torch.full((1, 2, 1, 4, 4), 100, dtype=torch.uint8)
    assert evaluate.psnr(true + 10, true) == pytest.approx(10 * np.log10(255**2 / 100))
    assert evaluate.psnr(true, true) > 70


class Means(nn.Module):
    """A judge of two features: the mean of the first frame, and of the last."""

    def features(self, clips: Tensor) -> Tensor:
        return torch.stack([clips[:, 0].mean((1, 2, 3)), clips[:, -1].mean((1, 2, 3))], dim=1)


def test_the_distance_of_clips_is_that_of_two_gaussians() -> None:
    """For features of one dimension each, independent: (m1 - m2)^2 + (s1 - s2)^2, in units of the
    training set's deviation. Frames that the features do not look at do not count.
    """
    rng = np.random.default_rng(0)

    def clips(low: int, high: int) -> Tensor:
        grey = rng.integers(low, high, (4000, 3, 1, 1, 1))
        return torch.from_numpy(np.broadcast_to(grey, (4000, 3, 1, 2, 2)).astype(np.uint8))

    train, test = clips(50, 150), clips(50, 150)
    found = FeatureDistance(Means(), train, test, 4000)  # type: ignore[arg-type]
    deviation = 100 / 12**0.5
    moved = (test.float() + 30).to(torch.uint8)
    moved[:, 1] = 0
    assert found(moved) == pytest.approx(2 * (30 / deviation) ** 2, rel=0.03)
    wide = ((test.float() - 100) * 1.5 + 100).to(torch.uint8)
    assert found(wide) == pytest.approx(2 * 0.5**2, rel=0.05)
    assert found.real < 0.01


def test_one_frame_of_each_clip() -> None:
    clips = torch.arange(5 * 3).view(5, 3, 1, 1, 1)
    assert evaluate.single(clips).flatten().tolist() == [0, 4, 8, 9, 13]


def test_targets_of_the_judge_by_hand() -> None:
    clips = data.make(
        np.full((3, 1, 4, 4), 255, np.uint8), np.array([0, 2, 2]), 6, Motion(4, 16, 2), seed=0
    )
    found = judge.targets(clips, 4, torch.device("cpu"))
    for n in range(6):
        present = [float(c in clips.labels[n]) for c in range(4)]
        assert found[n, :4].tolist() == present
        velocity = clips.velocity[n].mean(axis=0)
        assert found[n, 4:6].tolist() == pytest.approx(velocity.tolist(), rel=1e-5)
        assert found[n, 6].item() == pytest.approx(clips.bounces[n, -1].mean())


def test_the_judge_learns_and_is_the_same_whatever_the_seed_of_the_run() -> None:
    clips = data.ball_pools()["train"].clips(64, Motion(4, 8), seed=1)
    x = torch.from_numpy(clips.frames)
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        made.append(judge.train_judge(x, clips, 3, contextlib.nullcontext, 60))
        assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True):
        assert torch.equal(a, b)
    right, off = judge.skill(made[0], x, clips, 3)
    untrained = judge.skill(judge.VideoClassifier(1, 3), x, clips, 3)
    assert right > 45
    assert off < untrained[1]


def test_clips_beside_each_other() -> None:
    true = torch.full((10, 3, 1, 16, 16), 255, dtype=torch.uint8)
    drawn = torch.zeros(10, 3, 1, 16, 16, dtype=torch.uint8)
    shown = evaluate.beside(true, drawn, np.array([True, False, False]), count=2)
    assert len(shown) == 3
    assert shown[0].shape == ((2 * 16 + 3) * 6, (2 * 17 + 1) * 6, 3)
    assert shown[0][9, 9].tolist() == [255] * 3
    assert shown[0][-9, 9].tolist() == [0] * 3
    assert shown[0][0, 0].tolist() != shown[1][0, 0].tolist()
    assert evaluate.strip(true, drawn, 2).shape == (12, 1, 16, 16)
    assert evaluate.strip(true, drawn, 2)[:3].min() == 255
