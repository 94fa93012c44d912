"""The environments of the week: many copies of the mini track, or CarRacing in processes.

Both restart a finished copy one step later (NEXT_STEP, see week 13's envs.py), take (steer, gas,
brake) and show uint8 pictures (N, H, W, 3).
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, VectorEnv

from labkit import UsageError
from world_models import track

TRAIN_TRACKS, TEST_TRACKS = tuple(range(16)), tuple(range(1000, 1016))
"""Circuits of the mini track. No phase of training sees those of the test."""
SIDE = 64
"""CarRacing's pictures of 96 x 96 are made this large, as in the paper."""


@cache
def area_weights(before: int, after: int) -> np.ndarray:
    """Matrix (after, before) that resizes a side by area: each new pixel is the mean of the old
    ones below it, parts of pixels counted as such.
    """
    edges = np.linspace(0, before, after + 1)
    pixel = np.arange(before)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (covered.clip(0) * after / before).astype(np.float32)


def resize(picture: np.ndarray, side: int) -> np.ndarray:
    """uint8 (H, W, 3) -> (side, side, 3), by area. Nearest pixels would lose thin lines."""
    rows, columns = (area_weights(length, side) for length in picture.shape[:2])
    small = np.einsum("ah,hwc,bw->abc", rows, picture.astype(np.float32), columns, optimize=True)
    return np.rint(small).astype(np.uint8)


class Resized(gym.ObservationWrapper):
    """Pictures of SIDE x SIDE."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = Box(0, 255, (SIDE, SIDE, 3), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return resize(observation, SIDE)


def make_resized(env_id: str, **settings: Any) -> gym.Env:
    """One copy, in a process of its own."""
    return Resized(gym.make(env_id, **settings))


def spec_of(env_id: str) -> gym.envs.registration.EnvSpec:
    """Raises UsageError for an unknown environment, or one whose pictures or actions do not fit."""
    if env_id not in (track.ENV_ID, "CarRacing-v3"):
        raise UsageError(
            f"env={env_id}: this week drives a car from pixels with (steer, gas, brake); try "
            f"env={track.ENV_ID} or env=CarRacing-v3"
        )
    return gym.spec(env_id)


def version_of(env_id: str) -> str:
    """What an episode of it depends on: cached rollouts of another version are of no use."""
    if env_id == track.ENV_ID:
        return f"{track.VERSION}"
    return f"gymnasium {gym.__version__}"


def open_copies(
    env_id: str, num_envs: int, test: bool = False, max_episode_steps: int | None = None
) -> VectorEnv:
    """`num_envs` copies. `test` opens the circuits of the test; CarRacing draws a new one for each
    episode in any case.

    Raises UsageError when the environment is unknown or not installed.
    """
    spec = spec_of(env_id)
    limit: dict[str, Any] = (
        {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    )
    if env_id == track.ENV_ID:
        tracks = TEST_TRACKS if test else TRAIN_TRACKS
        return gym.make_vec(spec, num_envs, tracks=tracks, **limit)
    try:
        gym.make(spec).close()  # here, where the reason can be told; not in each process
    except gym.error.DependencyNotInstalled as error:
        raise UsageError(
            f"env={env_id} needs Box2D: {error}\nType pip install 'gymnasium[box2d]', or take "
            f"env={track.ENV_ID}, which needs NumPy alone"
        ) from error
    makers = [partial(make_resized, env_id, **limit) for _ in range(num_envs)]
    return AsyncVectorEnv(makers, context="spawn")
