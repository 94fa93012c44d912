"""The mini track: its pictures against slow drawing, its physics against closed forms, its rewards
against a lap, and gymnasium's own checker.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from world_models import circuit, track
from world_models.circuit import FIELD, HALF_WIDTH, MARGIN, SCALE, SIDE
from world_models.track import MiniTrack, MiniTrackVectorEnv

NAME = "world_models.track:lab/MiniTrack-v0"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasiums_checker_passes() -> None:
    check_env(gym.make(NAME, render_mode="rgb_array").unwrapped)
    single = gym.make(NAME)
    assert single.observation_space.shape == (32, 32, 3)
    many = gym.make_vec(NAME, 3)
    assert isinstance(many.unwrapped, MiniTrackVectorEnv)
    frame, _ = many.reset(seed=0)
    assert frame.dtype == np.uint8
    assert many.observation_space.contains(np.ascontiguousarray(frame))


def test_a_circuit_is_closed_and_its_road_lies_along_its_centre_line() -> None:
    one, points = circuit.circuit(3), circuit.centre_line(3) + FIELD / 2 + MARGIN
    assert circuit.circuit(3) is one
    assert (circuit.circuit(4).picture != one.picture).any()
    steps = np.hypot(*(np.roll(points, -1, axis=0) - points).T)
    assert steps.max() < 1.02 * steps.min(), "the last point is as near to the first as to others"
    texels = np.stack(np.unravel_index(np.arange(0, SIDE**2, 37), (SIDE, SIDE)), axis=1)
    centre = (texels[:, ::-1] + 0.5) / SCALE
    apart = np.linalg.norm(centre[:, None] - points[None], axis=-1)
    tile = one.tile[texels[:, 0], texels[:, 1]]
    sure = np.abs(apart.min(axis=1) - HALF_WIDTH) > 0.75  # of texels half a unit wide
    assert ((tile >= 0) == (apart.min(axis=1) < HALF_WIDTH))[sure].all()
    nearest = apart.argmin(axis=1) // (len(points) // len(one.start))
    off = (tile - nearest)[sure & (tile >= 0)] % len(one.start)
    assert np.isin(off, [0, 1, len(one.start) - 1]).all()
    assert (off == 0).mean() > 0.7


def test_the_start_of_each_tile_is_on_it_and_looks_to_the_next() -> None:
    one = circuit.circuit(1)
    x, y, heading = one.start.T
    found = one.tile[(SCALE * y).astype(int), (SCALE * x).astype(int)]
    assert found.tolist() == list(range(len(one.start)))
    ahead = np.arctan2(np.roll(y, -1) - y, np.roll(x, -1) - x)
    turned = (ahead - heading + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(turned).max() < 0.4


def standing(env: MiniTrackVectorEnv, x: float, y: float, heading: float) -> None:
    env.x[:], env.y[:], env.heading[:] = x, y, heading
    env.forward[:] = env.sideways[:] = 0.0


@pytest.mark.parametrize("heading", [0.0, 0.7, 1.9, 3.5, 5.9])
def test_a_view_is_the_map_turned_about_the_car(heading: float) -> None:
    env = MiniTrackVectorEnv(1, tracks=(2,))
    env.reset(seed=0)
    x, y, _ = circuit.circuit(2).start[11]
    standing(env, x, y, heading)
    seen = env._views()[0]
    colours = circuit.circuit(2).picture.view(np.uint8).reshape(SIDE, SIDE, 4)
    same = 0
    for row in range(32):
        for column in range(32):
            ahead, right = 24 - row, column - 15.5
            there_x = x + ahead * math.cos(heading) + right * math.cos(heading + math.pi / 2)
            there_y = y + ahead * math.sin(heading) + right * math.sin(heading + math.pi / 2)
            wanted = colours[int(SCALE * there_y), int(SCALE * there_x), :3]
            same += int((seen[row, column] == wanted).all())
    assert same > 0.9 * 32 * 32, same  # borders of colours differ by a texel, the car is drawn
    assert seen[24, 15].tolist() == list(circuit.COLOURS["car"])


def test_full_gas_leads_to_the_speed_at_which_drag_balances_it() -> None:
    env = MiniTrackVectorEnv(2, None, tracks=(0,))
    env.reset(seed=0)
    for drag, tile in ((track.DRAG, 0), (track.DRAG_GRASS, -1)):
        env.circuits = env.circuits._replace(tile=np.full_like(env.circuits.tile, tile))
        for _ in range(300):
            standing_place = MARGIN + FIELD / 2
            env.x[:] = env.y[:] = standing_place
            env._drive(np.zeros(2), np.ones(2), np.zeros(2))
        # v = (v + GAS) (1 - drag)
        np.testing.assert_allclose(env.forward, track.GAS * (1 - drag) / drag, rtol=1e-4)
    for _ in range(100):
        env._drive(np.zeros(2), np.zeros(2), np.ones(2))
    assert (env.forward == 0).all(), "the brake stops the car and does not drive it backwards"


def test_steering_right_turns_right_and_a_standing_car_does_not_turn() -> None:
    env = MiniTrackVectorEnv(3, None, tracks=(0,))
    env.reset(seed=0)
    standing(env, 80.0, 80.0, 0.0)
    env._drive(np.array([-1.0, 0.0, 1.0]), np.zeros(3), np.zeros(3))
    assert (env.heading == 0).all()
    env.forward[:] = 1.0
    for _ in range(4):
        env._drive(np.array([-1.0, 0.0, 1.0]), np.full(3, 0.5), np.zeros(3))
    # Heading 0 is to the right of the map, so right of the car is down, where y is larger.
    assert env.y[0] < env.y[1] == 80.0 < env.y[2]
    assert env.y[0] - 80 == pytest.approx(80 - env.y[2])
    assert env.sideways[2] < 0, "the car slides to the outside of its curve"
    per_frame = track.TURN / (track.EASE + 1)  # of the first of them, at a speed of 1
    assert env.heading[2] == pytest.approx(4 * per_frame, rel=0.1)


def autopilot(env: MiniTrackVectorEnv, tile_ahead: int = 3) -> np.ndarray:
    """Actions that follow the centre line, from the true state."""
    actions = np.zeros((env.num_envs, 3))
    for i in range(env.num_envs):
        count = env.circuits.tiles[env.track[i]]
        start = env.circuits.start[env.track[i], :count]
        here = np.hypot(start[:, 0] - env.x[i], start[:, 1] - env.y[i]).argmin()
        onward = 1 if math.cos(start[here, 2] - env.heading[i]) > 0 else -1
        x, y, _ = start[(here + onward * tile_ahead) % count]
        turn = math.atan2(y - env.y[i], x - env.x[i]) - env.heading[i]
        turn = (turn + math.pi) % (2 * math.pi) - math.pi
        speed = max(0.6, 1.8 - 2 * abs(turn))  # slower in a curve
        actions[i] = np.clip(4 * turn, -1, 1), env.forward[i] < speed, env.forward[i] > speed + 0.2
    return actions


def test_a_lap_pays_a_thousand_and_ends_the_episode() -> None:
    env = MiniTrackVectorEnv(3, None, tracks=(0, 7))
    env.reset(seed=1)
    returns, frames = np.zeros(3), np.zeros(3)
    running = np.ones(3, bool)
    tiles, seen = env.circuits.tiles[env.track], np.zeros(3)
    for _ in range(400):
        _, reward, terminated, truncated, _ = env.step(autopilot(env))
        returns += reward * running
        frames += running
        seen = np.where(running, env.visited.sum(axis=1), seen)
        running &= ~terminated
        assert not truncated.any()
        if not running.any():
            break
    assert not running.any(), "it can be driven within 400 frames"
    assert (seen >= 0.95 * tiles).all()
    np.testing.assert_allclose(returns, 1000 * (seen - 1) / tiles - 0.1 * frames)
    assert (frames < 200).all(), "and within the time limit"


def test_leaving_the_field_costs_a_hundred_and_the_next_step_only_restarts() -> None:
    env = MiniTrackVectorEnv(2, tracks=(0, 1, 2))
    env.reset(seed=3)
    env.x[0], env.y[0], env.heading[0], env.forward[0] = MARGIN + 0.5, 80.0, math.pi, 1.0
    frame, reward, terminated, truncated, _ = env.step(np.array([[0, 1, 0], [0, 0, 0]]))
    assert terminated.tolist() == [True, False]
    assert reward.tolist() == pytest.approx([-100.0, -0.1])
    assert (frame[0] == circuit.COLOURS["outside"]).all(axis=-1).sum() > 300
    before = env.x[1]
    _, reward, terminated, truncated, _ = env.step(np.array([[0, 1, 0], [0, 1, 0]]))
    assert reward[0] == 0
    assert not terminated.any()
    assert not truncated.any()
    assert env.forward[0] == env.steps[0] == 0, "the action had no effect on the new episode"
    assert env.visited[0].sum() == 1
    assert env.x[1] != before
    assert env.steps[1] == 2
    assert env.circuits.tile[env._texel()[0]] >= 0, "it starts on the road"


def test_the_time_limit_truncates() -> None:
    env = MiniTrackVectorEnv(2, max_episode_steps=4)
    env.reset(seed=0)
    ends = [env.step(np.zeros((2, 3)))[2:4] for _ in range(10)]
    assert not any(terminated.any() for terminated, _ in ends)
    assert [bool(truncated.all()) for _, truncated in ends] == [
        False, False, False, True, False, False, False, False, True, False,
    ]  # fmt: skip
    single = gym.make(NAME, max_episode_steps=3)
    single.reset(seed=0)
    assert [single.step(np.zeros(3, np.float32))[3] for _ in range(3)] == [False, False, True]


def test_one_car_alone_drives_as_one_of_many() -> None:
    many, one = MiniTrackVectorEnv(5, tracks=(4, 5)), MiniTrackVectorEnv(1, tracks=(4, 5))
    many.reset(seed=0)
    one.reset(seed=9)
    for name in ("track", "x", "y", "heading", "visited"):
        getattr(one, name)[:] = getattr(many, name)[3:4]
    rng = np.random.default_rng(0)
    for _ in range(50):
        action = rng.uniform(-1, 1, (5, 3)).astype(np.float32)
        kept = action.copy()
        a, b = many.step(action), one.step(action[3:4])
        assert (action == kept).all(), "the caller's actions stay as they are"
        for x, y in zip(a[:4], b[:4], strict=True):
            assert (x[3:4] == y).all()


def test_actions_are_clipped_and_nan_is_refused() -> None:
    wild, tame = MiniTrackVectorEnv(2), MiniTrackVectorEnv(2)
    wild.reset(seed=0)
    tame.reset(seed=0)
    for _ in range(20):
        wild.step(np.array([[5.0, 9.0, -3.0], [-5.0, 2.0, -1.0]]))
        tame.step(np.array([[1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]]))
    assert (wild.heading == tame.heading).all()
    assert (wild.forward == tame.forward).all()
    with pytest.raises(ValueError, match="NaN"):
        wild.step(np.array([[np.nan, 0, 0], [0, 0, 0]]))


def test_a_frame_is_not_overwritten_by_the_next_and_seeds_repeat() -> None:
    def play() -> list[np.ndarray]:
        env = MiniTrackVectorEnv(3, max_episode_steps=20)
        frames = [env.reset(seed=5)[0]]
        kept = [frames[0].copy()]
        rng = np.random.default_rng(1)
        for _ in range(50):
            frames.append(env.step(rng.uniform(0, 1, (3, 3)))[0])
            kept.append(frames[-1].copy())
        assert all((a == b).all() for a, b in zip(frames, kept, strict=True))
        return kept

    assert all((a == b).all() for a, b in zip(play(), play(), strict=True))


def test_a_picture_for_people_is_four_times_as_large() -> None:
    env: Any = MiniTrack(render_mode="rgb_array")
    frame, _ = env.reset(seed=0)
    large = env.render()
    assert large.shape == (128, 128, 3)
    assert (large[2::4, 1::4] == frame).all()
    assert MiniTrack().render() is None
