"""Encoders, head, decoder and LARS."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from representation_learning import LARS, Decoder, lars, model


def natural(n: int = 200) -> Tensor:
    """Smooth colour images: neighbouring pixels alike, as in photographs."""
    generator = torch.Generator().manual_seed(0)
    return F.interpolate(
        torch.rand(n, 3, 8, 8, generator=generator), size=32, mode="bicubic"
    ).clamp(0, 1)


def test_whitened_patches_are_uncorrelated_and_of_unit_variance() -> None:
    x = natural()
    weight = model.whitening(x, kernel=3, count=10, eps=0.0)
    assert weight.shape == (20, 3, 3, 3)
    torch.testing.assert_close(weight[10:], -weight[:10])
    out = F.conv2d(x.double(), weight[:10].double()).transpose(0, 1).flatten(1)  # (10, patches)
    torch.testing.assert_close(torch.cov(out), torch.eye(10).double(), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("name", "dim"), [("small", 32), ("resnet18", 512)])
def test_encoders_give_a_vector_for_every_image(name: str, dim: int) -> None:
    x = (natural(50) * 255).to(torch.uint8)
    encoder = model.make_encoder(name, 8, x)
    assert encoder.dim == dim
    h = encoder(x[:4].float() / 255)
    assert h.shape == (4, dim)
    head = model.projection_head(dim, 16, 5)
    assert head(h).shape == (4, 5)
    assert Decoder(dim, width=4)(h).shape == (4, 3, 32, 32)


def test_only_the_whitening_layer_of_the_small_encoder_is_fixed() -> None:
    encoder = model.Small(8)
    frozen = [name for name, p in encoder.named_parameters() if not p.requires_grad]
    assert frozen == ["whiten.weight"]


def test_the_resnet_keeps_small_images_large() -> None:
    """Stem without stride or pooling: the first stage sees 32 x 32 (appendix B.9)."""
    seen = []
    encoder = model.ResNet18()
    encoder.net.layer1.register_forward_hook(lambda *args: seen.append(args[2].shape))
    encoder(torch.rand(2, 3, 32, 32))
    assert seen[0] == (2, 64, 32, 32)
    assert sum(p.numel() for p in encoder.parameters()) == 11_168_832  # 11,689,512 - stem, - fc


def test_any_image_becomes_a_square_in_colour() -> None:
    grey = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    out = model.square(grey)
    assert out.shape == (2, 3, 32, 32)
    assert out.dtype == torch.uint8
    assert torch.equal(out[:, 0], out[:, 2])
    colour = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(model.square(colour), colour)


@pytest.mark.exercise("lars.trust_ratio")
def test_trust_ratio_by_hand() -> None:
    w, u = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    assert lars.trust_ratio(w, u, 0.1).item() == pytest.approx(0.1 * 5 / 2)
    assert lars.trust_ratio(7 * w, u, 0.1).item() == pytest.approx(0.7 * 5 / 2)


@pytest.mark.exercise("lars.trust_ratio")
@pytest.mark.parametrize("zero", ["weight", "update"])
def test_trust_ratio_is_1_where_a_norm_is_0(zero: str) -> None:
    one, nothing = torch.ones(2, 2), torch.zeros(2, 2)
    pair = (nothing, one) if zero == "weight" else (one, nothing)
    assert lars.trust_ratio(*pair, 0.1).item() == 1
    assert lars.trust_ratio(nothing, nothing, 0.1).item() == 1


@pytest.mark.exercise("lars.trust_ratio")
@pytest.mark.parametrize("shape", [(3,), (1, 1), (2, 3, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_trust_ratio_of_any_layer_whatever_its_size(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Norms below 1 and above, down to 1e-6: only 0 is 0."""
    generator = torch.Generator().manual_seed(0)
    w, u = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    for a, b in ((1, 1), (1e-6, 1), (1, 1e-6), (1e-3, 1e-3), (1e3, 1e-1)):
        pair = (a * w).to(dtype), (b * u).to(dtype)
        before = [x.clone() for x in pair]
        ratio = lars.trust_ratio(*pair, 0.02)
        assert (ratio.shape, ratio.dtype) == ((), dtype)
        norms = [math.hypot(*x.flatten().tolist()) for x in pair]
        rel = 0.02 if dtype == torch.bfloat16 else 1e-5
        assert ratio.item() == pytest.approx(0.02 * norms[0] / norms[1], rel=rel)
        assert all(map(torch.equal, pair, before)), "the arguments are left alone"


def test_two_lars_steps_by_hand() -> None:
    w = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimizer = LARS([w], lr=0.5, momentum=0.9, weight_decay=0.1, trust=0.01)
    expected, velocity = w.detach().clone(), torch.zeros(1, 2)
    for gradient in (torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 2.0]])):
        w.grad = gradient.clone()
        optimizer.step()
        update = gradient + 0.1 * expected
        local = 0.01 * expected.norm() / update.norm()
        velocity = 0.9 * velocity + 0.5 * local * update
        expected = expected - velocity
        torch.testing.assert_close(w.detach(), expected)


def test_lars_leaves_biases_to_plain_momentum() -> None:
    """One-dimensional parameters: torch's SGD without decay, to the bit of the formula."""
    ours, theirs = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    optimizers = (LARS([ours], lr=0.1, weight_decay=1.0), torch.optim.SGD([theirs], 0.1, 0.9))
    for step in range(4):
        for w, optimizer in zip((ours, theirs), optimizers, strict=True):
            w.grad = torch.full((5,), float(step + 1))
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_lars_refuses_a_rate_that_is_not_positive() -> None:
    with pytest.raises(ValueError, match=r"lr and trust must be > 0, got lr=0"):
        LARS([nn.Parameter(torch.ones(1))], lr=0)
