"""The U-Net: shapes, what its output depends on, and a picture's independence of its neighbours."""

import math

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from diffusion import model


@pytest.mark.exercise("model.time_embedding")
def test_time_embedding_is_that_of_diffusers() -> None:
    t = torch.tensor([0.0, 0.001, 0.5, 0.999])
    expected = get_timestep_embedding(1000 * t, 32, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(model.time_embedding(t, 32), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.exercise("model.time_embedding")
def test_time_zero_is_all_ones_then_all_zeros() -> None:
    e = model.time_embedding(torch.zeros(1), 8)[0]
    torch.testing.assert_close(e, torch.tensor([1.0] * 4 + [0.0] * 4))


@pytest.mark.exercise("model.time_embedding")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [2, 6])
def test_time_embedding_by_a_loop_in_float32_whatever_the_type_of_t(
    dtype: torch.dtype, width: int
) -> None:
    t = torch.tensor([0.3, 0.0, 1.0], dtype=dtype)
    kept = t.clone()
    found = model.time_embedding(t, width)
    assert found.dtype == torch.float32
    half = width // 2
    for row, time in zip(found.tolist(), t.double().tolist(), strict=True):
        angles = [1000 * time * 10_000 ** (-j / half) for j in range(half)]
        waves = [*map(math.cos, angles), *map(math.sin, angles)]
        assert row == pytest.approx(waves, abs=2e-4)
    assert torch.equal(t, kept)


@pytest.mark.exercise("model.time_embedding")
def test_time_embedding_changes_with_time_at_its_frequencies() -> None:
    """d sin(1000 t f) / dt = 1000 f cos(1000 t f), and the cosine's with the other sign."""
    t = torch.tensor([0.2, 0.9], requires_grad=True)
    (found,) = torch.autograd.grad(model.time_embedding(t, 4).sum(), t)
    for slope, time in zip(found.tolist(), t.tolist(), strict=True):
        rates = [1000.0, 10.0]
        expected = sum(f * (math.cos(time * f) - math.sin(time * f)) for f in rates)
        assert slope == pytest.approx(expected, rel=1e-3)


@pytest.mark.exercise("model.time_embedding")
def test_time_embedding_of_one_time_on_its_own_device() -> None:
    found = model.time_embedding(torch.zeros(1, device="meta"), 8)
    assert (found.device.type, found.shape) == ("meta", (1, 8))


def network(**options: object) -> model.UNet:
    """A small U-Net whose zero layers were given weights, so that everything has an effect."""
    torch.manual_seed(0)
    unet = model.UNet(width=8, blocks=1, **options)  # type: ignore[arg-type]
    for module in unet.modules():
        if isinstance(module, model.Conv) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.05)
    return unet.eval()


def inputs(n: int = 4, channels: int = 1, side: int = 28) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, channels, side, side), torch.rand(n), torch.arange(n)


@pytest.mark.parametrize(
    ("channels", "side", "options"),
    [
        (1, 28, {}),
        (1, 8, {}),
        (3, 32, {"multipliers": (1, 1, 2, 2)}),
        (1, 28, {"multipliers": (1, 2)}),
    ],
)
def test_output_has_the_shape_of_the_input(channels: int, side: int, options: dict) -> None:
    unet = network(channels=channels, **options)
    x, t, y = inputs(3, channels, side)
    assert unet(x, t, y).shape == x.shape


def test_a_new_network_answers_zero() -> None:
    x, t, y = inputs()
    assert not model.UNet(width=8, blocks=1)(x, t, y).any()


def test_time_label_and_no_label_change_the_output() -> None:
    unet = network()
    x, t, y = inputs()
    with torch.no_grad():
        base = unet(x, t, y)
        null = torch.full_like(y, unet.null)
        for other in (unet(x, t.flip(0), y), unet(x, t, y + 1), unet(x, t, null)):
            assert ((other - base).abs().amax(dim=(1, 2, 3)) > 1e-4).all()


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    unet = network()
    x, t, y = inputs()
    with torch.no_grad():
        together, alone = unet(x, t, y), unet(x[2:3], t[2:3], y[2:3])
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)


def test_every_pixel_can_reach_every_other() -> None:
    """Attention at the lowest level makes the network's view the whole picture."""
    unet = network()
    x, t, y = inputs(1)
    moved = x.clone()
    moved[0, 0, 0, 0] += 1
    with torch.no_grad():
        change = (unet(moved, t, y) - unet(x, t, y)).abs()[0, 0]
    assert change[-1, -1] > 0


def test_every_weight_gets_a_gradient() -> None:
    unet = network()
    x, t, y = inputs()
    unet(x, t, y).square().sum().backward()
    without = [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_conv_is_that_of_torch(kernel: int, stride: int) -> None:
    layer = model.Conv(4, 6, kernel, stride)
    oracle = nn.Conv2d(4, 6, kernel, stride, kernel // 2)
    nn.init.normal_(layer.bias)
    with torch.no_grad():
        for o in range(6):
            for c in range(4):
                for i in range(kernel):
                    for j in range(kernel):
                        oracle.weight[o, c, i, j] = layer.weight[o, (i * kernel + j) * 4 + c]
        oracle.bias.copy_(layer.bias)  # type: ignore[union-attr]
    x = torch.randn(2, 4, 7, 7)
    torch.testing.assert_close(layer(x), oracle(x), rtol=1e-4, atol=1e-5)


def test_norm_is_group_norm_with_one_group() -> None:
    layer, oracle = model.Norm(6), nn.GroupNorm(1, 6)
    nn.init.normal_(layer.scale)
    nn.init.normal_(layer.shift)
    x = 3 + 2 * torch.randn(2, 6, 3, 5)
    with torch.no_grad():
        oracle.weight.copy_(layer.scale.flatten())
        oracle.bias.copy_(layer.shift.flatten())
        torch.testing.assert_close(layer(x), oracle(x), rtol=1e-4, atol=1e-5)
        layout = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(layer(layout), oracle(x), rtol=1e-4, atol=1e-5)


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    layer = model.SelfAttention(8, heads=2)
    nn.init.normal_(layer.out.weight)
    oracle = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(layer.qkv.weight)
        oracle.in_proj_bias.copy_(layer.qkv.bias)  # type: ignore[arg-type]
        oracle.out_proj.weight.copy_(layer.out.weight)
        oracle.out_proj.bias.copy_(layer.out.bias)  # type: ignore[arg-type]
        x = torch.randn(3, 8, 4, 5)
        tokens = layer.norm(x).flatten(2).transpose(1, 2)
        expected = x + oracle(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
