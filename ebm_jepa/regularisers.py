"""What keeps a joint embedding from collapsing without a teacher: VICReg and SIGReg.

A predictor and its target can agree perfectly by being constant. Both regularisers look at the
embeddings of a batch and ask for what a constant cannot have: variance in every direction.

VICReg (Bardes, Ponce, LeCun 2022, section 4.1): each dimension keeps a deviation of 1 or more, and
no two dimensions tell the same. SIGReg (Balestriero & LeCun 2025, LeJEPA, section 4): along random
directions the embeddings look like a standard Gaussian, by a test of their characteristic
function.

Letters: N embeddings, d dimensions, S slices (directions).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise


@exercise(minutes=15)
def variance_loss(z: Tensor, gamma: float = 1.0, eps: float = 1e-4) -> Tensor:
    """VICReg's variance term (equations 1 and 2): mean over dimensions of
    max(0, gamma - sqrt(Var + eps)).

    Var is the variance of one dimension *over the batch*, divided by N - 1. A dimension that is
    wider than gamma costs nothing. eps is inside the root: the slope of a root is infinite at 0,
    exactly where a collapsed dimension is.

    Args:
        z: float (N, d), N >= 2.
    Returns:
        0-d tensor with a finite gradient in z, also when all rows are alike.
    """
    deviation = (z.var(dim=0) + eps).sqrt()
    return F.relu(gamma - deviation).mean()


@exercise(minutes=15)
def covariance_loss(z: Tensor) -> Tensor:
    """VICReg's covariance term (equations 3 and 4): the squares of all entries of the covariance
    matrix off its diagonal, summed and divided by d.

    The covariance is that of the columns over the batch, divided by N - 1.

    Args:
        z: float (N, d), N >= 2.
    Returns:
        0-d tensor, differentiable in z.
    """
    n, d = z.shape
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (n - 1)
    off_diagonal = covariance - covariance.diagonal().diag()
    return off_diagonal.square().sum() / d


@exercise(minutes=25)
def epps_pulley(x: Tensor, reach: float = 5.0, knots: int = 17) -> Tensor:
    """How far each column is from a sample of N(0, 1) (Epps & Pulley 1983), 0 or more.

    The characteristic function of N(0, 1) is e^(-t^2 / 2); that of the sample is the mean of
    e^(i t x_n), a complex number. The statistic is the weighted squared distance of the two,

        N * integral of |mean_n e^(i t x_n) - e^(-t^2 / 2)|^2 e^(-t^2 / 2) dt,

    by the trapezoid rule with `knots` evenly spaced points from -reach to reach, both included. For
    a sample of N(0, 1) its expectation does not depend on N.

    Args:
        x: float (N, S): S samples of N numbers, a column each.
        reach: > 0.
        knots: 2 or more.
    Returns:
        (S,), in the dtype and on the device of x, differentiable in x.
    """
    t = torch.linspace(-reach, reach, knots, dtype=x.dtype, device=x.device)
    normal = (-t.square() / 2).exp()
    angle = x[:, :, None] * t  # (N, S, knots)
    distance = (angle.cos().mean(dim=0) - normal).square() + angle.sin().mean(dim=0).square()
    return len(x) * torch.trapezoid(distance * normal, t, dim=1)


def directions(d: int, slices: int, device: torch.device | str = "cpu") -> Tensor:
    """Random unit vectors (d, S), evenly over the sphere, fresh from the global generator."""
    return F.normalize(torch.randn(d, slices, device=device), dim=0)


def sigreg(z: Tensor, along: Tensor) -> Tensor:
    """SIGReg: the mean of `epps_pulley` over projections of z (N, d) onto `along` (d, S), over N.

    A distribution is an isotropic Gaussian exactly when all its projections are (Cramer & Wold
    1936); a few hundred new directions in each step come close to all of them. Divided by N, the
    loss is the distance itself, whatever the batch size. 0-d.
    """
    return epps_pulley(z @ along).mean() / len(z)


def vicreg(z: Tensor, covariance: float) -> Tensor:
    """VICReg's two terms against collapse, the second with a weight of its own. 0-d."""
    return variance_loss(z) + covariance * covariance_loss(z)


@exercise(minutes=15)
def effective_rank(z: Tensor, eps: float = 1e-7) -> Tensor:
    """RankMe: how many dimensions a batch of embeddings really fills (Garrido et al. 2023, section
    3), a number from 1 to min(N, d).

    With singular values s_k of z, not centred, and p_k = s_k / sum of s + eps: the exponential of
    the entropy, exp(-sum of p_k log p_k). One direction gives 1 and equal singular values their
    number. It is a measure, not a loss: computed in float32 (float64 stays), without a gradient.

    Args:
        z: float (N, d); of all zeros the rank is 1, to rounding.
    Returns:
        0-d tensor.
    """
    wide = z.detach() if z.dtype == torch.float64 else z.detach().float()
    values = torch.linalg.svdvals(wide)
    p = values / values.sum().clamp(min=torch.finfo(wide.dtype).tiny) + eps
    return (-(p * p.log()).sum()).exp()


def gaussian_floor(n: int) -> float:
    """Expected `sigreg` of N embeddings that are standard Gaussian, with the integral over all t.

    E|mean of e^(itx) - phi|^2 = (1 - phi^2) / N, weighted by e^(-t^2 / 2) and integrated.
    """
    return (math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)) / n
