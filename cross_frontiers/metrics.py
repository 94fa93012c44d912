"""How alike two pictures are: PSNR and SSIM, in the colours that a screen shows (sRGB)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise


@exercise(minutes=10)
def psnr(pictures: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture, in decibels: -10 log10(MSE).

    The mean squared error is over all pixels and channels of one picture; numbers are in [0, 1], so
    the peak is 1. The error is bounded below by 1e-10: equal pictures have 100 dB.

    Args:
        pictures, truth: (N, C, H, W), of any float type; computed in float64.
    Returns:
        float64 (N,). The field reports the mean of these, not the PSNR of the mean error.
    Raises:
        ValueError when the shapes differ.
    Source: Mildenhall et al. 2020, section 6.
    """
    if pictures.shape != truth.shape:
        raise ValueError(f"pictures {tuple(pictures.shape)}, truth {tuple(truth.shape)}")
    error = (pictures.double() - truth.double()).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp(min=1e-10).log10()


@exercise(minutes=30)
def ssim(pictures: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each picture with the true one.

    Means, variances and the covariance are taken in windows: a Gaussian of deviation 1.5 over
    11 x 11 pixels, of sum 1, at every place where the window lies inside the picture, in each
    channel by itself. Variances are the window's E[x^2] - E[x]^2, without any n - 1. Then

        (2 m_x m_y + c1) (2 cov + c2) / ((m_x^2 + m_y^2 + c1) (var_x + var_y + c2))

    with c1 = 0.01^2 and c2 = 0.03^2, averaged over places and channels.

    Args:
        pictures, truth: (N, C, H, W) in [0, 1], of any float type; computed in float64.
    Returns:
        float64 (N,); equal pictures have 1.
    Raises:
        ValueError when the shapes differ or a side is shorter than the window.
    Source: Wang et al. 2004, eq. 13 to 16.
    """
    if pictures.shape != truth.shape or min(pictures.shape[2:]) < 11:
        raise ValueError(
            f"pictures {tuple(pictures.shape)}, truth {tuple(truth.shape)}: equal shapes of 11 "
            "pixels or more are needed"
        )
    x, y = pictures.double(), truth.double()
    place = torch.arange(11, dtype=torch.float64, device=x.device) - 5
    line = torch.exp(-place.square() / (2 * 1.5**2))
    line = line / line.sum()
    window = torch.outer(line, line)[None, None]

    def blur(a: Tensor) -> Tensor:
        return F.conv2d(a.flatten(0, 1)[:, None], window).unflatten(0, a.shape[:2]).squeeze(2)

    m_x, m_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - m_x * m_x, blur(y * y) - m_y * m_y
    cov = blur(x * y) - m_x * m_y
    c1, c2 = 0.01**2, 0.03**2
    above = (2 * m_x * m_y + c1) * (2 * cov + c2)
    below = (m_x.square() + m_y.square() + c1) * (var_x + var_y + c2)
    return (above / below).mean(dim=(1, 2, 3))
