"""Toy models of superposition: more features than dimensions (Elhage et al. 2022).

    h = W x        x' = ReLU(Wᵀ h + b)        L = mean over examples of Σ_i I_i (x_i - x'_i)²

n features are each present with probability p = 1 - S, then uniform in [0, 1]. The model keeps them
in m < n dimensions. What does it do with the features that do not fit? When they are dense it drops
the less important ones, as PCA would. When they are sparse it keeps more than m of them in
directions that are not orthogonal, and the ReLU cleans up the interference: superposition.

Many such models, with other importances and sparsities, are trained at once: the letter K counts
them, and every product is one einsum.

Letters: K instances, B batch, n features, m hidden dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labkit import exercise

PHASES = ("only the first", "only the second", "both, in superposition")
"""What a model with one dimension does with two features; the index is the phase's number."""


class ToyModels(nn.Module):
    """K toy models side by side: x (B, K, n) -> x' (B, K, n)."""

    def __init__(self, instances: int, features: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(instances, hidden, features) * features**-0.5)
        self.bias = nn.Parameter(torch.zeros(instances, features))

    def hidden(self, x: Tensor) -> Tensor:
        """(B, K, n) -> (B, K, m)."""
        return torch.einsum("bkn,kmn->bkm", x, self.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.hidden(x)
        return torch.relu(torch.einsum("bkm,kmn->bkn", h, self.weight) + self.bias)

    @torch.no_grad()
    def chosen(self, places: Tensor) -> ToyModels:
        """A copy with the instances at `places`, int64 (k,), alone."""
        instances, hidden, features = self.weight[places].shape
        copy = ToyModels(instances, features, hidden).to(self.weight)
        copy.weight.copy_(self.weight[places])
        copy.bias.copy_(self.bias[places])
        return copy


def check_sparsity(sparsity: Tensor) -> None:
    """Raises ValueError unless every sparsity is from 0 to below 1: at 1 no feature is present."""
    bad = sparsity[~((sparsity >= 0) & (sparsity < 1))]
    if len(bad):
        raise ValueError(f"sparsity must be from 0 to below 1, got {bad[0].item():g}")


def draw_features(
    count: int, features: int, sparsity: Tensor, generator: torch.Generator
) -> Tensor:
    """x (count, K, n): each feature 0 with probability S of its instance, else uniform in [0, 1].

    Args:
        sparsity: S, (K,), on the generator's device. Raises ValueError as `check_sparsity` does.
    """
    check_sparsity(sparsity)
    # One draw for both: where u >= S, (u - S) / (1 - S) is again uniform in [0, 1].
    size = (count, len(sparsity), features)
    u = torch.rand(size, generator=generator, device=sparsity.device)
    s = sparsity[:, None]
    return ((u - s) / (1 - s)).clamp_min_(0)


@exercise(minutes=10)
def toy_loss(out: Tensor, x: Tensor, importance: Tensor) -> Tensor:
    """The loss of each instance: squared errors weighted by importance.

        L = mean over the batch of Σ_i I_i (x_i - x'_i)²

    Args:
        out: x' (B, K, n).
        x: (B, K, n).
        importance: I, (K, n) or (n,).
    Returns:
        (K,), a sum over features and a mean over the batch; differentiable in `out`.
    """
    return (importance * (x - out).square()).sum(-1).mean(0)


@exercise(minutes=20)
def two_feature_losses(density: Tensor, importance: Tensor) -> Tensor:
    """Exact losses of the three things to do with two features in one dimension.

    The first feature has importance 1, the second has r; each is present with probability p, then
    uniform in [0, 1]. As in Elhage et al. 2022, "Superposition as a phase change":

        0  W = (1, 0), bias (0, E x)    the second is dropped: r Var(x)
        1  W = (0, 1), bias (E x, 0)    the first is dropped: Var(x)
        2  W = (1, -1), bias 0          an antipodal pair: exact unless both are present, and then
                                        both are wrong by the smaller one, min(x_1, x_2)

    Var(x) is of a feature with its zeros. E min(u, v)² = 1/6 for u and v uniform in [0, 1].

    Args:
        density: p, any shape.
        importance: r, broadcast with it.
    Returns:
        (3, ...), the losses in that order; a phase is the place of the lowest.
    """
    variance = density / 3 - density.square() / 4
    pair = density.square() * (1 + importance) / 6
    return torch.stack(torch.broadcast_tensors(importance * variance, variance, pair))


@torch.no_grad()
def expected_loss(
    models: ToyModels, density: Tensor, importance: Tensor, points: int = 48
) -> Tensor:
    """The loss of trained models of two features over all examples, not over a sample: (K,).

    The mean over the four cases of which features are present, and over the midpoints of a grid of
    their values: 0.1 % from the integral.

    Args:
        models: K instances with two features.
        density: p, (K,).
        importance: of the second feature, r, (K,).
    """
    middles = (torch.arange(points).to(density) + 0.5) / points
    x = torch.cartesian_prod(middles, middles)[:, None].expand(-1, len(density), -1)
    weights = torch.stack([torch.ones_like(importance), importance], dim=-1)
    total = torch.zeros_like(density)
    for first in (0, 1):
        for second in (0, 1):
            chance = (density if first else 1 - density) * (density if second else 1 - density)
            present = x * x.new_tensor([first, second])
            total += chance * toy_loss(models(present), present, weights)
    return total


def phase_of(weight: Tensor) -> Tensor:
    """The phase that a trained model with two features in one dimension is in, as in `PHASES`.

    A feature is represented when its weight is above one half.

    Args:
        weight: (K, 1, 2).
    Returns:
        int64 (K,); -1 for a model that represents neither.
    """
    first, second = (weight[:, 0].abs() > 0.5).unbind(-1)
    phase = torch.full_like(first, -1, dtype=torch.int64)
    phase[first & ~second] = 0
    phase[second & ~first] = 1
    phase[first & second] = 2
    return phase


@exercise(minutes=15)
def dimensionality(weight: Tensor) -> Tensor:
    """The share of a dimension that each feature has to itself (Elhage et al. 2022).

        D_i = ‖W_i‖² / Σ_j (Ŵ_i · W_j)²        Ŵ_i = W_i / ‖W_i‖, j over all features, i too

    1 for a feature with a direction of its own, 1/2 for each of an antipodal pair, 2/5 for each
    corner of a pentagon, 0 for a feature that is not represented.

    Args:
        weight: W (K, m, n), whose column i is W_i.
    Returns:
        (K, n). Finite, and 0 for a column that is 0.
    """
    products = weight.transpose(-2, -1) @ weight  # (K, n, n): W_i · W_j
    squared = products.diagonal(dim1=-2, dim2=-1)
    # ‖W_i‖² / (Σ_j (W_i · W_j)² / ‖W_i‖²)
    return squared.square() / products.square().sum(-1).clamp_min(1e-30)


def best_of(loss: Tensor, restarts: int) -> Tensor:
    """Index of the best of each group of `restarts` instances in a row: (K,) -> (K / restarts,)."""
    rows = loss.view(-1, restarts)
    return rows.argmin(1) + torch.arange(len(rows), device=loss.device) * restarts
