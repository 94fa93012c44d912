"""What the scripted judge likes, hidden from the agent, and the judge who compares by it.

CartPole's own reward is 1 for every step. The judge wants more, and only ever says which of two
segments of a trajectory is better:

    left     stand near x = -1 while the pole is up
    rock     drive to and fro, at a speed of 1, while the pole is up

Letters: k steps of a segment, D numbers of an observation.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import numpy as np

from labkit import RunFailed, UsageError

Behaviour = Callable[[np.ndarray], np.ndarray]
"""Observations (..., D) to the hidden reward of each step (...), at most 1."""
Judge = Callable[[np.ndarray, np.ndarray], float]
"""Two segments' observations (k, D) to a choice: 1 the first is better, 0 the second, 0.5 equal."""


def left(obs: np.ndarray) -> np.ndarray:
    """1 at x = -1, falling to 1/e at a distance of 0.4."""
    return np.exp(-np.square((obs[..., 0] + 1) / 0.4))


def rock(obs: np.ndarray) -> np.ndarray:
    """The cart's speed, at most 1."""
    return np.minimum(np.abs(obs[..., 1]), 1.0)


BEHAVIOURS: dict[str, Behaviour] = {"left": left, "rock": rock}


def find_behaviour(name: str) -> Behaviour:
    """By its name, or `module:function` of your own. Raises UsageError when there is none."""
    if name in BEHAVIOURS:
        return BEHAVIOURS[name]
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"behaviour={name} is neither {' nor '.join(BEHAVIOURS)} nor a function that can be "
            f"imported ({error}); type behaviour=left, or module:function of your own that takes "
            "observations (..., D) to rewards (...)"
        ) from error
    behaviour: Behaviour = found
    return behaviour


class ScriptedJudge:
    """Prefers the segment with the larger sum of hidden reward, and is mistaken at times."""

    def __init__(self, behaviour: Behaviour, mistakes: float, rng: np.random.Generator) -> None:
        """With probability `mistakes` the choice is a coin toss."""
        self.behaviour, self.mistakes, self.rng = behaviour, mistakes, rng

    def __call__(self, first: np.ndarray, second: np.ndarray) -> float:
        if self.rng.random() < self.mistakes:
            return float(self.rng.integers(2))
        gap = self.behaviour(first).sum() - self.behaviour(second).sum()
        return 0.5 if abs(gap) < 1e-6 else float(gap > 0)


def ask(judge: Judge, segments: np.ndarray) -> np.ndarray:
    """Choices (M,) float32 for pairs of segments (M, 2, k, D).

    Raises RunFailed when the judge raises, or answers anything but a number from 0 to 1.
    """
    choices = np.empty(len(segments), np.float32)
    for i, (first, second) in enumerate(segments):
        try:
            answer = float(judge(first, second))
        except Exception as error:
            raise RunFailed(
                f"the judge raised {type(error).__name__} at comparison {i + 1} of "
                f"{len(segments)}: {error}"
            ) from error
        if math.isnan(answer) or not 0 <= answer <= 1:
            raise RunFailed(
                f"the judge answered {answer} at comparison {i + 1} of {len(segments)}; expected "
                "is 1 (the first is better), 0 (the second) or 0.5 (equal)"
            )
        choices[i] = answer
    return choices
