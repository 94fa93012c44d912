"""JEPA: predict the representation of what is hidden, not its pixels (LeCun 2022; Assran et al.
2023, I-JEPA).

    s = encoder(context patches)      t = target encoder(all patches)[target patches]
    loss = distance of predictor(s, places of the targets) from t

An energy-based model too: the energy is the prediction error, low for pictures whose parts fit
together. It is trained without negatives, so something else must prevent that all representations
become equal, which has no error either:

    ema      the target encoder is an average of the encoder's past weights, and gets no gradient
    vicreg   no teacher: gradients on both sides, and VICReg's terms on the pooled representation
    sigreg   likewise, with SIGReg instead (LeJEPA)
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebm_jepa import masks, regularisers
from ebm_jepa.ebm import Autocast, Terms
from ebm_jepa.settings import JEPASettings
from ebm_jepa.vit import Encoder, Predictor, take
from labkit.data import batch_indices
from labkit.learning.ema import Averaged
from representation_learning import Augmentation


def teacher_decay(updates: int, first: float, steps: int) -> float:
    """Weight of the old teacher: from `first` along a line to 1 at the last of `steps` updates."""
    return first + (1 - first) * min(1.0, updates / steps)


def standardised(tokens: Tensor, eps: float = 1e-5) -> Tensor:
    """Tokens (B, T, d), each number minus its mean over the batch and divided by its deviation
    there. What all pictures have in common at a place, above all the code of its position, is no
    answer. (I-JEPA standardises each token by itself; in a short run its answers are positions.)
    """
    variance, mean = torch.var_mean(tokens, dim=0, correction=0)
    return (tokens - mean) / (variance + eps).sqrt()


def prediction_error(predicted: Tensor, answer: Tensor, teacher: bool) -> Tensor:
    """Mean distance of predicted tokens (B, M, n, d) from the targets' tokens, 0-d.

    A teacher's tokens get no gradient, and the distance is Huber's; without a teacher it is the
    squared error, with gradients on both sides.
    """
    if teacher:
        return F.smooth_l1_loss(predicted, answer.detach())
    return F.mse_loss(predicted, answer)


class JEPA:
    """Encoder, teacher and predictor with their optimiser."""

    def __init__(
        self, encoder: Encoder, x: Tensor, settings: JEPASettings, seed: int, autocast: Autocast
    ) -> None:
        """x uint8 (N, C, H, W): the training pictures."""
        s = settings
        self.settings, self.x, self.seed, self.autocast = s, x, seed, autocast
        self.encoder = encoder
        self.untrained = copy.deepcopy(encoder).requires_grad_(False)
        self.predictor = Predictor(
            encoder.rows, encoder.columns, encoder.width,
            s.predictor_width, s.predictor_depth, s.heads,
        ).to(x.device)  # fmt: skip
        self.ema = Averaged(encoder, lambda n: teacher_decay(n, s.ema_decay, s.steps))
        self.networks = nn.ModuleList([encoder, self.predictor])
        self.optimizer = torch.optim.AdamW(
            self.networks.parameters(), s.lr, betas=(0.9, 0.95), weight_decay=s.weight_decay,
            fused=True,
        )  # fmt: skip
        self.augment = Augmentation((s.crop, 1.0), flip=s.flip, jitter=0.0, grey=0.0, blur=0.0)
        self.seen = torch.zeros(2, encoder.width)  # pooled tokens of the newest batch

    @property
    def tracked(self) -> dict[str, Any]:
        """What a resumed run restores."""
        return {"model": self.networks, "ema": self.ema, "optimizer": self.optimizer}

    @property
    def teacher(self) -> Encoder:
        """The target encoder, whose representation is measured; without a teacher, the encoder."""
        return self.ema.average if self.settings.anti_collapse == "ema" else self.encoder

    def update(self, step: int, rate: float) -> Terms:
        """One step at `rate` times the peak learning rate."""
        s, encoder = self.settings, self.encoder
        index = torch.from_numpy(batch_indices(len(self.x), s.batch_size, step, self.seed))
        images = self.augment(self.x[index.to(self.x.device)])
        draws = torch.Generator().manual_seed(1_000_003 * self.seed + step)
        context, targets = (
            each.to(images.device)
            for each in masks.draw(
                s.batch_size, encoder.rows, encoder.columns,
                s.targets, s.target_scale, s.context_scale, draws,
            )
        )  # fmt: skip
        taught = s.anti_collapse == "ema"
        with self.autocast():
            with torch.set_grad_enabled(not taught):
                whole = self.teacher(images)
            predicted = self.predictor(encoder(images, context), context, targets)
        whole = whole.float()
        answer = standardised(whole) if taught else whole
        error = prediction_error(predicted.float(), take(answer, targets), taught)
        pooled = whole.mean(dim=1)
        loss = error + s.regulariser * self.regulariser(pooled)
        self.optimizer.param_groups[0]["lr"] = rate * s.lr
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), s.clip)
        self.optimizer.step()
        if taught:
            self.ema.update(encoder)
        self.seen = pooled.detach()
        return {"loss": loss.detach(), "prediction_error": error.detach()}

    def regulariser(self, pooled: Tensor) -> Tensor:
        """The term against collapse of pooled representations (B, d); 0 with a teacher."""
        s = self.settings
        if s.anti_collapse == "vicreg":
            return regularisers.vicreg(pooled, s.covariance)
        if s.anti_collapse == "sigreg":
            along = regularisers.directions(pooled.shape[1], s.slices, pooled.device)
            return regularisers.sigreg(pooled, along)
        return pooled.new_zeros(())

    def measures(self) -> Terms:
        """How collapsed the newest batch is: its effective rank, and its mean deviation."""
        return {
            "rank": regularisers.effective_rank(self.seen),
            "deviation": self.seen.std(dim=0).mean(),
        }
