"""Volume rendering by quadrature (Max 1995; Mildenhall et al. 2020, section 4).

A ray's colour is the integral of what shines towards the camera, each place dimmed by what lies
before it. Letters: R rays, S samples of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labkit import exercise


@exercise(minutes=10)
def sample_widths(t: Tensor, far: Tensor) -> Tensor:
    """The length of ray that each sample stands for: up to the next sample, and for the last one up
    to the far end.

    Args:
        t: distances (R, S), rising along each ray; S may be 1.
        far: (R,), the far end of each ray, not before its last sample.
    Returns:
        (R, S): t[i + 1] - t[i], and far - t[S - 1] for the last.
    Source: Mildenhall et al. 2020, below eq. 3. Code of that paper has 1e10 for the last width, so
    that whatever is there is opaque. Here space ends at `far`.
    """
    return torch.diff(t, dim=1, append=far[:, None])


@exercise(minutes=25)
def ray_weights(sigma: Tensor, widths: Tensor) -> Tensor:
    """How much each sample contributes to the colour of its ray.

        alpha_i = 1 - exp(-sigma_i width_i)                 what sample i hides
        T_i     = product over j < i of (1 - alpha_j)       what reaches sample i (T_0 = 1)
        w_i     = T_i alpha_i

    T_i counts what lies before sample i, not sample i itself. Compute T_i as the exponential of a
    sum of sigma_j width_j: where nothing passes, a product of factors 1 - alpha_j that are 0 has no
    useful gradient. For the same reason as in other weeks alpha of a very small density must not
    round to 0: `torch.expm1`.

    Args:
        sigma: density (R, S), 0 or more, per unit of length.
        widths: (R, S), the length that each sample stands for. Both stay as they are.
    Returns:
        Weights (R, S), each in [0, 1]; their sum over a ray is its opacity, 1 - exp(-sum sigma
        width).
    Source: Mildenhall et al. 2020, eq. 3; Max 1995.
    """
    hidden = sigma * widths
    before = hidden.cumsum(dim=1) - hidden
    return torch.exp(-before) * -torch.expm1(-hidden)


@exercise(minutes=10)
def composite(weights: Tensor, colours: Tensor, background: float | Tensor) -> Tensor:
    """The colour of each ray: the weighted sum of its samples, over the background.

        C = sum_i w_i c_i + (1 - sum_i w_i) background

    Args:
        weights: (R, S).
        colours: (R, S, 3).
        background: grey level behind all rays, 1 for white, or the colour behind each, (R, 3).
    Returns:
        (R, 3).
    Source: Mildenhall et al. 2020, eq. 3, and its code's `white_bkgd`.
    """
    opacity = weights.sum(dim=1, keepdim=True)
    return (weights[..., None] * colours).sum(dim=1) + (1 - opacity) * background


def expected_depth(weights: Tensor, t: Tensor, far: Tensor) -> Tensor:
    """Mean distance (R,) at which the rays end; what passes through ends at far (R,)."""
    opacity = weights.sum(dim=1)
    return (weights * t).sum(dim=1) + (1 - opacity) * far


def on_background(pictures: Tensor, background: float | Tensor) -> Tensor:
    """RGBA pictures (N, 4, H, W) or pixels (N, 4), in [0, 1], laid on a background: (N, 3, H, W) or
    (N, 3).

    Args:
        background: a grey level, or colours that broadcast to the result.
    """
    colour, alpha = pictures[:, :3], pictures[:, 3:]
    return colour * alpha + (1 - alpha) * background
