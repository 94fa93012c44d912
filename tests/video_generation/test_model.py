"""The network: a new one is the image network, frame by frame; attention runs over time alone."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion import UNet
from video_generation import model
from video_generation.model import VideoUNet


@pytest.mark.exercise("model.over_time")
@pytest.mark.parametrize("shape", [(3, 4, 2, 3, 5), (1, 2, 4, 1, 2), (2, 1, 3, 2, 2)])
def test_over_time_by_loops(shape: tuple[int, ...]) -> None:
    B, T, C, H, W = shape
    x = torch.arange(B * T * C * H * W).float().view(B * T, C, H, W)
    kept = x.clone()
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        found = model.over_time(given, T)
        assert found.shape == (B, H * W, T, C)
        for b in range(B):
            for t in range(T):
                for i in range(H):
                    for j in range(W):
                        assert torch.equal(found[b, i * W + j, t], x[b * T + t, :, i, j])
    assert torch.equal(x, kept)


@pytest.mark.exercise("model.over_time")
def test_gradients_come_back_through_over_time() -> None:
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    model.over_time(x, 2).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x)


def test_over_space_is_the_way_back() -> None:
    x = torch.randn(6, 4, 3, 5)
    assert torch.equal(model.over_space(model.over_time(x, 3), 3), x)


def qkv(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(*shape, dtype=dtype) for _ in range(3))


@pytest.mark.exercise("model.attend")
@pytest.mark.parametrize("shape", [(2, 6, 3, 5, 8), (1, 1, 1, 4, 3), (2, 3, 2, 1, 4)])
def test_attend_is_the_fused_kernel_on_moved_axes(shape: tuple[int, ...]) -> None:
    """The library's function gets clips with time first, and the axes moved for it."""
    q, k, v = qkv(*shape)
    kept = [x.clone() for x in (q, k, v)]
    clips = [x.movedim(-2, 0) for x in (q, k, v)]  # (T, ...)
    expected = F.scaled_dot_product_attention(*(x.movedim(0, -2) for x in clips))
    torch.testing.assert_close(model.attend(q, k, v), expected, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(kept, (q, k, v), strict=True))


