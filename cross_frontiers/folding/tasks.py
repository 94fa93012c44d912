"""The two things that are learned: contacts of many families, and structures of a few proteins.

Both have a model, a loss for each step, and a look at how far it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cross_frontiers.folding import evaluate, generated, geometry
from cross_frontiers.folding import frames as rigid
from cross_frontiers.folding.frames import Frames
from cross_frontiers.folding.generated import Families
from cross_frontiers.folding.model import ContactModel, FoldingModel
from cross_frontiers.folding.pdb import Chain
from cross_frontiers.folding.settings import EvoformerSettings
from cross_frontiers.folding.structure import structure_loss
from labkit.data import batch_indices
from labkit.learning.modes import evaluating

AT_ONCE = 16
"""Families that are evaluated together."""


class Task(Protocol):
    """What the loop in train.py needs."""

    @property
    def model(self) -> nn.Module: ...
    def loss(self, step: int) -> Tensor:
        """Of the batch of this step, a scalar with gradients."""
        ...

    def look(self) -> dict[str, float]:
        """Validation metrics."""
        ...


class Contacts:
    """From alignments to contacts: cross-entropy on pairs that are far apart in the chain."""

    def __init__(
        self,
        net: EvoformerSettings,
        families: dict[str, Families],
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.model = ContactModel(net).to(device)
        self.families, self.batch_size, self.seed, self.device = families, batch_size, seed, device
        train = families["train"]
        self.msa = torch.from_numpy(train.msa).to(device)
        self.contacts = torch.from_numpy(train.contacts).to(device).float()
        place = torch.arange(train.msa.shape[2], device=device)
        self.counted = place - place[:, None] >= evaluate.SEPARATION

    def loss(self, step: int) -> Tensor:
        """Of families drawn for this step."""
        rows = torch.from_numpy(batch_indices(len(self.msa), self.batch_size, step, self.seed))
        rows = rows.to(self.device)
        logits = self.model(self.msa[rows])[:, self.counted].float()
        return F.binary_cross_entropy_with_logits(logits, self.contacts[rows][:, self.counted])

    def scores(self, msa: np.ndarray) -> np.ndarray:
        """Logits (F, L, L) of alignments (F, S, L)."""
        with evaluating(self.model):
            parts = torch.from_numpy(msa).to(self.device).split(AT_ONCE)
            return torch.cat([self.model(part).float() for part in parts]).cpu().numpy()

    def look(self) -> dict[str, float]:
        """Precision on the validation families."""
        valid = self.families["valid"]
        precision = evaluate.mean_precision(self.scores(valid.msa), valid.contacts)
        return {"valid/precision": precision}


@dataclass(frozen=True)
class Target:
    """A protein with the tensors that the model takes."""

    chain: Chain
    tokens: Tensor
    """(1, 1, L)"""
    index: Tensor
    """(L,)"""
    frames: Frames
    """True ones, (1, L), Å."""


def target_of(chain: Chain, device: torch.device) -> Target:
    """Tokens, numbers and true frames of a chain."""
    n, ca, c = (torch.from_numpy(chain.atoms[None, :, k]).float().to(device) for k in range(3))
    tokens = torch.from_numpy(chain.tokens)[None, None].to(device)
    return Target(
        chain, tokens, torch.from_numpy(chain.index).to(device), rigid.from_points(n, ca, c)
    )


class Structures:
    """From sequence to structure, for a few proteins by heart; one protein in each step.

    There is nothing held out: a network that has seen three proteins cannot know a fourth. What is
    tested is whether frames, attention and loss can make a structure at all.
    """

    def __init__(
        self,
        net: EvoformerSettings,
        chains: list[Chain],
        layers: int,
        unclamped: float,
        device: torch.device,
    ) -> None:
        self.model = FoldingModel(net, layers).to(device)
        self.targets = [target_of(chain, device) for chain in chains]
        self.unclamped = unclamped

    def loss(self, step: int) -> Tensor:
        """Of one protein, in turn. In fp32: bf16 knows a place 50 Å away to a quarter of an Å."""
        its = self.targets[step % len(self.targets)]
        with torch.autocast(its.tokens.device.type, enabled=False):
            return structure_loss(self.model(its.tokens, its.index), its.frames, self.unclamped)

    def predict(self, its: Target) -> Frames:
        """The frames after the last layer, (1, L), Å."""
        with evaluating(self.model):
            found: list[Frames] = self.model(its.tokens, its.index)
        return found[-1]

    def points(self, its: Target) -> np.ndarray:
        """Predicted CA atoms, float64 (L, 3)."""
        return self.predict(its).translation[0].double().cpu().numpy()

    def look(self) -> dict[str, float]:
        """RMSD of the protein that fits worst."""
        each = [geometry.rmsd(self.points(its), its.chain.atoms[:, 1]) for its in self.targets]
        return {"train/rmsd": max(each)}


def split_sizes(families: dict[str, Families]) -> dict[str, int]:
    """Families of each split."""
    return {name: len(families[name]) for name in generated.SPLITS}
