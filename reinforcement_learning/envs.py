"""Many copies of an environment, stepped together, whose exact state can be saved.

gymnasium's vector environments restart a finished copy automatically, one step later (`NEXT_STEP`):

    row t     ... the pole falls: `next_obs` is the last observation of the old episode
    row t+1   the action is ignored, the reward is 0, `next_obs` is the first of the new episode

So a reset never hides the observation after a step, which bootstrapping from a truncated episode
needs (Pardo et al. 2018, Time Limits in Reinforcement Learning, section 3). Row t+1 is not a
transition: `valid` is False there, and every learner must drop it.

    terminated   the episode is over by the rules of the task: nothing follows, the value is 0
    truncated    only the time limit was reached: the task continues, so the value estimate counts
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import SyncVectorEnv

from labkit import UsageError


class Transition(NamedTuple):
    """One step of N environments. `next_obs` is always the observation before any reset."""

    obs: np.ndarray  # (N, *obs)
    action: np.ndarray  # (N,) int64
    reward: np.ndarray  # (N,)
    next_obs: np.ndarray  # (N, *obs)
    terminated: np.ndarray  # (N,) bool
    truncated: np.ndarray  # (N,) bool
    valid: np.ndarray  # (N,) bool: False where this step only restarted the environment


class Replayable(gym.Wrapper):
    """Records how to replay the current episode.

    Physics engines do not expose their full state; but an episode is a function of the generator's
    state at its reset and of the actions since.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.seed: int | None = None
        self.generator: Any = None
        self.actions: list[int] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.seed, self.actions = seed, []
        self.generator = self.unwrapped.np_random.bit_generator.state
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self.actions.append(int(action))
        return self.env.step(action)

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "generator": self.generator, "actions": list(self.actions)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.unwrapped.np_random.bit_generator.state = state["generator"]
        self.reset(seed=state["seed"])
        for action in state["actions"]:
            self.step(action)


class Environments:
    """N copies of `env_id` with discrete actions, and the returns of the episodes they finish."""

    def __init__(self, env_id: str, num_envs: int, **settings: Any) -> None:
        """`settings` go to the environment, e.g. `max_episode_steps=50`.

        Raises UsageError for an environment that is unknown, not installed, or has actions that are
        not discrete.
        """
        try:
            spec = gym.spec(env_id)
            wrappers = [] if spec.vector_entry_point else [Replayable]
            self.vector = gym.make_vec(spec, num_envs, wrappers=wrappers, **settings)
        except gym.error.DependencyNotInstalled as error:
            raise UsageError(f"env={env_id} needs more than is installed here: {error}") from error
        except gym.error.Error as error:
            raise UsageError(f"env={env_id}: {error}; try env=CartPole-v1") from error
        actions = self.vector.single_action_space
        if not isinstance(actions, Discrete):
            kind = "continuous actions" if isinstance(actions, Box) else f"actions {actions}"
            raise UsageError(
                f"env={env_id} has {kind}; needed is one choice out of n, try env=CartPole-v1"
            )
        self.env_id, self.num_envs = env_id, num_envs
        self.num_actions = int(actions.n)
        self.first_action = int(actions.start)  # learners count from 0, some environments from 1
        self.space = self.vector.single_observation_space
        self.env_steps = 0  # valid transitions so far
        self.episodes = 0  # episodes finished and taken so far
        self.finished: list[float] = []  # returns of episodes, until taken
        self.reset()

    @property
    def obs_dim(self) -> int:
        """Length of an observation vector. Raises UsageError when observations are not vectors of
        float32.
        """
        if not isinstance(self.space, Box) or len(self.space.shape) != 1:
            raise UsageError(
                f"env={self.env_id} has no observation vectors for a network; type algo=q_learning"
            )
        if self.space.dtype != np.float32:
            raise UsageError(
                f"env={self.env_id} observes in {self.space.dtype}, and the networks here take "
                "float32; register it with gymnasium.wrappers.DtypeObservation around it"
            )
        return int(self.space.shape[0])

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Restart all episodes; returns the observations (N, *obs)."""
        self.obs, _ = self.vector.reset(seed=seed)
        self.done = np.zeros(self.num_envs, bool)  # the next step of these is a restart
        self.returns = np.zeros(self.num_envs)
        return self.obs

    def step(self, action: np.ndarray, wanted: np.ndarray | bool = True) -> Transition:
        """Take one action (N,), counted from 0, in each copy. Steps of copies that are not `wanted`
        are not valid either.
        """
        obs, valid = self.obs, wanted & ~self.done
        sent = action + self.first_action
        self.obs, reward, terminated, truncated, _ = self.vector.step(sent)
        self.done = terminated | truncated
        self.env_steps += int(valid.sum())
        self.returns += reward * valid
        if self.done.any():
            self.finished += self.returns[self.done & valid].tolist()
            self.returns[self.done] = 0.0
        return Transition(obs, action, reward, self.obs, terminated, truncated, valid)

    def take_finished(self) -> list[float]:
        """Returns of the episodes finished since the last call."""
        finished, self.finished = self.finished, []
        self.episodes += len(finished)
        return finished

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on; they are bit-identical after it is restored."""
        env = self.vector.unwrapped
        if isinstance(env, SyncVectorEnv):
            inner: Any = [copy.state_dict() for copy in env.envs]  # type: ignore[attr-defined]
        else:
            inner = {name: value.copy() for name, value in _arrays(env).items()}
            inner |= {"generator": env.np_random.bit_generator.state}
        books = {"env_steps": self.env_steps, "episodes": self.episodes}
        arrays = {"obs": self.obs, "done": self.done, "returns": self.returns.copy()}
        return {"inner": inner, "finished": list(self.finished), **books, **arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        env, inner = self.vector.unwrapped, state["inner"]
        if isinstance(env, SyncVectorEnv):
            for copy, saved in zip(env.envs, inner, strict=True):
                copy.load_state_dict(saved)  # type: ignore[attr-defined]
            env._autoreset_envs = state["done"].copy()
        else:
            for name in _arrays(env):
                setattr(env, name, inner[name].copy())
            env.np_random.bit_generator.state = inner["generator"]
        self.env_steps, self.episodes = state["env_steps"], state["episodes"]
        self.finished = list(state["finished"])
        self.obs, self.done = state["obs"].copy(), state["done"].copy()
        self.returns = state["returns"].copy()


def _arrays(env: Any) -> dict[str, np.ndarray]:
    """The state of a vector environment written in NumPy: physics, step counters, reset flags."""
    return {name: value for name, value in vars(env).items() if isinstance(value, np.ndarray)}
