"""The variational autoencoder (Kingma & Welling 2013) and bounds on the likelihood.

    log p(x) >= E_q(z|x) [log p(x | z)] - KL(q(z | x) || p(z))        the ELBO, eq. 3

Everything is counted in nats per picture: summed over pixels and over latents, averaged over
pictures. A mean in one term and a sum in the other changes beta by a factor of hundreds.

Letters: B batch, K samples, (C, H, W) a picture, (c, h, w) its latents.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative_models.model import Decoder, Encoder, Shape
from generative_models.settings import Likelihood, VAESettings
from labkit import exercise

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


@exercise(minutes=10)
def reparameterise(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A sample of N(mean, exp(log_variance)), differentiable in both (section 2.4).

    z = mean + deviation * eps, eps ~ N(0, I) of mean's shape from PyTorch's generator, one
    independent number for each element.

    Args:
        mean, log_variance: (B, ...), one shape and floating type; not changed.
    Returns:
        z in that shape and type.
    """
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


@exercise(minutes=15)
def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each element, in nats (appendix B).

        (mean^2 + variance - 1 - log variance) / 2

    Args:
        mean, log_variance: (B, ...), one shape; not changed.
    Returns:
        In their shape, 0 or more; nothing is summed yet.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


@exercise(minutes=15)
def kl_term(kl: Tensor, free_bits: float = 0.0) -> Tensor:
    """The KL term of the loss, with free bits (Kingma et al. 2016, eq. 15).

    Each latent's KL is averaged over the batch; what is less than `free_bits` counts as
    `free_bits`, so that no gradient pushes that latent to the prior; then the latents are summed.
    With 0 it is the KL of a picture, averaged over the batch.

    Args:
        kl: (B, ...), the KL of each latent of each picture, in nats.
    Returns:
        A scalar.
    """
    return kl.mean(dim=0).clamp(min=free_bits).sum()


@exercise(minutes=15)
def bernoulli_log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """log p(x) of pictures whose pixels are 1 with probability sigmoid(logit) (appendix C.1).

    Summed over all pixels of a picture, and exact for logits of any size: the sigmoid itself
    rounds to 0 or 1 for large ones.

    Args:
        logits: (B, ...), any real numbers.
        x: (B, ...), each 0 or 1.
    Returns:
        (B,), 0 or less, in nats.
    """
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(dim=1)


def gaussian_log_likelihood(mean: Tensor, log_deviation: Tensor, x: Tensor) -> Tensor:
    """log N(x; mean, deviation^2), (B, ...) each, summed over all but the batch: (B,) in nats."""
    scaled = (x - mean) * (-log_deviation).exp()
    each = -0.5 * (scaled.square() + math.log(2 * math.pi)) - log_deviation
    return each.flatten(1).sum(dim=1)


@exercise(minutes=20)
def importance_bound(log_weights: Tensor) -> Tensor:
    """The importance-weighted bound on log p(x) from K samples (Burda et al. 2015, eq. 8).

    log (1/K sum_k w_k), with log w_k = log p(x, z_k) - log q(z_k | x) given; finite for log-weights
    of any size. At K = 1 it is the ELBO, and it grows with K towards log p(x).

    Args:
        log_weights: (K, B).
    Returns:
        (B,).
    """
    return log_weights.logsumexp(dim=0) - math.log(len(log_weights))


