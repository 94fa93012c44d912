"""What V and M learn from: frames, actions, rewards and ends of N streams of T steps.

A stream is one copy of the environment, episode after episode:

    row t     ... the episode ends: terminated[t], and frame t + 1 is its last one
    row t+1   nothing happens but the restart: valid[t + 1] is False, frame t + 2 is the first of
              the next episode, first[t + 2] is True

Exploration is a smooth random walk, an Ornstein-Uhlenbeck process for each action:

    x <- x + theta (mu - x) + s e,   e ~ N(0, I)

White noise would be of no use: its steering and its gas cancel within a few frames, and the car
hardly leaves its place (Ha & Schmidhuber's rollouts repeat actions for the same reason).

Rollouts are kept on disk, with what they are, and used by every later run that asks for the same.
A cache that another version of the environment made, or that was cut short or changed, is
not used: a warning says why, and they are collected anew.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.vector import VectorEnv

from labkit.files import write_json
from labkit.show.console import say, warn
from world_models.envs import open_copies, version_of
from world_models.settings import CollectSettings, Exploration
from world_models.track import HIGH, LOW

FORMAT = 1
MEAN = np.array([0.0, 0.5, 0.0])
PULL = 0.1
"""theta: after 1 / PULL frames a third of an action is left."""
NOISE = np.array([0.3, 0.25, 0.12])
"""s, for steer, gas and brake. The stationary deviation is s / sqrt(2 theta - theta^2)."""


class Rollouts(NamedTuple):
    """N streams of T steps, and the frame after the last one."""

    frame: np.ndarray  # (T + 1, N, H, W, 3) uint8
    action: np.ndarray  # (T, N, 3) float32
    reward: np.ndarray  # (T, N) float32
    terminated: np.ndarray  # (T, N) bool
    valid: np.ndarray  # (T, N) bool: False where the step only restarted the environment

    @property
    def first(self) -> np.ndarray:
        """Whether frame t is the first of an episode, (T, N) bool."""
        return np.concatenate([np.ones_like(self.valid[:1]), ~self.valid[:-1]])

    def streams(self, begin: int, end: int) -> Rollouts:
        """Those of the streams `begin` to `end`."""
        return Rollouts(*(column[:, begin:end] for column in self))

    def split(self) -> list[Rollouts]:
        """For training, for validation and for the test of M: an eighth of the streams, at least
        one, in each of the last two.
        """
        N = self.action.shape[1]
        held = max(1, N // 8)
        return [self.streams(*ends) for ends in itertools.pairwise([0, N - 2 * held, N - held, N])]

    @property
    def sha256(self) -> str:
        """Hash of all arrays."""
        digest = hashlib.sha256()
        for column in self:
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()


class SmoothPolicy:
    """Random actions that change slowly (`smooth`), or anew in each frame (`white`)."""

    def __init__(self, kind: Exploration, num_envs: int, seed: int) -> None:
        self.kind, self.rng = kind, np.random.default_rng((seed, 14))
        deviation = NOISE / np.sqrt(2 * PULL - PULL**2)
        self.x = MEAN + deviation * self.rng.standard_normal((num_envs, 3))

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Actions (N, 3) float32, whatever is seen."""
        if self.kind == "white":
            return self.rng.uniform(LOW, HIGH, self.x.shape).astype(np.float32)
        self.x += PULL * (MEAN - self.x) + NOISE * self.rng.standard_normal(self.x.shape)
        return self.x.clip(LOW, HIGH).astype(np.float32)

    def restart(self, which: np.ndarray) -> None:
        """The walk goes on through the ends of episodes."""


class Explorer(Protocol):
    """What acts while rollouts are collected."""

    def __call__(self, frame: np.ndarray, /) -> np.ndarray:
        """Frames (N, H, W, 3) -> actions (N, 3) float32."""

    def restart(self, which: np.ndarray, /) -> None:
        """The next frames of the copies in the mask (N,) are the first of their episodes."""


def collect(env: VectorEnv, policy: Explorer, steps: int, seed: int) -> Rollouts:
    """Act for `steps` frames in each of the N copies."""
    frame, _ = env.reset(seed=seed)
    shape = (steps, len(frame))
    frames = np.empty((steps + 1, *frame.shape), np.uint8)
    action, reward = np.empty((*shape, 3), np.float32), np.empty(shape, np.float32)
    terminated, valid = np.empty(shape, bool), np.ones(shape, bool)
    frames[0] = frame
    for t in range(steps):
        action[t] = policy(frame)
        frame, reward[t], terminated[t], truncated, _ = env.step(action[t])
        frames[t + 1] = frame
        policy.restart(~valid[t])
        if t + 1 < steps:
            valid[t + 1] = ~(terminated[t] | truncated)
    return Rollouts(frames, action, reward, terminated, valid)


def obtain(env_id: str, settings: CollectSettings, folder: Path) -> Rollouts:
    """The rollouts that `settings` ask for: from the cache in `folder`, or collected now.

    Raises UsageError when they must be collected and the environment is not installed.
    """
    asked = provenance(env_id, settings)
    place = folder / cache_name(env_id, settings)
    if place.exists():
        fault = fault_of(place, asked)
        if fault is None:
            return load(place)
        warn(f"the rollouts in {place} are not used: {fault}. They are collected anew.")
    say(f"collecting {settings.envs} x {settings.steps} frames of {env_id}")
    env = open_copies(env_id, settings.envs)
    try:
        policy = SmoothPolicy(settings.exploration, settings.envs, settings.seed)
        rollouts = collect(env, policy, settings.steps, settings.seed)
    finally:
        env.close()
    save(rollouts, asked, place)
    return rollouts


def provenance(env_id: str, settings: CollectSettings) -> dict[str, Any]:
    """All that rollouts are a function of."""
    return {"format": FORMAT, "env": env_id, "version": version_of(env_id), **vars(settings)}


def cache_name(env_id: str, settings: CollectSettings) -> str:
    """The same for every version, so that one that is out of date is found and told of."""
    name = env_id.replace("/", "-")
    counts = f"{settings.envs}x{settings.steps}"
    return f"{name}-{settings.exploration}-{counts}-seed{settings.seed}"


def save(rollouts: Rollouts, asked: dict[str, Any], place: Path) -> None:
    """Write them under another name, then rename: a folder is whole, or not there."""
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        for name, column in zip(Rollouts._fields, rollouts, strict=True):
            np.save(partial / f"{name}.npy", column)
        write_json(partial / "rollouts.json", {**asked, "sha256": rollouts.sha256})
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load(place: Path) -> Rollouts:
    """Raises OSError or ValueError for a folder that is not whole."""
    return Rollouts(*(np.load(place / f"{name}.npy") for name in Rollouts._fields))


def fault_of(place: Path, asked: dict[str, Any]) -> str | None:
    """Why the cache cannot be used; None when it can."""
    try:
        stated = json.loads((place / "rollouts.json").read_text(encoding="utf-8"))
        found = load(place)
    except (OSError, ValueError, EOFError) as error:
        return f"they are not whole ({error})"
    other = [f"{k} {stated.get(k)} instead of {v}" for k, v in asked.items() if stated.get(k) != v]
    if other:
        return f"they are of another version ({', '.join(other)})"
    if found.sha256 != stated.get("sha256"):
        return "they are not what was written: the hash differs"
    return None
