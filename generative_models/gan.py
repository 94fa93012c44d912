"""The generative adversarial network (Goodfellow et al. 2014) and what makes it train.

A generator G draws pictures from noise z; a discriminator D gives a logit, high for pictures that
it takes for real. Both are trained in turn, each on its own loss:

    non_saturating   D: -log s(D(x)) - log(1 - s(D(G(z))))       G: -log s(D(G(z)))
    hinge            D: max(0, 1 - D(x)) + max(0, 1 + D(G(z)))   G: -D(G(z))

with s the sigmoid. Around it: spectral normalisation (model.py), the R1 penalty, differentiable
augmentation, and an average of the generator's weights, which draws better than the last ones.

Letters: B batch, (C, H, W) a picture.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative_models.model import Decoder, Discriminator, dcgan_weights
from generative_models.settings import GANSettings, Loss
from generative_models.vae import Autocast
from labkit import exercise
from labkit.learning.ema import Averaged
from pytorch_mastery import random_shift

Judge = Callable[[Tensor], Tensor]
"""A discriminator: pictures (B, C, H, W) -> logits (B,)."""


@exercise(minutes=20)
def discriminator_loss(discriminator: Judge, real: Tensor, fake: Tensor, loss: Loss) -> Tensor:
    """The discriminator's loss; its gradient does not reach whatever made `fake`.

    Real and generated pictures go through the discriminator in two separate calls, real ones first.
    With r and f the two sets of logits, each averaged over its own batch:
        non_saturating   mean(-log sigmoid(r)) + mean(-log(1 - sigmoid(f)))
        hinge            mean(max(0, 1 - r)) + mean(max(0, 1 + f))
    Finite for logits of any size.

    Args:
        real, fake: (B, C, H, W); their batch sizes may differ.
    Returns:
        A scalar.
    """
    r, f = discriminator(real), discriminator(fake.detach())
    if loss == "hinge":
        return F.relu(1 - r).mean() + F.relu(1 + f).mean()
    return F.softplus(-r).mean() + F.softplus(f).mean()


@exercise(minutes=10)
def generator_loss(discriminator: Judge, fake: Tensor, loss: Loss) -> Tensor:
    """The generator's loss, whose gradient goes through the discriminator into `fake`.

    With f the logits of the generated pictures:
        non_saturating   mean(-log sigmoid(f)): the gradient stays large where D is sure
        hinge            mean(-f)
    Finite for logits of any size. Args and return as in `discriminator_loss`.
    """
    f = discriminator(fake)
    return -f.mean() if loss == "hinge" else F.softplus(-f).mean()


@exercise(minutes=20)
def r1_penalty(discriminator: Judge, real: Tensor) -> Tensor:
    """The R1 penalty without its weight gamma / 2 (Mescheder et al. 2018, eq. 9).

    The squared norm of the gradient of D(x) with respect to the picture x, over all its channels
    and pixels, averaged over the batch. It can itself be differentiated with respect to the
    discriminator's parameters.

    Args:
        real: (B, C, H, W), with or without requires_grad; neither it nor its .grad is changed.
    Returns:
        A scalar.
    """
    x = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


def augmented(pictures: Tensor, kinds: Sequence[str]) -> Tensor:
    """DiffAugment (Zhao et al. 2020): random changes of each picture, differentiable in its pixels.

    Real and generated pictures get the same kinds, in both steps: the discriminator cannot learn
    few real pictures by heart, and the changes do not leak into what is generated. `color` changes
    brightness, saturation and contrast, `translation` shifts by up to an eighth, `cutout` blanks a
    square of half the side.

    Args:
        pictures: float (B, C, H, W); not changed.
        kinds: any of AUGMENTATIONS, applied in that order.
    """
    B, _, H, W = pictures.shape
    x = pictures
    if "color" in kinds:
        brightness, saturation, contrast = torch.rand(3, B, 1, 1, 1, device=x.device)
        x = x + brightness - 0.5
        grey = x.mean(dim=1, keepdim=True)
        x = grey + (x - grey) * 2 * saturation
        level = x.mean(dim=(1, 2, 3), keepdim=True)
        x = level + (x - level) * (contrast + 0.5)
    if "translation" in kinds:
        x = random_shift(x, max(H, W) // 8)
    if "cutout" in kinds:
        top = torch.randint(H + 1, (B, 1, 1, 1), device=x.device) - H // 4
        left = torch.randint(W + 1, (B, 1, 1, 1), device=x.device) - W // 4
        row = torch.arange(H, device=x.device).view(1, 1, H, 1) - top
        column = torch.arange(W, device=x.device).view(1, 1, 1, W) - left
        inside = (row >= 0) & (row < H // 2) & (column >= 0) & (column < W // 2)
        x = x.masked_fill(inside, 0.0)
    return x


class GAN:
    """Trains a generator and a discriminator against each other."""

    terms = ("d_loss", "g_loss")

    def __init__(
        self, generator: Decoder, discriminator: Discriminator, settings: GANSettings,
        autocast: Autocast,
    ) -> None:  # fmt: skip
        self.network, self.discriminator = generator, discriminator
        self.settings, self.autocast = settings, autocast
        for module in (generator, discriminator):
            dcgan_weights(module)
        self.ema = Averaged(generator, self._decay)
        self.generator, self.lr = self.ema.average, settings.lr_generator
        rates = settings.lr_generator, settings.lr_discriminator
        self.g_optimizer = _adam(generator, rates[0])
        self.d_optimizer = _adam(discriminator, rates[1])
        self.tracked = {
            "generator": generator,
            "discriminator": discriminator,
            "ema": self.ema,
            "g_optimizer": self.g_optimizer,
            "d_optimizer": self.d_optimizer,
        }

    def _decay(self, updates: int) -> float:
        """The limit, and less in the first steps: the average must not keep the first weights."""
        return min(self.settings.ema_decay, (1 + updates) / (10 + updates))

    def update(self, pictures: Tensor, rate: float) -> dict[str, Tensor]:
        """One step of each player on pictures, uint8 (B, C, H, W), at `rate` times the peak
        learning rates. Returns the losses and the mean logits, scalars.
        """
        settings, D = self.settings, self.discriminator
        self.g_optimizer.param_groups[0]["lr"] = rate * settings.lr_generator
        self.d_optimizer.param_groups[0]["lr"] = rate * settings.lr_discriminator

        def judged(x: Tensor) -> Tensor:
            logits: Tensor = D(augmented(x, settings.augment))
            return logits

        with self.autocast():
            fake = self.network.decode(self.network.prior(len(pictures)))  # for both players
        D.requires_grad_(True)
        parts = (x.chunk(settings.discriminator_steps) for x in (pictures.float() / 255, fake))
        for real, drawn in zip(*parts, strict=True):
            with self.autocast():
                d_loss = discriminator_loss(judged, real, drawn, settings.loss)
            if settings.r1:
                d_loss = d_loss + settings.r1 / 2 * r1_penalty(judged, real)
            self.d_optimizer.zero_grad()
            d_loss.backward()
            self.d_optimizer.step()

        D.requires_grad_(False)  # its gradients are not needed here
        with self.autocast():
            g_loss = generator_loss(judged, fake, settings.loss)
        self.g_optimizer.zero_grad()
        g_loss.backward()
        self.g_optimizer.step()
        self.ema.update(self.network)
        return {"d_loss": d_loss, "g_loss": g_loss}


def _adam(module: nn.Module, lr: float) -> torch.optim.Adam:
    """Adam with DCGAN's short memory of the gradient's direction, 0.5: the target moves."""
    return torch.optim.Adam(module.parameters(), lr, (0.5, 0.99), fused=True)
