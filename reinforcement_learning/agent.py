"""What the loop of `train.py` asks of an algorithm."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

from reinforcement_learning.envs import Environments

Batch = TypeVar("Batch")
"""The experience of one round: each algorithm has a type of its own."""


class Stateful(Protocol):
    """A network or a table, as far as keeping the best one goes."""

    def state_dict(self) -> dict[str, Any]:
        """A snapshot, or a view that changes with the policy."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Go back to a snapshot."""


class Agent(Protocol[Batch]):
    """An algorithm and what it has learned."""

    @property
    def policy(self) -> Stateful:
        """What is kept when it is the best so far."""

    @property
    def tracked(self) -> dict[str, Any]:
        """What resume must restore."""

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The greedy actions (N,) for observations (N, *obs)."""

    def collect(self, envs: Environments) -> Batch:
        """Act, and return the experience."""

    def update(self, batch: Batch, /) -> dict[str, Any]:
        """Learn from it; returns what is to be logged."""
