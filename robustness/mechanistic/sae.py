"""Sparse autoencoders: the features of an activation, as a sum of few directions.

    f = ReLU((x - b_d) W_e + b_e)        x̂ = f W_d + b_d        L = ‖x - x̂‖² + λ Σ_j f_j

A model in superposition has more features than dimensions, so no basis of its activations can be
its features. A dictionary with more directions than dimensions, of which few are used at a time,
can (Bricken et al. 2023, "Towards Monosemanticity"; Cunningham et al. 2023). Instead of the L1
penalty, `topk` keeps the k largest of f (Gao et al. 2024, "Scaling and Evaluating Sparse
Autoencoders", section 2.3).

The rows of W_d have norm 1. Without that, half of f with twice of W_d is the same x̂ at half of the
penalty, so the penalty falls to 0 and nothing gets sparse.

Letters: N examples, C dimensions of an activation, L latents, F true features.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import exercise

Kind = Literal["l1", "topk"]


@exercise(minutes=10)
def normalise_decoder(decoder: Tensor) -> Tensor:
    """The directions of a dictionary with norm 1: decoder (L, C), one direction a row -> (L, C).

    A row of zeros stays 0.
    """
    return decoder / decoder.norm(dim=1, keepdim=True).clamp_min(1e-12)


@exercise(minutes=15)
def project_gradient(decoder: Tensor, gradient: Tensor) -> Tensor:
    """The gradient without what would only change the norms of the directions.

    From each row g of the gradient its part along the direction d is taken away, g - (g · d̂) d̂
    with d̂ = d / ‖d‖. Otherwise Adam's moments fill with steps that normalising then undoes
    (Bricken et al. 2023, appendix).

    Args:
        decoder: (L, C), one direction d a row, of any norm but 0.
        gradient: (L, C).
    Returns:
        (L, C), each row orthogonal to the decoder's.
    """
    direction = decoder / decoder.norm(dim=1, keepdim=True)
    return gradient - (gradient * direction).sum(1, keepdim=True) * direction


@exercise(minutes=10)
def count_idle(idle: Tensor, features: Tensor) -> Tensor:
    """For how many examples each latent has been silent.

    A latent is dead when it was silent over a long window, thousands of examples. Most latents of a
    sparse code are silent in any one batch, so the count must go on from batch to batch.

    Args:
        idle: int64 (L,), the counts before this batch.
        features: f (N, L), none negative.
    Returns:
        int64 (L,): 0 for a latent that is above 0 anywhere in the batch, else its count plus N.
    """
    return torch.where((features > 0).any(0), 0, idle + len(features))


def mean_max_cosine(truth: Tensor, dictionary: Tensor) -> Tensor:
    """How well a dictionary has found the true features: from -1 to 1 (Sharkey et al. 2022).

    For each *true* feature the largest cosine similarity with any direction of the dictionary, then
    the mean over the true features. (The mean over the dictionary would reward one that has found a
    single feature many times.) A direction of the wrong sign does not count as found.

    Args:
        truth: (F, C), one feature a row, of any norm but 0.
        dictionary: (L, C), one direction a row, of any norm but 0.
    Returns:
        a scalar.
    """
    return largest_cosines(truth, dictionary).mean()


def largest_cosines(truth: Tensor, dictionary: Tensor) -> Tensor:
    """The largest cosine similarity of each true feature: (F, C), (L, C) -> (F,)."""
    unit = [each / each.norm(dim=1, keepdim=True) for each in (truth, dictionary)]
    return (unit[0] @ unit[1].T).amax(1)


class SparseAutoencoder(nn.Module):
    """Activations (N, C) to latents (N, L) and back."""

    idle: Tensor

    def __init__(self, width: int, latents: int, kind: Kind = "l1", k: int = 8) -> None:
        """Args:
            k: latents above 0 of an example at most, with kind topk.
        Raises:
            ValueError when topk has fewer latents than k, or k is below 1.
        """
        super().__init__()
        if kind == "topk" and not 1 <= k <= latents:
            raise ValueError(f"k={k} must be from 1 to the {latents} latents")
        self.kind, self.k = kind, k
        directions = F.normalize(torch.randn(latents, width), dim=1)
        self.decoder = nn.Parameter(directions)
        # Σ_j ReLU(x · d_j) d_j is about L / 2C x over random directions: begin with x̂ ≈ x.
        self.encoder = nn.Parameter(2 * width / latents * directions.T)
        self.encoder_bias = nn.Parameter(torch.zeros(latents))
        self.decoder_bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("idle", torch.zeros(latents, dtype=torch.int64))

    def encode(self, x: Tensor) -> Tensor:
        """(N, C) -> f (N, L), none negative."""
        f = torch.relu((x - self.decoder_bias) @ self.encoder + self.encoder_bias)
        if self.kind == "topk":
            value, place = f.topk(self.k, dim=1)
            f = torch.zeros_like(f).scatter(1, place, value)
        return f

    def decode(self, f: Tensor) -> Tensor:
        """(N, L) -> (N, C)."""
        return f @ self.decoder + self.decoder_bias

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def losses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error and Σ_j f_j, means over the examples. Counts idle latents in training."""
        f = self.encode(x)
        if self.training:
            self.idle.copy_(count_idle(self.idle, f.detach()))
        return (x - self.decode(f)).square().sum(1).mean(), f.sum(1).mean()

    @torch.no_grad()
    def project(self) -> None:
        """Before the optimiser's step: see `project_gradient`."""
        if self.decoder.grad is not None:
            self.decoder.grad.copy_(project_gradient(self.decoder, self.decoder.grad))

    @torch.no_grad()
    def hold_norm(self) -> None:
        """After the optimiser's step: see `normalise_decoder`."""
        self.decoder.copy_(normalise_decoder(self.decoder))


