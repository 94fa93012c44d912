"""Training an energy: chains, optimiser and averaged weights, and two objectives.

`EnergyLearner` is what all energies have in common. `EBM` trains one on points or pictures without
labels; JEM, with labels, is in jem.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from diffusion import EMA
from ebm_jepa import densities, losses, sgld
from ebm_jepa.settings import DensitySettings, EBMSettings, SamplerSettings

Autocast = Callable[[], AbstractContextManager[Any]]
Terms = dict[str, Tensor]


class EnergyLearner:
    """An energy with its chains, its optimiser and its averaged copy, which is what is measured."""

    group = ""
    """Name of its group of settings, for messages."""

    def __init__(
        self,
        energy: nn.Module,
        settings: SamplerSettings,
        start: Callable[[int], Tensor],
        bound: float,
        autocast: Autocast,
    ) -> None:
        """`start(n)` gives n starting points of chains, which stay inside [-bound, bound]."""
        self.energy, self.settings, self.bound, self.autocast = energy, settings, bound, autocast
        self.ema = EMA(energy, settings.ema_decay)
        self.buffer = sgld.ReplayBuffer(settings.buffer, settings.restart, start)
        self.optimizer = torch.optim.AdamW(
            energy.parameters(), settings.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )

    @property
    def tracked(self) -> dict[str, Any]:
        """What a resumed run restores."""
        return {
            "model": self.energy,
            "ema": self.ema,
            "optimizer": self.optimizer,
            "buffer": self.buffer,
        }

    def negatives(self) -> Tensor:
        """Ends of chains that went on by K steps from the buffer, and were put back there."""
        s = self.settings
        x, place = self.buffer.draw(s.chains)
        with self.autocast():
            ends = sgld.sample(
                self.energy, x, s.langevin_steps, s.step_size, s.noise, self.bound
            ).float()
        self.buffer.put(place, ends)
        return ends

    def descend(self, loss: Tensor, rate: float) -> None:
        """One step of the optimiser at `rate` times the peak learning rate."""
        self.optimizer.param_groups[0]["lr"] = rate * self.settings.lr
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.energy.parameters(), self.settings.clip)
        self.optimizer.step()
        self.ema.update(self.energy)

    def measures(self) -> Terms:
        """Nothing more to log than what `update` returns."""
        return {}


class EBM(EnergyLearner):
    """An energy of unlabelled examples, by contrastive divergence or a loss without chains."""

    def __init__(
        self,
        energy: nn.Module,
        settings: EBMSettings | DensitySettings,
        batch: Callable[[int, int], Tensor],
        start: Callable[[int], Tensor],
        bound: float,
        autocast: Autocast,
        group: str = "ebm",
    ) -> None:
        """`batch(step, n)` gives the n training examples of a step, float (n, ...)."""
        super().__init__(energy, settings, start, bound, autocast)
        self.own, self.batch, self.group = settings, batch, group

    def update(self, step: int, rate: float) -> Terms:
        """One step at `rate` times the peak learning rate. Raises RunFailed when it diverged."""
        x = self.batch(step, self.own.batch_size)
        if self.own.objective == "dsm":
            loss = losses.denoising_score_matching(
                self.energy, x, torch.randn_like(x), self.own.sigma
            )
            terms = {"loss": loss.detach()}
        elif self.own.objective == "exact":
            energy, points = self.energy(x).mean(), self.own.grid
            loss = energy + densities.log_z(self.energy, points, x.device)
            terms = {"loss": loss.detach(), "energy_real": energy.detach()}
        else:
            fake = self.negatives()
            with self.autocast():
                energies = self.energy(torch.cat([x, fake]))
            real, made = energies[: len(x)], energies[len(x) :]
            loss = losses.contrastive_divergence(real, made, self.settings.energy_penalty)
            terms = {"energy_real": real.detach().mean(), "energy_fake": made.detach().mean()}
            losses.check_energies(terms["energy_real"], terms["energy_fake"], step, self.group)
            terms |= {"loss": loss.detach(), "gap": terms["energy_real"] - terms["energy_fake"]}
        self.descend(loss, rate)
        return terms
