"""`lab/MiniTrack-v0`: car racing from pixels in NumPy, many cars at once, CarRacing in small.

    observation   uint8 (32, 32, 3), the road from above, the car always at the same place
    action        (steer, gas, brake) in [-1, 1] x [0, 1] x [0, 1], as in CarRacing
    reward        -0.1 a frame, and 1000 / T for each of the T tiles when it is first visited
    terminated    95 % of the tiles were visited; or the car left the field, with a reward of -100
    truncated     after 200 frames

The picture is 32 x 32, not 96 x 96: a tenth of the pixels, so a tenth of the time that V needs, and
the road is still 7 pixels wide. Nothing in a picture tells the speed: it takes memory to know it.

    gym.make("world_models.track:lab/MiniTrack-v0")                one car
    gym.make_vec("world_models.track:lab/MiniTrack-v0", 256)       256 cars

The part before the colon is the module that gymnasium imports first, which registers the name.
After an end the next step restarts a car (gymnasium's NEXT_STEP, see week 13's envs.py).

Speed: a view is a table look-up. For each of 512 headings the offsets of all pixels in the flat map
are kept; the offsets of a car's heading, plus the index of its place, are the texels that it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from world_models.circuit import FIELD, MARGIN, SCALE, SIDE, circuits, packed

ENV_ID = "lab/MiniTrack-v0"
VERSION = 1
"""Raised with each change of what an episode looks like: cached rollouts of another are not used.
"""
PIXELS = 32
CAR = (24, 15.5)
"""Row and column of the car's centre in a view."""
HEADINGS = 512
TIME_LIMIT = 200
LAP = 0.95
"""Share of the tiles that makes a lap, as in CarRacing."""

GAS, BRAKE = 0.12, 0.25
"""Change of speed in a frame, in units, at full gas and at full brake."""
DRAG, DRAG_GRASS = 0.05, 0.22
"""Share of the speed lost in a frame."""
SLIP, SLIP_GRASS = 0.5, 0.85
"""Share of the sideways speed kept in a frame: on grass the car skids."""
TURN, EASE = 0.12, 0.5
"""A frame turns the car by TURN v / (EASE + v) at full steer, in radians."""


LOW, HIGH = np.array([-1, 0, 0], np.float32), np.ones(3, np.float32)
"""Bounds of (steer, gas, brake)."""


@lru_cache
def offsets() -> np.ndarray:
    """What a car sees: for each heading, the offset of each pixel's texel in the flat map from
    the texel of the car, int64 (HEADINGS, PIXELS^2).
    """
    row, column = np.indices((PIXELS, PIXELS)).reshape(2, -1)
    ahead, right = CAR[0] - row, column - CAR[1]
    angle = 2 * np.pi * np.arange(HEADINGS)[:, None] / HEADINGS
    x = ahead * np.cos(angle) - right * np.sin(angle)
    y = ahead * np.sin(angle) + right * np.cos(angle)
    return np.rint(SCALE * y).astype(np.int64) * SIDE + np.rint(SCALE * x).astype(np.int64)


