"""Dreamer: model, actor and critic learn together, from a growing memory of real episodes.

Hafner et al. 2020, arXiv:2010.02193. A round: drive `drive` frames in each copy, from new episodes
on, and remember them; then some updates, each of the model on windows from memory, and of actor and
critic in imagination that starts from these windows' states.

Compare `train/imagined`, the reward of an imagined step, with `train/driven`, that of a real one:
an actor that expects more than it gets has found what the model is wrong about.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from labkit.learning.modes import evaluating
from world_models.envs import open_copies
from world_models.imagination import ActorCritic, imagine
from world_models.play import repeated_returns
from world_models.rnn import REWARD_SCALE
from world_models.rollouts import Rollouts, collect
from world_models.rssm import RSSM, Belief, Experience
from world_models.settings import DreamerSettings
from world_models.vae import VAE, Autocast, encode_all

SLOW = 0.02
"""Share of the critic that the slow copy takes over in each update."""


See = Callable[[np.ndarray], np.ndarray]
"""Frames uint8 (T, N, H, W, 3) -> what the model sees: themselves, or latents (T, N, D)."""


class Pilot:
    """The actor in the real environment: sees frames, keeps the model's state, acts."""

    def __init__(
        self, see: See, model: RSSM, parts: ActorCritic, copies: int, greedy: bool
    ) -> None:
        self.see, self.model, self.parts, self.greedy = see, model, parts, greedy
        self.belief = model.blank(copies)
        self.action = torch.zeros(copies, 3, device=self.belief.hidden.device)
        self.first = torch.ones(copies, dtype=torch.bool, device=self.belief.hidden.device)

    @torch.no_grad()
    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Frames (N, H, W, 3) -> actions (N, 3)."""
        seen = torch.from_numpy(self.see(frame[None])[0]).to(self.action.device)
        embedded = self.model.embed(seen)
        self.belief = self.model.see(self.belief, self.action, embedded, self.first).belief
        self.first = torch.zeros_like(self.first)
        self.action, _ = self.parts.actor(self.belief.features, greedy=self.greedy)
        return self.action.cpu().numpy()

    def restart(self, which: np.ndarray) -> None:
        """In these copies the next frame is the first of an episode."""
        self.first = torch.from_numpy(which).to(self.action.device)


class Memory:
    """What the actor drove in the last `rounds` rounds, and the rollouts of the random policy,
    which are asked for when they are needed.
    """

    def __init__(self, rollouts: Callable[[], Rollouts], rounds: int) -> None:
        self.rollouts, self.rounds = rollouts, rounds
        self.pieces: list[dict[str, np.ndarray]] = []

    def add(self, piece: Rollouts) -> None:
        """The oldest piece goes when there are more than `rounds`."""
        self.pieces.append(piece._asdict())
        del self.pieces[: -self.rounds]

    def windows(
        self, batch: int, length: int, rng: np.random.Generator, device: torch.device
    ) -> Experience:
        """Windows of `length` steps: half of them (all at first) of the rollouts, the others of
        the actor's own driving.
        """
        rows, known = [], self.rollouts()._asdict()
        for b in range(batch):
            own = bool(self.pieces) and b % 2 == 0
            piece = self.pieces[rng.integers(len(self.pieces))] if own else known
            T, N = piece["action"].shape[:2]
            t, n = rng.integers(T - length + 1), rng.integers(N)
            rows.append([piece["frame"][t : t + length + 1, n]])
            rows[-1] += [piece[name][t : t + length, n] for name in Rollouts._fields[1:]]
        columns = (np.stack(column, axis=1) for column in zip(*rows, strict=True))
        return Experience(*(torch.from_numpy(column).to(device) for column in columns))


class Dreamer:
    """The learner: `update` is one round."""

    def __init__(
        self,
        rollouts: Rollouts,
        vision: VAE,
        env_id: str,
        settings: DreamerSettings,
        gamma: float,
        seed: int,
        device: torch.device,
        autocast: Autocast,
    ) -> None:
        self.settings, self.gamma, self.seed, self.env_id = settings, gamma, seed, env_id
        self.device, self.autocast = device, autocast
        self.vision = vision
        latents = settings.sees == "latents"
        shape = (vision.latent,) if latents else rollouts.frame.shape[2:]
        self.see = self._latents if latents else np.ascontiguousarray
        self.model = RSSM(shape, settings).to(device)
        features = settings.hidden + settings.groups * settings.classes
        self.parts = ActorCritic(features, settings.hidden).to(device)
        self.env: VectorEnv = open_copies(env_id, settings.envs)
        seen = functools.cache(lambda: self._seen(rollouts))  # not now: V has not learned yet
        self.memory = Memory(seen, settings.remembered)
        self.rng = np.random.default_rng((seed, 2010))
        rates = [
            (self.model, settings.lr), (self.parts.actor, settings.actor_lr),
            (self.parts.critic, settings.actor_lr),
        ]  # fmt: skip
        self.optimizers = [torch.optim.AdamW(m.parameters(), lr, fused=True) for m, lr in rates]
        self.books = {"real_steps": 0}
        self.tracked = {
            "model": self.model, "parts": self.parts, "pieces": self.memory.pieces,
            "rng": self.rng, "books": self.books,
            **{f"optimizer_{i}": one for i, one in enumerate(self.optimizers)},
        }  # fmt: skip

    @property
    def real_steps(self) -> int:
        """Frames driven by the actor."""
        return self.books["real_steps"]

    def update(self, round_: int) -> dict[str, Tensor | float]:
        """Drive, remember, learn; the first round learns the model from the rollouts."""
        settings = self.settings
        log: dict[str, Tensor | float] = dict(self.drive(round_)) if round_ else {}
        for _ in range(settings.updates if round_ else settings.pretrain):
            data = self.memory.windows(settings.batch, settings.length, self.rng, self.device)
            terms, beliefs = self.learn_model(data)
            log |= terms
            if round_:
                log |= self.learn_to_act(beliefs)
        return log

    def drive(self, round_: int) -> dict[str, float]:
        """`drive` frames in each copy, into memory; the episodes are new ones, so that nothing of
        the environment needs to be saved.
        """
        pilot = self._pilot(self.settings.envs, False)
        seed = int(np.random.SeedSequence((self.seed, round_)).generate_state(1)[0])
        piece = collect(self.env, pilot, self.settings.drive, seed)
        self.memory.add(self._seen(piece))
        self.books["real_steps"] += int(piece.valid.sum())
        return {"train/driven": float(piece.reward[piece.valid].mean())}

    def _pilot(self, copies: int, greedy: bool) -> Pilot:
        return Pilot(self.see, self.model, self.parts, copies, greedy)

    def _seen(self, piece: Rollouts) -> Rollouts:
        return piece._replace(frame=self.see(piece.frame))

    def _latents(self, frames: np.ndarray) -> np.ndarray:
        mean, _ = encode_all(self.vision, frames, self.device, self.autocast)
        return mean.cpu().numpy()

    def learn_model(self, data: Experience) -> tuple[dict[str, Tensor | float], Belief]:
        """One update of the model; returns what is to be logged, and the states of all frames."""
        with self.autocast():
            terms, beliefs = self.model.loss(data)
        self._descend(self.optimizers[0], terms["loss"], self.model)
        log: dict[str, Tensor | float] = {
            "train/model_loss": terms["loss"], "train/picture": terms["picture"],
            "train/kl": terms["kl"], "train/reward_error": terms["reward"],
        }  # fmt: skip
        return log, Belief(*(part.detach().flatten(0, 1) for part in beliefs))

    def learn_to_act(self, start: Belief) -> dict[str, Tensor | float]:
        """One update of actor and critic, in imagination from some of the states (B,)."""
        settings = self.settings
        chosen = torch.randperm(len(start.hidden), device=self.device)[: settings.starts]
        start = Belief(*(part[chosen] for part in start))
        self.model.requires_grad_(False)  # the actor's gradient goes through it, not into it
        trip = imagine(self.model, self.parts.actor, start, settings.horizon, self.gamma)
        actor, critic = self.parts.losses(trip, settings.lam, settings.entropy)
        self._descend(self.optimizers[1], actor, self.parts.actor)
        self._descend(self.optimizers[2], critic, self.parts.critic)
        self.model.requires_grad_(True)
        with torch.no_grad():
            pairs = zip(
                self.parts.slow_critic.parameters(), self.parts.critic.parameters(), strict=True
            )
            for slow, fast in pairs:
                slow.lerp_(fast, SLOW)
        return {
            "train/actor_loss": actor, "train/critic_loss": critic,
            "train/imagined": REWARD_SCALE * trip.reward.mean(),
        }  # fmt: skip

    @staticmethod
    def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, module: nn.Module) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 100.0)
        optimizer.step()

    def returns(self, copies: int, rounds: int, test: bool, seed: int) -> np.ndarray:
        """Returns of `rounds` greedy episodes in each of `copies` copies: (rounds copies,)."""
        env = open_copies(self.env_id, copies, test)
        with evaluating(self.model, self.parts):
            found = repeated_returns(lambda: self._pilot(copies, True), env, rounds, seed)
        env.close()
        return found
