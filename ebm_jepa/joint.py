"""What both JEPAs share: encoder, teacher, predictor, what prevents collapse, and the optimiser."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ebm_jepa import regularisers
from ebm_jepa.ebm import Autocast, Terms
from ebm_jepa.settings import JEPASettings
from labkit.data import batch_indices
from labkit.learning.ema import Averaged


def teacher_decay(updates: int, first: float, steps: int) -> float:
    """Weight of the old teacher: from `first` along a line to 1 at the last of `steps` updates."""
    return first + (1 - first) * min(1.0, updates / steps)


class JointEmbedding(ABC):
    """Networks that learn by predicting an embedding; a task gives them its `losses`."""

    def __init__(
        self, embedder: nn.Module, encoder: nn.Module, predictor: nn.Module, x: Tensor,
        settings: JEPASettings, seed: int, autocast: Autocast,
    ) -> None:  # fmt: skip
        """
        Args:
            embedder: what the teacher is an average of.
            encoder: the part of it whose representation is measured, by its `pooled`.
            x: uint8 (N, C, H, W), the training pictures.
        """
        s = settings
        self.settings, self.x, self.seed, self.autocast = s, x, seed, autocast
        self.embedder, self.predictor = embedder, predictor
        self.untrained = copy.deepcopy(encoder).requires_grad_(False)
        self.ema = Averaged(embedder, lambda n: teacher_decay(n, s.ema_decay, s.steps))
        self.networks = nn.ModuleList([embedder, predictor])
        trained = [p for p in self.networks.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trained, s.lr, betas=(0.9, 0.95), weight_decay=s.weight_decay, fused=True
        )
        self.seen = torch.zeros(2, 1)  # embeddings of the newest batch

    @property
    def tracked(self) -> dict[str, Any]:
        """What a resumed run restores."""
        return {"model": self.networks, "ema": self.ema, "optimizer": self.optimizer}

    @property
    def taught(self) -> bool:
        """Whether the answers are a teacher's."""
        return self.settings.anti_collapse == "ema"

    @property
    def answering(self) -> nn.Module:
        """What gives the answers: the teacher; without one, what is trained."""
        return self.ema.average if self.taught else self.embedder

    @abstractmethod
    def losses(self, images: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of pictures uint8 (B, C, H, W): the prediction error, what prevents collapse, both 0-d,
        and embeddings (B, d).
        """

    def update(self, step: int, rate: float) -> Terms:
        """One step at `rate` times the peak learning rate."""
        s = self.settings
        index = torch.from_numpy(batch_indices(len(self.x), s.batch_size, step, self.seed))
        error, spread, embeddings = self.losses(self.x[index.to(self.x.device)], step)
        loss = error + s.regulariser * spread
        self.optimizer.param_groups[0]["lr"] = rate * s.lr
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), s.clip)
        self.optimizer.step()
        if self.taught:
            self.ema.update(self.embedder)
        self.seen = embeddings.detach()
        return {"loss": loss.detach(), "prediction_error": error.detach()}

    def regulariser(self, z: Tensor) -> Tensor:
        """The term against collapse of embeddings (B, d); 0 with a teacher."""
        s = self.settings
        if s.anti_collapse == "vicreg":
            return regularisers.vicreg(z, s.covariance)
        if s.anti_collapse == "sigreg":
            along = regularisers.directions(z.shape[1], s.slices, z.device)
            return regularisers.sigreg(z, along)
        return z.new_zeros(())

    def measures(self) -> Terms:
        """How collapsed the newest batch is: its effective rank, and its mean deviation."""
        return {
            "rank": regularisers.effective_rank(self.seen),
            "deviation": self.seen.std(dim=0).mean(),
        }
