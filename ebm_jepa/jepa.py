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

import torch
import torch.nn.functional as F
from torch import Tensor

from ebm_jepa import masks
from ebm_jepa.ebm import Autocast
from ebm_jepa.joint import JointEmbedding
from ebm_jepa.settings import JEPASettings
from ebm_jepa.vit import Encoder, Predictor, take
from representation_learning import Augmentation


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


class JEPA(JointEmbedding):
    """Encoder, teacher and predictor with their optimiser."""

    def __init__(
        self, encoder: Encoder, x: Tensor, settings: JEPASettings, seed: int, autocast: Autocast
    ) -> None:
        """x uint8 (N, C, H, W): the training pictures."""
        s = settings
        predictor = Predictor(
            encoder.rows, encoder.columns, encoder.width,
            s.predictor_width, s.predictor_depth, s.heads,
        ).to(x.device)  # fmt: skip
        super().__init__(encoder, encoder, predictor, x, s, seed, autocast)
        self.encoder = encoder
        self.augment = Augmentation((s.crop, 1.0), flip=s.flip, jitter=0.0, grey=0.0, blur=0.0)

    @property
    def teacher(self) -> Encoder:
        """The target encoder, whose representation is measured; without a teacher, the encoder."""
        return self.ema.average if self.taught else self.encoder  # type: ignore[return-value]

    def losses(self, images: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """See `JointEmbedding`; the embeddings are the pooled tokens of the whole pictures."""
        s, encoder = self.settings, self.encoder
        views = self.augment(images)
        draws = torch.Generator().manual_seed(1_000_003 * self.seed + step)
        context, targets = (
            each.to(views.device)
            for each in masks.draw(
                s.batch_size, encoder.rows, encoder.columns,
                s.targets, s.target_scale, s.context_scale, draws,
            )
        )  # fmt: skip
        with self.autocast():
            with torch.set_grad_enabled(not self.taught):
                whole = self.answering(views)
            predicted = self.predictor(encoder(views, context), context, targets)
        whole = whole.float()
        answer = standardised(whole) if self.taught else whole
        error = prediction_error(predicted.float(), take(answer, targets), self.taught)
        pooled = whole.mean(dim=1)
        return error, self.regulariser(pooled), pooled
