"""Frames a second of the mini track, beside gymnasium's CarRacing-v3, in one run on one core.

    python benchmarks/mini_track.py

Each makes what a learner asks for: a picture for every step, from random smooth actions, restarts
included. The mini track's pictures are 32 x 32, CarRacing's 96 x 96, drawn by pygame: nine times
as many pixels. Seconds are those of the processor, so that other programmes do not count.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gymnasium as gym
import numpy as np

from world_models import SmoothPolicy
from world_models.track import ENV_ID, MiniTrackVectorEnv


def mini_track(copies: int, seconds: float) -> float:
    """Frames a second with that many copies; drawing the circuits is not counted."""
    env, policy = MiniTrackVectorEnv(copies), SmoothPolicy("smooth", copies, 0)
    frame, _ = env.reset(seed=0)
    steps, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        frame, *_ = env.step(policy(frame))
        steps += 1
    return copies * steps / (time.process_time() - began)


def car_racing(seconds: float) -> float:
    """Frames a second of one copy; the first reset is not counted."""
    env = gym.make("CarRacing-v3")
    policy = SmoothPolicy("smooth", 1, 0)
    frame, _ = env.reset(seed=0)
    steps, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        frame, _, terminated, truncated, _ = env.step(policy(np.asarray(frame)[None])[0])
        steps += 1
        if terminated or truncated:
            frame, _ = env.reset()
    return steps / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 16, 256, 1024])
    words = parser.parse_args()
    reference = car_racing(words.seconds)
    print(f"{'CarRacing-v3, 1 copy':30} {reference:12,.0f} frames a second")
    for copies in words.copies:
        speed = mini_track(copies, words.seconds)
        name = f"{ENV_ID}, {copies} copies"
        print(f"{name:30} {speed:12,.0f} frames a second   {speed / reference:8,.0f} x")


if __name__ == "__main__":
    main()
