"""PSNR and SSIM against their published formulas, by scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from cross_frontiers import metrics


def pair(
    count: int = 2, channels: int = 3, height: int = 13, width: int = 17
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    truth = torch.rand(count, channels, height, width, generator=generator).double()
    noise = torch.rand(truth.shape, generator=generator).double() - 0.3
    return (truth + 0.2 * noise * torch.arange(1, count + 1).view(-1, 1, 1, 1)).clamp(0, 1), truth


@pytest.mark.exercise("metrics.psnr")
def test_psnr_of_each_picture() -> None:
    pictures, truth = pair()
    found = metrics.psnr(pictures, truth)
    assert found.shape == (2,)
    assert found.dtype == torch.float64
    for i in range(2):
        error = np.mean((pictures[i].numpy() - truth[i].numpy()) ** 2)
        assert found[i].item() == pytest.approx(10 * math.log10(1 / error))
    assert metrics.psnr(truth, truth).tolist() == [100, 100]
    assert metrics.psnr(pictures[:1].bfloat16(), truth[:1].bfloat16()).dtype == torch.float64


@pytest.mark.exercise("metrics.psnr")
def test_psnr_is_computed_in_float64() -> None:
    truth = torch.zeros(1, 1, 4, 4)
    off = torch.full_like(truth, 1e-4, dtype=torch.float16)
    assert metrics.psnr(off, truth.half()).item() == pytest.approx(80, abs=0.01)


@pytest.mark.exercise("metrics.psnr")
def test_psnr_has_a_gradient() -> None:
    one, other = (torch.rand(1, 1, 2, 3).double().requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(metrics.psnr, (one, other))


@pytest.mark.exercise("metrics.ssim")
def test_ssim_has_a_gradient_and_a_device() -> None:
    one, other = (torch.rand(1, 1, 11, 11).double().requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(metrics.ssim, (one, other), fast_mode=True)
    assert metrics.ssim(*(torch.rand(1, 1, 11, 12, device="meta"),) * 2).device.type == "meta"


@pytest.mark.exercise("metrics.psnr")
def test_psnr_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r".+"):
        metrics.psnr(torch.rand(2, 3, 4, 4), torch.rand(1, 3, 4, 4))


@pytest.mark.exercise("metrics.ssim")
def test_ssim_by_scipy() -> None:
    pictures, truth = pair()
    kept = pictures.clone(), truth.clone()
    found = metrics.ssim(pictures, truth)
    assert torch.equal(pictures, kept[0])
    assert torch.equal(truth, kept[1])
    assert found.shape == (2,)

    def blur(a: np.ndarray) -> np.ndarray:  # radius 5: 11 pixels
        return ndimage.gaussian_filter(a, 1.5, radius=5)[5:-5, 5:-5]

    for i in range(2):
        values = []
        for c in range(3):
            x, y = pictures[i, c].numpy(), truth[i, c].numpy()
            m_x, m_y = blur(x), blur(y)
            v_x, v_y, cov = blur(x * x) - m_x**2, blur(y * y) - m_y**2, blur(x * y) - m_x * m_y
            values.append(
                (2 * m_x * m_y + 1e-4) * (2 * cov + 9e-4)
                / ((m_x**2 + m_y**2 + 1e-4) * (v_x + v_y + 9e-4))
            )  # fmt: skip
        assert found[i].item() == pytest.approx(np.mean(values), rel=1e-10)


@pytest.mark.exercise("metrics.ssim")
def test_ssim_of_equal_flat_and_small_pictures() -> None:
    _, truth = pair(1, 1, 11, 11)
    assert metrics.ssim(truth, truth).tolist() == [pytest.approx(1)]
    assert metrics.ssim(truth.float(), truth.float()).dtype == torch.float64
    grey, white = torch.full((1, 2, 12, 11), 0.5), torch.ones(1, 2, 12, 11)
    wanted = (2 * 0.5 + 1e-4) / (0.25 + 1 + 1e-4)
    assert metrics.ssim(grey, white).item() == pytest.approx(wanted, rel=1e-6)
    for shape, other in (((1, 3, 10, 20), (1, 3, 10, 20)), ((1, 3, 20, 10), (1, 3, 20, 10)),
                         ((1, 3, 12, 12), (2, 3, 12, 12))):  # fmt: skip
        with pytest.raises(ValueError, match=r".+"):
            metrics.ssim(torch.rand(shape), torch.rand(other))