@pytest.mark.exercise("model.attend")
def test_attend_with_a_mask_is_the_fused_kernel() -> None:
    q, k, v = qkv(2, 3, 2, 4, 6)
    mask = torch.tensor([[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1]]).bool()
    kept = mask.clone()
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(model.attend(q, k, v, mask), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(mask, kept)


@pytest.mark.exercise("model.attend")
def test_attend_by_hand_has_gradients_for_all_three() -> None:
    q, k, v = (x.requires_grad_() for x in qkv(1, 2, 1, 3, 4))
    found = model.attend(q, k, v)
    for pixel in range(2):
        for i in range(3):
            products = (q[0, pixel, 0, i] @ k[0, pixel, 0, j] for j in range(3))
            scores = [product.item() / 2 for product in products]
            total = sum(map(math.exp, scores))
            row = sum(math.exp(s) / total * v[0, pixel, 0, j] for j, s in enumerate(scores))
            torch.testing.assert_close(found[0, pixel, 0, i], row)
    found[..., 0].sum().backward()
    assert all(x.grad is not None and x.grad.any() for x in (q, k, v))


@pytest.mark.exercise("model.attend")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_attend_keeps_the_type_of_the_values(dtype: torch.dtype) -> None:
    q, k, v = qkv(1, 2, 1, 3, 4, dtype=dtype)
    found = model.attend(q.float(), k.float(), v)
    assert found.dtype == dtype
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.exercise("model.joint_mask")
def test_joint_mask_of_three_frames_and_two_pictures() -> None:
    expected = [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    found = model.joint_mask(3, 2)
    assert found.dtype == torch.bool
    assert found.int().tolist() == expected


@pytest.mark.exercise("model.joint_mask")
def test_joint_mask_without_clip_or_pictures_on_its_device() -> None:
    assert model.joint_mask(4, 0).all()
    assert torch.equal(model.joint_mask(0, 3), torch.eye(3).bool())
    found = model.joint_mask(2, 1, torch.device("meta"))
    assert (found.device.type, found.shape) == ("meta", (3, 3))


def awake(network: nn.Module) -> nn.Module:
    """All layers that start at 0 are given weights, so that everything has an effect."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize(("channels", "patch", "size"), [(1, 1, (8, 8)), (3, 2, (8, 12))])
def test_a_new_video_network_is_the_image_network_frame_by_frame(
    channels: int, patch: int, size: tuple[int, int]
) -> None:
    image = awake(UNet(channels * patch**2, 0, 16, (1, 2)))
    video = VideoUNet(channels, 16, (1, 2), patch=patch)
    found = video.load_state_dict(image.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert all(name.startswith("time_") for name in found.missing_keys)
    x, times = torch.randn(2, 3, channels, *size), torch.rand(2, 3)
    with torch.no_grad():
        together = video(x, times)
        for b in range(2):
            for t in range(3):
                picture = F.pixel_unshuffle(x[b, t][None], patch)
                alone = image(picture, times[b, t][None], torch.zeros(1, dtype=torch.long))
                expected = F.pixel_shuffle(alone, patch)[0]
                torch.testing.assert_close(together[b, t], expected, rtol=1e-4, atol=1e-5)


def test_frames_see_the_whole_clip_and_no_other_clip() -> None:
    video = awake(VideoUNet(1, 16, (1, 2)))
    x, times = torch.randn(2, 4, 1, 8, 8), torch.rand(2, 4)
    for frame in range(4):
        moved = x.clone()
        moved[0, frame] += 1
        with torch.no_grad():
            change = (video(moved, times) - video(x, times)).abs().amax(dim=(2, 3, 4))
        assert (change[0] > 1e-5).all()
        assert not change[1].any()


def test_the_order_of_the_frames_and_their_times_count() -> None:
    video = awake(VideoUNet(1, 16, (1,)))
    x, times = torch.randn(1, 4, 1, 8, 8), torch.rand(1, 4)
    with torch.no_grad():
        base = video(x, times)
        backwards = video(x.flip(1), times.flip(1)).flip(1)
        later = video(x, times + torch.tensor([0, 0, 0.3, 0]))
    assert (backwards - base).abs().amax() > 1e-3
    assert (later - base).abs().amax() > 1e-3


def test_pictures_and_clips_trained_together_do_not_see_each_other() -> None:
    video = awake(VideoUNet(1, 16, (1, 2)))
    x, times = torch.randn(2, 5, 1, 8, 8), torch.rand(2, 5)
    with torch.no_grad():
        joint = video(x, times, pictures=2)
        clip = video(x[:, :3], times[:, :3])
        torch.testing.assert_close(joint[:, :3], clip, rtol=1e-4, atol=1e-5)
        for place in (3, 4):
            one = slice(place, place + 1)
            picture = video(x[:, one], times[:, one])
            torch.testing.assert_close(joint[:, one], picture, rtol=1e-4, atol=1e-5)


def test_the_low_clip_and_its_noise_level_count() -> None:
    video = awake(VideoUNet(1, 16, (1, 2), patch=2, low=True))
    x, times, low = torch.randn(2, 3, 1, 8, 8), torch.rand(2, 3), torch.randn(2, 3, 1, 8, 8)
    level = torch.tensor([0.1, 0.2])
    with torch.no_grad():
        base = video(x, times, low=low, level=level)
        for other in (
            video(x, times, low=low + 0.5, level=level),
            video(x, times, low=low, level=level + 0.1),
        ):
            assert ((other - base).abs().amax(dim=(1, 2, 3, 4)) > 1e-4).all()


def test_every_weight_gets_a_gradient_and_attention_is_trained_by_muon() -> None:
    video = awake(VideoUNet(1, 16, (1, 2), low=True))
    x = torch.randn(1, 3, 1, 8, 8)
    video(x, torch.rand(1, 3), low=x, level=torch.rand(1)).square().sum().backward()
    without = [name for name, p in video.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    inside = {id(p) for p in video.matrices()}
    named = {name for name, p in video.named_parameters() if id(p) in inside}
    assert "time_middle.qkv.weight" in named
    assert not any(name.startswith(("embed_", "enter")) for name in named)
