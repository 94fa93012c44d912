"""JEM: a classifier is secretly an energy-based model (Grathwohl et al. 2019).

The logits f(x)[y] of a classifier define log p(y | x) by softmax. Read as unnormalised
log-probabilities of x and y together, they define a model of the pictures as well:

    p(x, y) = e^f(x)[y] / Z      p(x) = sum over y of e^f(x)[y] / Z      E(x) = -logsumexp f(x)

so log p(x, y) = log p(x) + log p(y | x) is trained with cross-entropy for the second term and
contrastive divergence for the first (section 4).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebm_jepa import losses
from ebm_jepa.ebm import Autocast, EnergyLearner, Terms
from ebm_jepa.energy import LogitEnergy, energy_of_logits
from ebm_jepa.settings import JEMSettings
from labkit.data import batch_indices
from pytorch_mastery import random_shift

BOUND = 1.0
"""Pictures have values in [-BOUND, BOUND], and so have chains."""


def to_signed(images: Tensor) -> Tensor:
    """uint8 (B, C, H, W) -> float in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_unit(x: Tensor) -> Tensor:
    """Float in [-1, 1] -> float in [0, 1], what lies outside cut off."""
    return ((x + 1) / 2).clamp(0, 1)


class Pictures:
    """Training pictures as an energy sees them: shifted, in [-1, 1], with a little noise.

    Noise makes the density of pictures smooth: without it the data would be on a grid of 256 grey
    levels, where a density has no gradient worth following.
    """

    def __init__(self, x: Tensor, y: Tensor, shift: int, noise: float, seed: int) -> None:
        """x uint8 (N, C, H, W), y int64 (N,)."""
        self.x, self.y, self.shift, self.noise, self.seed = x, y, shift, noise, seed

    def __call__(self, step: int, n: int) -> Tensor:
        """The n pictures of a step, float (n, C, H, W)."""
        return self.labelled(step, n)[0]

    def labelled(self, step: int, n: int) -> tuple[Tensor, Tensor]:
        """The n pictures of a step and their classes (n,)."""
        index = torch.from_numpy(batch_indices(len(self.x), n, step, self.seed)).to(self.x.device)
        images = to_signed(random_shift(self.x[index], self.shift))
        return images + self.noise * torch.randn_like(images), self.y[index]


class JEM(EnergyLearner):
    """The classifier with its chains; p_x = 0 is the same classifier without them."""

    group = "jem"

    def __init__(
        self,
        network: nn.Module,
        settings: JEMSettings,
        pictures: Pictures,
        start: Callable[[int], Tensor],
        autocast: Autocast,
    ) -> None:
        super().__init__(LogitEnergy(network), settings, start, BOUND, autocast)
        self.network, self.own, self.pictures = network, settings, pictures

    def update(self, step: int, rate: float) -> Terms:
        """One step at `rate` times the peak learning rate. Raises RunFailed when it diverged."""
        x, y = self.pictures.labelled(step, self.own.batch_size)
        if not self.own.p_x:
            with self.autocast():
                logits = self.network(x).float()
            loss = F.cross_entropy(logits, y)
            self.descend(loss, rate)
            return {"loss": loss.detach()}
        fake = self.negatives()
        with self.autocast():
            logits = self.network(torch.cat([x, fake])).float()  # nothing mixes the examples
        real, made = energy_of_logits(logits[: len(x)]), energy_of_logits(logits[len(x) :])
        classify = F.cross_entropy(logits[: len(x)], y)
        generate = losses.contrastive_divergence(real, made, self.own.energy_penalty)
        means = real.detach().mean(), made.detach().mean()
        losses.check_energies(*means, step, self.group)
        self.descend(classify + self.own.p_x * generate, rate)
        return {
            "loss": classify.detach(),
            "energy_real": means[0],
            "energy_fake": means[1],
            "gap": means[0] - means[1],
        }
