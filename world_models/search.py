"""How C is found: CMA-ES over controllers, judged in dreams or on the track itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from labkit import RunFailed
from world_models import controller
from world_models.cmaes import CMAES
from world_models.dream import Features, dreamed
from world_models.envs import open_copies
from world_models.play import Driver, episode_returns, repeated_returns
from world_models.rnn import MDNRNN
from world_models.settings import SearchSettings


class Judge(Protocol):
    """Says what controllers are worth."""

    books: dict[str, int]
    """`real_steps`: the frames of the real environment that it has used."""

    def __call__(self, parameters: Tensor, generation: int, /) -> np.ndarray:
        """Controllers (P, n) and the number of the generation -> their mean returns (P,)."""


MakeDriver = Callable[[Tensor, int], Driver]
"""Controllers (P, n) and the episodes of each -> what drives them all."""


def key(*seeds: int) -> int:
    """One seed from several."""
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


class Search:
    """CMA-ES, one generation at a time. The controller it stands for is its mean."""

    def __init__(
        self,
        env_id: str,
        drive: MakeDriver,
        features: int,
        settings: SearchSettings,
        judge: Judge,
        seed: int,
        device: torch.device,
    ) -> None:
        """Controllers of so many `features`; `drive` makes what drives them in `env_id`."""
        self.env_id, self.drive = env_id, drive
        start = np.zeros(controller.parameter_count(features))
        self.cmaes = CMAES(start, settings.sigma, settings.population, seed)
        self.judge, self.device = judge, device
        self.tracked = {"cmaes": self.cmaes, "books": judge.books}

    @property
    def real_steps(self) -> int:
        """Frames of the real environment that the search has used."""
        return self.judge.books["real_steps"]

    @property
    def best(self) -> Tensor:
        """The mean of the distribution, as one controller: (1, n)."""
        return self._tensor(self.cmaes.mean[None])

    def update(self, generation: int) -> dict[str, float]:
        """One generation: draw, judge, learn. Raises RunFailed for a return that is not finite."""
        returns = self.judge(self._tensor(self.cmaes.ask()), generation)
        if not np.isfinite(returns).all():
            raise RunFailed(
                f"a controller of generation {generation} has no finite return; M's predictions "
                "may have grown without bound: look at train/rnn_loss, and try a lower rnn.lr"
            )
        self.cmaes.tell(-returns)  # it minimises
        return {
            "search/mean": float(returns.mean()),
            "search/best": float(returns.max()),
            "search/sigma": self.cmaes.sigma,
        }

    def returns(self, copies: int, rounds: int, test: bool, seed: int) -> np.ndarray:
        """Real returns of `rounds` episodes in each of `copies` copies: (rounds copies,)."""
        env = open_copies(self.env_id, copies, test)
        found = repeated_returns(lambda: self.drive(self.best, copies), env, rounds, seed)
        env.close()
        return found

    def _tensor(self, parameters: np.ndarray) -> Tensor:
        return torch.from_numpy(parameters).float().to(self.device)


class DreamJudge:
    """Judges by dreams, which begin as real episodes do: at random ones of the latents starts(),
    (S, D). The dreams of a generation are a function of (seed, generation), the same for all
    candidates.
    """

    def __init__(
        self,
        model: MDNRNN,
        features: Features,
        starts: Callable[[], Tensor],
        settings: SearchSettings,
        seed: int,
    ) -> None:
        self.model, self.features, self.starts = model, features, starts
        self.settings, self.seed = settings, seed
        self.books = {"real_steps": 0}

    def __call__(self, parameters: Tensor, generation: int) -> np.ndarray:
        settings, starts = self.settings, self.starts()
        generator = torch.Generator().manual_seed(key(self.seed, generation))
        chosen = torch.randint(len(starts), (settings.episodes,), generator=generator)
        returns = dreamed(
            self.model, self.features, parameters, starts[chosen.to(starts.device)],
            settings.horizon, settings.temperature, generator,
        )  # fmt: skip
        return returns.mean(dim=1).cpu().numpy().astype(np.float64)


class TrackJudge:
    """Judges by driving: all candidates at once, each in `episodes` copies of the environment."""

    def __init__(self, drive: MakeDriver, env_id: str, settings: SearchSettings, seed: int) -> None:
        self.drive, self.seed = drive, seed
        self.episodes = settings.episodes
        self.env = open_copies(env_id, settings.population * settings.episodes)
        self.books = {"real_steps": 0}

    def __call__(self, parameters: Tensor, generation: int) -> np.ndarray:
        policy = self.drive(parameters, self.episodes)
        returns, steps = episode_returns(policy, self.env, key(self.seed, generation))
        self.books["real_steps"] += steps
        return returns.reshape(len(parameters), self.episodes).mean(axis=1)
