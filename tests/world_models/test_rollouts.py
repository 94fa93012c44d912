"""Rollouts: what a stream says of its ends, the smooth policy, and a cache that is not trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labkit import UsageError
from world_models import envs, rollouts
from world_models.latents import latents_of
from world_models.rollouts import Rollouts, SmoothPolicy, collect
from world_models.settings import CollectSettings
from world_models.track import MiniTrackVectorEnv

SETTINGS = CollectSettings(envs=4, steps=50)
MINI = "lab/MiniTrack-v0"


def few(steps: int = 60, limit: int = 25) -> Rollouts:
    env = MiniTrackVectorEnv(4, max_episode_steps=limit)
    return collect(env, SmoothPolicy("smooth", 4, 0), steps, seed=0)


def test_rows_around_an_end() -> None:
    data = few()
    assert data.frame.shape == (61, 4, 32, 32, 3)
    assert data.valid.sum(axis=0).tolist() == [58] * 4, "each of two restarts is no transition"
    assert (np.flatnonzero(~data.valid[:, 0]) == [25, 51]).all()
    assert (np.flatnonzero(data.first[:, 0]) == [0, 26, 52]).all()
    assert (data.reward[~data.valid] == 0).all()
    again = few()
    assert data.sha256 == again.sha256
    again.reward[3, 1] += 1e-3
    assert data.sha256 != again.sha256
    middle = data.streams(1, 3)
    assert (middle.action == data.action[:, 1:3]).all()


@pytest.mark.parametrize(("streams", "held"), [(4, 1), (8, 1), (17, 2)])
def test_streams_are_split_without_overlap(streams: int, held: int) -> None:
    numbers = np.arange(streams)[None].repeat(3, axis=0)
    data = Rollouts(*(numbers for _ in Rollouts._fields))
    known, valid, test = (part.action[0].tolist() for part in data.split())
    assert len(valid) == len(test) == held
    assert known + valid + test == list(range(streams))


def test_frames_actions_and_rewards_belong_together() -> None:
    """Played again, action by action, in an environment of the same seed."""
    data, env = few(), MiniTrackVectorEnv(4, max_episode_steps=25)
    frame, _ = env.reset(seed=0)
    for t in range(60):
        assert (frame == data.frame[t]).all()
        frame, reward, terminated, _, _ = env.step(data.action[t])
        np.testing.assert_allclose(reward, data.reward[t], rtol=1e-6)
        assert (terminated == data.terminated[t]).all()
    assert (frame == data.frame[60]).all()


def test_smooth_actions_follow_their_law_and_white_ones_do_not_last() -> None:
    frame = np.zeros((2000, 1))
    smooth, white = SmoothPolicy("smooth", 2000, 0), SmoothPolicy("white", 2000, 0)
    walk = np.stack([smooth(frame) for _ in range(40)])
    noise = np.stack([white(frame) for _ in range(40)])
    assert walk.dtype == noise.dtype == np.float32
    for actions in (walk, noise):
        assert actions[..., 0].min() >= -1
        assert actions[..., 1:].min() >= 0
        assert actions.max() <= 1

    def lasting(x: np.ndarray, frames: int) -> float:
        return float(np.corrcoef(x[0].ravel(), x[frames].ravel())[0, 1])

    assert lasting(walk[..., 0], 1) == pytest.approx(1 - rollouts.PULL, abs=0.03)
    assert lasting(walk[..., 0], 10) == pytest.approx((1 - rollouts.PULL) ** 10, abs=0.07)
    assert abs(lasting(noise[..., 0], 1)) < 0.07
    assert walk[..., 1].mean() == pytest.approx(0.5, abs=0.03)
    spread = [walk[t][..., 0].std() for t in (0, 39)]
    assert spread[0] == pytest.approx(spread[1], rel=0.1), "stationary from the first frame"


def test_the_cache_is_used_again_and_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rollouts.obtain(MINI, SETTINGS, tmp_path)
    (place,) = tmp_path.iterdir()
    stated = json.loads((place / "rollouts.json").read_text())
    assert stated["env"] == MINI
    assert stated["steps"] == 50
    assert stated["sha256"] == made.sha256
    monkeypatch.setattr(rollouts, "collect", None)  # it is not needed
    found = rollouts.obtain(MINI, SETTINGS, tmp_path)
    assert found.sha256 == made.sha256


def of_another_version(place: Path) -> None:
    file = place / "rollouts.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": "0"}))


def cut_short(place: Path) -> None:
    file = place / "frame.npy"
    file.write_bytes(file.read_bytes()[:-100])


def lacking(place: Path) -> None:
    (place / "reward.npy").unlink()


def changed(place: Path) -> None:
    reward = np.load(place / "reward.npy")
    reward[0, 0] += 1
    np.save(place / "reward.npy", reward)


def no_json(place: Path) -> None:
    (place / "rollouts.json").write_text("{")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (of_another_version, "of another version (version 0 instead of 1)"),
        (cut_short, "not whole"),
        (lacking, "not whole"),
        (changed, "the hash differs"),
        (no_json, "not whole"),
    ],
)
def test_a_bad_cache_is_told_of_and_made_anew(
    fault: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = rollouts.obtain(MINI, SETTINGS, tmp_path)
    (place,) = tmp_path.iterdir()
    fault(place)
    capsys.readouterr()
    again = rollouts.obtain(MINI, SETTINGS, tmp_path)
    told = " ".join("".join(capsys.readouterr()).split())
    assert words in told
    assert "collected anew" in told
    assert again.sha256 == made.sha256
    assert list(tmp_path.iterdir()) == [place], "nothing is left behind"
    assert rollouts.fault_of(place, rollouts.provenance(MINI, SETTINGS)) is None


def test_resizing_by_area_is_torchs() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 80, 3)).astype(np.uint8)
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
    large = F.interpolate(x, (96 * 64, 80 * 64), mode="nearest")  # each pixel as 64 x 64
    expected = F.avg_pool2d(large, (96, 80))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(envs.resize(picture, 64), expected, atol=0.51)


def test_carracing_is_collected_in_processes() -> None:
    pytest.importorskip("Box2D")
    env = envs.open_copies("CarRacing-v3", 1, max_episode_steps=4)
    try:
        data = collect(env, SmoothPolicy("smooth", 1, 0), 6, seed=0)
    finally:
        env.close()
    assert data.frame.shape == (7, 1, 64, 64, 3)
    assert data.valid[:, 0].tolist() == [True, True, True, True, False, True]
    assert len(np.unique(data.frame)) > 20
    assert data.reward[1:4, 0] == pytest.approx(-0.1, abs=20)


def test_environments_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="try env=lab/MiniTrack-v0"):
        envs.open_copies("CartPole-v1", 2)

    def lacks(*args: Any, **words: Any) -> None:
        raise envs.gym.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(envs.gym, "make", lacks)
    with pytest.raises(UsageError, match="pip install 'gymnasium\\[box2d\\]'"):
        envs.open_copies("CarRacing-v3", 2)


def test_latents_keep_steps_and_streams_apart() -> None:
    data = few()
    mean = torch.arange(61.0)[:, None, None] + 1000 * torch.arange(4.0)[:, None]  # (61, 4, 1)
    latents = latents_of(data, mean, torch.full_like(mean, -40.0))
    begin, stream = torch.tensor([3, 20, 0]), torch.tensor([2, 0, 3])
    window = latents.sequence(begin, stream, 10)
    for b in range(3):
        t, n = int(begin[b]), int(stream[b])
        np.testing.assert_allclose(window.z[:, b, 0], np.arange(t, t + 11) + 1000 * n, atol=1e-3)
        np.testing.assert_array_equal(window.action[:, b], data.action[t : t + 10, n])
        np.testing.assert_array_equal(window.first[:, b], data.first[t : t + 10, n])
        np.testing.assert_array_equal(window.valid[:, b], data.valid[t : t + 10, n])
    assert latents.starts()[:, 0].tolist() == [*range(0, 4000, 1000), *range(26, 4026, 1000),
                                               *range(52, 4052, 1000)]  # fmt: skip
    spread = latents_of(data, torch.zeros(61, 4, 3), torch.full((61, 4, 3), float(np.log(4.0))))
    z = torch.cat([spread.windows(16, 60, step, 0).z for step in range(4)])
    assert z.std().item() == pytest.approx(2, rel=0.05)
    a, b = spread.whole(3), spread.whole(3)
    assert torch.equal(a.z, b.z)
    assert a.z.std().item() == pytest.approx(2, rel=0.1)
    one, two = (latents.windows(8, 20, 5, 7) for _ in "12")
    torch.testing.assert_close(one.z, two.z)
    assert not torch.equal(one.action, latents.windows(8, 20, 6, 7).action)
