"""JEPA of views: predict the embedding of one view of a picture from that of another.

    h = f(view)          representation: what is judged
    z = g(h)             embedding: what is predicted
    loss = distance of z' from z + what prevents collapse

A view is week 4's: a crop, mirrored or not, in other colours. Context and target are both views, so
nothing hidden has a place, and without a teacher the predictor is the identity: the embeddings
themselves must agree (Bardes, Ponce, LeCun 2022, VICReg; Balestriero & LeCun 2025, LeJEPA). With a
teacher it is a small network, without which teacher and encoder collapse together (Grill et al.
2020, BYOL, section 3). SimCLR has the same views and the same encoder; it needs negatives.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebm_jepa.ebm import Autocast
from ebm_jepa.joint import JointEmbedding
from ebm_jepa.settings import JEPASettings
from representation_learning import Augmentation, make_encoder, projection_head, square


class ViewEncoder(nn.Module):
    """Week 4's encoder: float pictures (B, 1 or 3, H, W) in [0, 1] -> representations (B, d)."""

    def __init__(self, name: str, channels: int, x: Tensor) -> None:
        """x uint8 (N, 3, 32, 32): training pictures, from which the first layer is made."""
        super().__init__()
        self.network = make_encoder(name, channels, x)
        self.width = self.network.dim

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != (3, 32, 32):
            images = F.interpolate(images, size=32, mode="bilinear", align_corners=False)
            images = images.expand(-1, 3, -1, -1)
        h: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return h

    pooled = forward


def agreement(predicted: Tensor, answer: Tensor) -> Tensor:
    """1 - cosine of the angle between rows of predicted and answer, both (B, d), on average. 0-d.

    The answer is a teacher's and gets no gradient (BYOL, equation 2, halved).
    """
    return 1 - F.cosine_similarity(predicted, answer.detach(), dim=1).mean()


class Views(JointEmbedding):
    """Encoder, projection, teacher and predictor with their optimiser."""

    encoder: ViewEncoder

    def __init__(self, x: Tensor, settings: JEPASettings, seed: int, autocast: Autocast) -> None:
        """x uint8 (N, C, H, W): the training pictures."""
        s, x = settings, square(x)
        self.encoder = encoder = ViewEncoder(s.network, s.channels, x).to(x.device)
        head = projection_head(encoder.width, s.head_hidden, s.head_dim).to(x.device)
        predictor: nn.Module = nn.Identity()
        if s.anti_collapse == "ema":
            predictor = projection_head(s.head_dim, s.head_hidden, s.head_dim).to(x.device)
        super().__init__(nn.Sequential(encoder, head), encoder, predictor, x, s, seed, autocast)
        self.ema.average.train()  # the teacher normalises by its batch, as the encoder does
        self.augment = Augmentation((s.crop, 1.0), flip=s.flip, colour=s.colour, blur=0.0)

    @property
    def teacher(self) -> ViewEncoder:
        """The encoder whose representation is measured: the teacher's; without one, its own."""
        return cast(ViewEncoder, cast(nn.Sequential, self.answering)[0])

    def losses(self, images: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """See `JointEmbedding`; the embeddings are those of the first views."""
        context, target = self.augment(images), self.augment(images)
        with self.autocast():
            with torch.set_grad_enabled(not self.taught):
                answer = self.answering(target)
            z = self.embedder(context)
            predicted = self.predictor(z)
        z, answer, predicted = z.float(), answer.float(), predicted.float()
        if self.taught:
            return agreement(predicted, answer), self.regulariser(z), z
        spread = (self.regulariser(z) + self.regulariser(answer)) / 2
        return F.mse_loss(predicted, answer), spread, z
