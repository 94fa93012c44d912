"""The contrastive loss NT-Xent, and two measures of its effect on the representation.

Letters: N pairs of views, d dimensions of a projection.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise


@exercise(minutes=25)
def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy (Chen et al. 2020, equation 1).

    z1[i] and z2[i] are projections of two views of image i. Each of the 2 N views in turn is the
    anchor; the task is to find, among the 2 N - 1 others, the other view of the same image:
        l(i, j) = -log( exp(s_ij / t) / sum over k != i of exp(s_ik / t) ),
    s the cosine similarity, t the temperature, j the partner of i. The loss is the mean over all
    2 N anchors. An anchor is not a candidate for itself, or it would always win.

    Args:
        z1, z2: float (N, d), N >= 2, not yet of unit length.
        temperature: t > 0.
    Returns:
        0-d tensor of the same dtype, on the same device; both views get their gradients.
    """
    n = len(z1)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similarity = z @ z.T / temperature  # (2 N, 2 N)
    similarity = similarity.masked_fill(itself(z), -torch.inf)
    partner = torch.arange(2 * n, device=z.device).roll(n)  # i + N, modulo 2 N
    return F.cross_entropy(similarity, partner)


def itself(views: Tensor) -> Tensor:
    """Which of all similarities are those of a view with itself: (2 N, d) -> bool (2 N, 2 N)."""
    return torch.eye(len(views), dtype=torch.bool, device=views.device)


def partners_found(z1: Tensor, z2: Tensor) -> Tensor:
    """Share in % of the 2 N anchors whose most similar candidate is their partner, 0-d."""
    n = len(z1)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similarity = (z @ z.T).masked_fill(itself(z), -torch.inf)
    partner = torch.arange(2 * n, device=z.device).roll(n)
    return 100 * (similarity.argmax(dim=1) == partner).float().mean()


@exercise(minutes=10)
def alignment(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean squared distance of the two views of an image (Wang & Isola 2020, section 4, alpha 2).

    Both are brought to unit length first, so that it is 0 for equal views and 2 for unrelated ones.
    It is used as a loss too: both views get their gradients.

    Args:
        z1, z2: float (N, d).
    Returns:
        0-d tensor.
    """
    return (F.normalize(z1, dim=1) - F.normalize(z2, dim=1)).square().sum(dim=1).mean()


@exercise(minutes=15)
def uniformity(z: Tensor, t: float = 2.0) -> Tensor:
    """How evenly projections cover the sphere (Wang & Isola 2020, section 4), lower is more even.

    The logarithm of the mean, over all pairs i < j, of exp(-t |z_i - z_j|^2), with rows scaled to
    unit length. It is 0 when all are equal (collapse), and then its gradient is 0 too. It is finite
    for any t: where every exponential underflows, the greatest is factored out first.

    Args:
        z: float (N, d), N >= 2.
    Returns:
        0-d tensor.
    """
    distance = torch.pdist(F.normalize(z, dim=1)).square()  # (N (N - 1) / 2,)
    return distance.mul(-t).logsumexp(dim=0) - math.log(len(distance))
