"""Where on a ray the scene is looked up: stratified, then where something was found.

Letters: R rays, S samples, B bins of a histogram, N new samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labkit import exercise


@exercise(minutes=15)
def stratified(near: Tensor, far: Tensor, jitter: Tensor) -> Tensor:
    """One distance in each of S equal parts of every ray, from near to the far end.

        t_i = near + (i + u_i) (far - near) / S,   i = 0 ... S - 1

    Args:
        near, far: (R,), the ends of each ray.
        jitter: u, (R, S), in [0, 1): where in its part each sample lies; 0.5 is the middle. Left as
            it is.
    Returns:
        Distances (R, S), rising along each ray.
    Source: Mildenhall et al. 2020, eq. 2.
    """
    samples = jitter.shape[1]
    parts = torch.arange(samples, dtype=near.dtype, device=near.device)
    return near[:, None] + (parts + jitter) / samples * (far - near)[:, None]


@exercise(minutes=30)
def inverse_cdf(edges: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Draws from a histogram on each ray, by the inverse of its distribution function.

    Bin b goes from edges[b] to edges[b + 1] and has the probability

        p_b = (weights[b] + 1e-5) / sum over all bins of (weights + 1e-5)

    The small number keeps a ray whose weights are all 0 from dividing by 0: it draws evenly from
    the bins. Inside a bin the density is constant. So the distribution function F is 0 at the
    first edge, rises in straight lines from edge to edge and is 1 at the last edge. A draw is the
    place where F equals u: u = 0 gives the first edge and u = 1 the last.

    Args:
        edges: (R, B + 1), rising.
        weights: (R, B), not negative, of any sum. No gradient flows through the draws, and the
            weights stay as they are.
        u: (R, N), in [0, 1], in any order.
    Returns:
        Distances (R, N), each at the place of its u.
    Source: Mildenhall et al. 2020, section 5.2.
    """
    padded = weights.detach() + 1e-5
    share = padded / padded.sum(dim=-1, keepdim=True)
    cdf = torch.cat((torch.zeros_like(share[:, :1]), share.cumsum(dim=-1)), dim=-1)  # (R, B + 1)
    bins = torch.searchsorted(cdf, u, right=True) - 1
    bins = bins.clamp(max=weights.shape[1] - 1)
    inside = (u - cdf.gather(1, bins)) / share.gather(1, bins)
    low, high = edges.gather(1, bins), edges.gather(1, bins + 1)
    return low + inside * (high - low)