@torch.no_grad()
def resample(
    sae: SparseAutoencoder,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    window: int,
    generator: torch.Generator,
) -> int:
    """Give latents that were silent for `window` examples a new start (Bricken et al. 2023).

    Each gets the direction of an example that is reconstructed badly (drawn with probability in
    proportion to its squared loss), an encoder of a fifth of the living ones' mean norm, bias 0,
    and fresh moments in the optimiser.

    Args:
        x: (N, C), examples to draw from.
    Returns:
        how many latents there were; `sae` and `optimizer` are changed.
    """
    dead = (sae.idle >= window).nonzero().squeeze(1)
    loss = (x - sae(x)).square().sum(1)
    if not len(dead) or not bool((loss > 0).any()):
        return 0
    drawn = torch.multinomial(loss.square(), len(dead), replacement=True, generator=generator)
    direction = F.normalize(x[drawn] - sae.decoder_bias, dim=1)
    alive = sae.idle < window
    size = sae.encoder[:, alive].norm(dim=0).mean() if bool(alive.any()) else torch.ones(())
    sae.decoder[dead] = direction
    sae.encoder[:, dead] = 0.2 * size.to(direction) * direction.T
    sae.encoder_bias[dead] = 0
    for parameter, place in (
        (sae.decoder, (dead,)), (sae.encoder, (slice(None), dead)), (sae.encoder_bias, (dead,)),
    ):  # fmt: skip
        for name in ("exp_avg", "exp_avg_sq"):
            if name in optimizer.state.get(parameter, {}):
                optimizer.state[parameter][name][place] = 0
    sae.idle[dead] = 0
    return len(dead)


def explained_variance(x: Tensor, reconstructed: Tensor) -> Tensor:
    """1 - Σ ‖x - x̂‖² / Σ ‖x - mean‖², over all examples (N, C): 1 is perfect, 0 is the mean."""
    rest = (x - reconstructed).square().sum()
    return 1 - rest / (x - x.mean(0)).square().sum()