class VAE(nn.Module):
    """Encoder, decoder and, for the Gaussian likelihood, one deviation of all pixels.

    The deviation is learned with the rest, and so is the balance between the two terms of the ELBO
    (Rybkin, Daniilidis & Levine 2021): a fixed deviation is a hidden beta.
    """

    def __init__(
        self, image: Shape, width: int, levels: int, latent: int, spatial: bool = False,
        likelihood: Likelihood = "bernoulli",
    ) -> None:  # fmt: skip
        """`image` is (C, H, W); `latent` the number of latents, or of their channels."""
        super().__init__()
        self.shape = {
            "image": list(image), "width": width, "levels": levels, "latent": latent,
            "spatial": spatial, "likelihood": likelihood,
        }  # fmt: skip
        self.likelihood = likelihood
        self.encoder = Encoder(image, width, levels, 2 * latent, spatial)
        self.decoder = Decoder(image, width, levels, latent, spatial)
        self.image, self.latent = image, self.decoder.latent
        self.log_deviation = nn.Parameter(torch.tensor(-1.5), likelihood == "gaussian")

    def observe(self, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the likelihood is of, from pixels uint8 (B, C, H, W): float in [0, 1].

        Bernoulli: each pixel is 1 with probability pixel / 255, drawn anew at each call
        (Salakhutdinov & Murray 2008). Gaussian: (pixel + u) / 256, u uniform in [0, 1): without
        the noise, a density on whole numbers can grow without bound (Theis et al. 2016). With a
        generator, which must be the CPU's, the same is drawn on every device.
        """
        if generator is None:
            u = torch.rand(pictures.shape, device=pictures.device)
        else:
            u = torch.rand(pictures.shape, generator=generator).to(pictures.device)
        if self.likelihood == "bernoulli":
            return (255 * u < pictures).float()
        return (pictures + u) / 256

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [0, 1] -> mean and log-variance of q(z | x), float32 (B, c, h, w)."""
        mean, log_variance = self.encoder(x).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)  # an early step must not overflow exp

    def latents(self, x: Tensor) -> Tensor:
        """The means of q(z | x), float32 (B, c, h, w)."""
        return self.encode(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """The mean picture of p(x | z), float32 (B, C, H, W) in [0, 1]."""
        return self.decoder.decode(z)

    def prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n latents from the prior, a standard normal."""
        return self.decoder.prior(n, generator)

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(x | z) of latents (B, c, h, w) and observations (B, C, H, W): (B,), in nats."""
        logits = self.decoder(z).float()
        if self.likelihood == "bernoulli":
            return bernoulli_log_likelihood(logits, x)
        # Per whole number of grey levels: the density of x times the width of a level, 1 / 256.
        levels = x[0].numel() * math.log(256)
        return gaussian_log_likelihood(logits.sigmoid(), self.log_deviation, x) - levels


def log_weights(model: VAE, x: Tensor, samples: int) -> Tensor:
    """log p(x | z_k) + log p(z_k) - log q(z_k | x) for z_k ~ q(z | x): (samples, B)."""
    mean, log_variance = model.encode(x)
    rows = []
    for _ in range(samples):
        z = reparameterise(mean, log_variance)
        # log p(z) - log q(z | x): the factors 2 pi cancel.
        ratio = ((z - mean).square() * (-log_variance).exp() + log_variance - z.square()) / 2
        rows.append(model.log_likelihood(z, x) + ratio.flatten(1).sum(dim=1))
    return torch.stack(rows)


class VAELearner:
    """Trains a VAE on batches of pictures."""

    terms = ("loss", "reconstruction", "kl")

    def __init__(self, network: VAE, settings: VAESettings, autocast: Autocast) -> None:
        self.network, self.settings, self.autocast = network, settings, autocast
        self.generator, self.lr = network, settings.lr
        self.optimizer = torch.optim.AdamW(
            network.parameters(), settings.lr, (0.9, 0.99), weight_decay=0.0, fused=True
        )
        self.tracked = {"network": network, "optimizer": self.optimizer}

    def update(self, pictures: Tensor, rate: float) -> dict[str, Tensor]:
        """One step down the negative ELBO of pictures, uint8 (B, C, H, W), at `rate` times the
        peak learning rate. Returns the terms, scalars in nats per picture.
        """
        self.optimizer.param_groups[0]["lr"] = rate * self.settings.lr
        x = self.network.observe(pictures)
        with self.autocast():
            mean, log_variance = self.network.encode(x)
            z = reparameterise(mean, log_variance)
            reconstruction = -self.network.log_likelihood(z, x).mean()
        kl = gaussian_kl(mean, log_variance)
        loss = reconstruction + self.settings.beta * kl_term(kl, self.settings.free_bits)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl_term(kl)}
