"""How good a trained model is: its pictures, its likelihood, its codes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from generative_models.pipeline import Autoencoder, Generator
from generative_models.vae import VAE, gaussian_kl, importance_bound, kl_term, log_weights
from generative_models.vqvae import VQVAE, perplexity
from labkit import Run
from labkit.data import ImageData, epoch_order
from labkit.learning.modes import evaluating
from pytorch_mastery import FeatureDistance, judge

NEIGHBOURS = 2000
"""Training pictures among which the nearest one gives a drawn picture its class."""
BOUND_PICTURES = 1000
"""Pictures, at most, on which the importance-weighted bound is measured."""
ACTIVE = 0.01
"""Variance of a latent's mean over the data from which it counts as active (Burda et al. 2015)."""


def picture_metrics(
    run: Run, generator: Generator, data: ImageData, test: Tensor, samples: int
) -> dict[str, float]:
    """Feature distance and class coverage of `samples` drawn pictures (at most as many as there
    are in `test`, uint8 (N, C, H, W), which they are compared with).
    """
    x, y = data.train.tensors(run.device)
    count = min(samples, len(test))
    distance = FeatureDistance(judge(run, data), x, test, count)
    pictures = generator.draw(count, seed=run.seed)
    fid = distance(pictures)
    chosen = torch.from_numpy(epoch_order(len(x), 0, seed=0)[:NEIGHBOURS].copy()).to(run.device)
    known = _features(distance, x[chosen])
    classes = nearest_class(_features(distance, pictures), known, y[chosen])
    shares = torch.bincount(classes, minlength=len(data.classes)).double() / count
    return {
        "fid_ratio": fid / distance.real,
        "fid": fid,
        "fid_real": distance.real,
        "least_class": 100 * shares.min().item(),
        "class_perplexity": perplexity(classes, len(data.classes)),
    }


def _features(distance: FeatureDistance, pictures: Tensor) -> Tensor:
    return torch.from_numpy(distance.standardised(distance.features(pictures))).float()


def nearest_class(features: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """The label of the nearest of the known features (M, D) for each row of (N, D): (N,).

    Not the classifier's own output: at size smoke, where the classifier is untrained, its features
    still tell classes apart, and its output does not.
    """
    return labels.cpu()[torch.cdist(features, known).argmin(dim=1)]


def vae_metrics(model: VAE, pictures: Tensor, samples: int) -> dict[str, float]:
    """Bounds in nats per picture of uint8 (N, C, H, W), binarised or dequantised from a fixed seed,
    and the latents in use. `samples` are those of the importance-weighted bound.

    `gap` is how much tighter that bound is than the ELBO on the same pictures.
    """
    x = model.observe(pictures, torch.Generator().manual_seed(0))
    with evaluating(model):
        elbo = torch.cat([log_weights(model, part, 1)[0] for part in x.split(500)])
        parts = [model.encode(part) for part in x.split(500)]
        mean, log_variance = (torch.cat(both) for both in zip(*parts, strict=True))
        few = x[:BOUND_PICTURES].split(100)
        weights = torch.cat([log_weights(model, part, samples) for part in few], dim=1)
    kl = gaussian_kl(mean, log_variance)
    analytic = kl_term(kl).item()
    bound = importance_bound(weights).mean().item()
    return {
        "neg_elbo": -elbo.mean().item(),
        "kl": analytic,
        "reconstruction": -elbo.mean().item() - analytic,
        "importance_bound": -bound,
        "gap": bound - weights.mean().item(),
        "active_units": int((mean.var(dim=0) > ACTIVE).sum()),
    }


def pixel_error(model: Autoencoder, pictures: Tensor) -> float:
    """Root of the mean squared error of reconstructions, in grey levels from 0 to 255."""
    decoded = model.decode(model.encode(pictures))
    return F.mse_loss(decoded.float(), pictures.float()).sqrt().item()


def vq_metrics(model: VQVAE, pictures: Tensor) -> dict[str, float]:
    """Share of the codebook that pictures, uint8 (N, C, H, W), use, in %, and its perplexity."""
    indices = all_indices(model, pictures)
    codes = len(model.codebook)
    return {
        "codes_used": 100 * len(indices.unique()) / codes,
        "perplexity": perplexity(indices, codes),
    }


def all_indices(model: VQVAE, pictures: Tensor) -> Tensor:
    """The code of each place of pictures, uint8 (N, C, H, W): int64 (N, h, w)."""
    with evaluating(model):
        parts = pictures.split(500)
        return torch.cat([model.indices(model.latents(p.float() / 255)) for p in parts])