class MiniTrackVectorEnv(VectorEnv):
    """N cars. All state is in arrays of this object and in `np_random`, so it can be saved."""

    metadata = {  # noqa: RUF012  # gymnasium's own
        "render_modes": ["rgb_array"],
        "render_fps": 25,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = TIME_LIMIT,
        tracks: Sequence[int] = tuple(range(16)),
        render_mode: str | None = None,
    ) -> None:
        """Each episode is on one of the circuits `tracks`, from a random tile, in a random
        direction. `max_episode_steps`: None is no limit.
        """
        self.num_envs, self.render_mode = num_envs, render_mode
        self.limit = max_episode_steps
        self.circuits = circuits(tuple(tracks))
        self.single_observation_space: gym.Space = Box(0, 255, (PIXELS, PIXELS, 3), np.uint8)
        self.single_action_space: gym.Space = Box(LOW, HIGH)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._scratch = (np.empty((num_envs, PIXELS**2), np.int64),)  # a tuple: no state
        row, column = np.mgrid[22:26, 15:17]
        self._car = (row * PIXELS + column).ravel().tolist()
        tiles = self.circuits.start.shape[1]
        self.track = np.zeros(num_envs, np.int64)
        self.x, self.y, self.heading = np.zeros((3, num_envs))
        self.forward, self.sideways = np.zeros((2, num_envs))  # speed in units a frame
        self.visited = np.zeros((num_envs, tiles), bool)
        self.steps = np.zeros(num_envs, np.int64)
        self.over = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode for every car; returns the views (N, 32, 32, 3)."""
        super().reset(seed=seed)
        self._restart(np.ones(self.num_envs, bool))
        return self._views(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Drive one frame with actions (N, 3), clipped to their bounds; NaN raises ValueError."""
        restarted = self.over.copy()
        action = np.clip(np.asarray(actions, np.float64), LOW, HIGH)
        if np.isnan(action).any():
            raise ValueError("an action is NaN: it must be (steer, gas, brake)")
        self._drive(*action.T)
        tile = self.circuits.tile[self._texel()]
        on_road = np.flatnonzero(tile >= 0)
        new = ~self.visited[on_road, tile[on_road]]
        self.visited[on_road, tile[on_road]] = True
        tiles = self.circuits.tiles[self.track]
        reward = np.full(self.num_envs, -0.1)
        reward[on_road] += new * 1000 / tiles[on_road]
        place = np.stack([self.x, self.y]) - MARGIN
        off_field = ((place < 0) | (place >= FIELD)).any(axis=0)
        reward[off_field] = -100.0
        terminated = off_field | (self.visited.sum(axis=1) >= LAP * tiles)
        self.steps += 1
        truncated = np.zeros(self.num_envs, bool)
        if self.limit is not None:
            truncated = self.steps >= self.limit
        if restarted.any():
            self._restart(restarted)
            reward[restarted] = 0.0
            terminated[restarted] = truncated[restarted] = False
        self.over = terminated | truncated
        return self._views(), reward, terminated, truncated, {}

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The views, four times as large, uint8 (128, 128, 3) each; None without a render_mode."""
        if self.render_mode is None:
            return None
        return tuple(self._views().repeat(4, axis=1).repeat(4, axis=2))

    def _restart(self, which: np.ndarray) -> None:
        """New episodes for the cars of the mask (N,): a circuit, one of its tiles, a direction."""
        count = int(which.sum())
        track = self.np_random.integers(len(self.circuits.tiles), size=count)
        tile = self.np_random.integers(self.circuits.tiles[track])
        back = self.np_random.integers(2, size=count)  # in the other direction
        self.track[which] = track
        x, y, heading = self.circuits.start[track, tile].T
        self.x[which], self.y[which] = x, y
        self.heading[which] = (heading + back * np.pi) % (2 * np.pi)
        self.forward[which] = self.sideways[which] = 0.0
        self.visited[which] = False
        self.visited[np.flatnonzero(which), tile] = True  # the car stands on it
        self.steps[which] = 0
        self.over[which] = False

    def _drive(self, steer: np.ndarray, gas: np.ndarray, brake: np.ndarray) -> None:
        """One frame of motion, all (N,)."""
        grass = self.circuits.tile[self._texel()] < 0
        turn = steer * TURN * self.forward / (EASE + self.forward)
        cos, sin = np.cos(turn), np.sin(turn)
        # The car turns under its velocity: what was straight ahead is now partly sideways.
        ahead = self.forward * cos + self.sideways * sin
        aside = self.sideways * cos - self.forward * sin
        ahead = np.maximum(ahead + GAS * gas - BRAKE * brake, 0)
        self.forward = ahead * (1 - np.where(grass, DRAG_GRASS, DRAG))
        self.sideways = aside * np.where(grass, SLIP_GRASS, SLIP)
        self.heading = (self.heading + turn) % (2 * np.pi)
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        self.x += self.forward * cos - self.sideways * sin
        self.y += self.forward * sin + self.sideways * cos

    def _texel(self) -> np.ndarray:
        """Index of each car's place in the flat map, int64 (N,)."""
        row, column = (self.y * SCALE).astype(np.int64), (self.x * SCALE).astype(np.int64)
        return (self.track * SIDE + row) * SIDE + column

    def _views(self) -> np.ndarray:
        """What each car sees, uint8 (N, 32, 32, 3): a fresh array, three bytes of each four."""
        heading = np.rint(self.heading * (HEADINGS / (2 * np.pi))).astype(np.int64) % HEADINGS
        (index,) = self._scratch
        np.take(offsets(), heading, axis=0, out=index, mode="clip")
        index += self._texel()[:, None]
        # mode: every index is inside, so bounds need no check
        seen = np.take(self.circuits.picture, index, mode="clip")
        seen[:, self._car] = packed("car")
        return seen.view(np.uint8).reshape(self.num_envs, PIXELS, PIXELS, 4)[..., :3]


class MiniTrack(gym.Env):
    """One car: `MiniTrackVectorEnv` with N = 1, without its restarts and its time limit, which
    gymnasium's TimeLimit sets.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012  # gymnasium's own

    def __init__(
        self, tracks: Sequence[int] = tuple(range(16)), render_mode: str | None = None
    ) -> None:
        self.render_mode = render_mode
        self.vector = MiniTrackVectorEnv(1, None, tracks, render_mode)
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.vector._np_random = self.np_random  # one generator for both
        obs, _ = self.vector.reset()
        return np.ascontiguousarray(obs[0]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, _, _ = self.vector.step(np.asarray(action)[None])
        self.vector.over[:] = False  # this car waits for reset()
        return np.ascontiguousarray(obs[0]), float(reward[0]), bool(terminated[0]), False, {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The view, four times as large, uint8 (128, 128, 3)."""
        pictures = self.vector.render()
        return None if pictures is None else pictures[0]


if ENV_ID not in gym.registry:
    gym.register(
        ENV_ID,
        f"{__name__}:MiniTrack",
        max_episode_steps=TIME_LIMIT,
        vector_entry_point=f"{__name__}:MiniTrackVectorEnv",
    )
