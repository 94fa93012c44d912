"""The flow on clips: which frames have which noise, and what counts in the loss."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion import RectifiedFlow
from video_generation import flow


def test_given_frames_of_the_stages() -> None:
    assert flow.given_frames(2, 5, "base", 2).int().tolist() == [[1, 1, 0, 0, 0]] * 2
    assert flow.given_frames(1, 5, "temporal", 2).int().tolist() == [[1, 0, 1, 0, 1]]
    assert not flow.given_frames(3, 4, "base", 0).any()
    mask = flow.given_frames(2, 3, "base", 1)
    mask[0] = False  # rows are separate memory
    assert mask[1, 0]


def test_frame_times_are_one_time_and_the_level_of_what_is_given() -> None:
    given = torch.tensor([[True, False, False], [False, False, True]])
    found = flow.frame_times(torch.tensor([0.5, 0.75]), given, torch.tensor([0.0, 0.25]))
    assert found.tolist() == [[0, 0.5, 0.5], [0.75, 0.75, 0.25]]


def test_mix_by_loops() -> None:
    x0, noise, times = torch.randn(2, 3, 1, 2, 4), torch.randn(2, 3, 1, 2, 4), torch.rand(2, 3)
    found = flow.mix(x0, noise, times)
    for b in range(2):
        for t in range(3):
            expected = x0[b, t] + float(times[b, t]) * (noise[b, t] - x0[b, t])
            torch.testing.assert_close(found[b, t], expected)


@pytest.mark.exercise("flow.velocity_loss")
@pytest.mark.parametrize("shape", [(3, 4, 2, 3, 5), (1, 2, 1, 1, 2)])
def test_velocity_loss_by_a_sum_over_pixels(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    velocity, x0, noise = (torch.randn(shape) for _ in range(3))
    given = torch.zeros(shape[:2], dtype=torch.bool)
    given[0, 0] = given[-1, 0] = True
    kept = [x.clone() for x in (velocity, x0, noise, given)]
    total, count = 0.0, 0
    for b, t in np.ndindex(shape[:2]):
        if not given[b, t]:
            error = velocity[b, t] - (noise[b, t] - x0[b, t])
            total, count = total + float((error**2).sum()), count + error.numel()
    found = flow.velocity_loss(velocity, x0, noise, given)
    assert found.shape == ()
    assert found.item() == pytest.approx(total / count, rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(kept, (velocity, x0, noise, given), strict=True))


@pytest.mark.exercise("flow.velocity_loss")
def test_a_clip_counts_by_its_frames_to_be_made() -> None:
    zero = torch.zeros(2, 4, 1, 2, 2)
    velocity = zero.clone()
    velocity[1] = 1.0
    given = torch.tensor([[True, True, True, False], [False] * 4])
    assert flow.velocity_loss(velocity, zero, zero, given).item() == pytest.approx(4 / 5)
    given[1, 1:] = True
    assert flow.velocity_loss(velocity, zero, zero, given).item() == pytest.approx(1 / 2)


@pytest.mark.exercise("flow.velocity_loss")
def test_given_frames_do_not_count_and_have_no_gradient() -> None:
    x0, noise = torch.randn(1, 3, 1, 2, 2), torch.randn(1, 3, 1, 2, 2)
    velocity = (noise - x0).clone()
    given = torch.tensor([[True, False, False]])
    velocity[:, 0] = 1e6
    velocity.requires_grad_()
    loss = flow.velocity_loss(velocity, x0, noise, given)
    assert loss.item() == pytest.approx(0, abs=1e-9)
    velocity = (noise - x0 + 1).requires_grad_()
    flow.velocity_loss(velocity, x0, noise, given).backward()
    assert velocity.grad is not None
    torch.testing.assert_close(velocity.grad[0, 1:], torch.full((2, 1, 2, 2), 2 / 8))
    assert not velocity.grad[0, 0].any()


@pytest.mark.exercise("flow.velocity_loss")
def test_velocity_loss_has_gradients_for_the_clip_and_the_noise() -> None:
    velocity, x0, noise = (torch.ones(1, 2, 1, 1, 1, requires_grad=True) for _ in range(3))
    flow.velocity_loss(velocity, x0, noise, torch.tensor([[True, False]])).backward()
    grads = [x.grad[0, 1].item() for x in (velocity, x0, noise) if x.grad is not None]
    assert grads == [2, 2, -2]


@pytest.mark.exercise("flow.training_noise")
def test_every_pixel_of_every_frame_has_noise_of_its_own() -> None:
    x0 = torch.full((4, 5, 3, 8, 9), 3.0)
    noise = flow.training_noise(x0, torch.Generator().manual_seed(0))
    assert noise.shape == x0.shape
    assert noise.mean().item() == pytest.approx(0, abs=0.05)
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    for axis in range(5):
        rows = noise.movedim(axis, 0).flatten(1).double().numpy()
        off = np.corrcoef(rows)[~np.eye(len(rows), dtype=bool)]
        assert np.abs(off).max() < 0.2, f"rows along axis {axis} are alike"
    assert (x0 == 3).all()


@pytest.mark.exercise("flow.training_noise")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_noise_is_one_call_of_randn_in_the_type_of_the_clip(dtype: torch.dtype) -> None:
    x0 = torch.zeros(2, 3, 1, 2, 4, dtype=dtype)
    expected = torch.randn(2, 3, 1, 2, 4, generator=torch.Generator().manual_seed(7))
    found = flow.training_noise(x0, torch.Generator().manual_seed(7))
    assert found.dtype == dtype
    assert torch.equal(found, expected.to(dtype))
    torch.manual_seed(3)
    expected = torch.randn(2, 3, 1, 2, 4)
    torch.manual_seed(3)
    assert torch.equal(flow.training_noise(x0), expected.to(dtype))


@pytest.mark.exercise("flow.training_noise")
def test_noise_goes_to_the_device_of_the_clip() -> None:
    found = flow.training_noise(torch.zeros(1, 2, 1, 2, 2, device="meta"))
    assert (found.device.type, found.shape) == ("meta", (1, 2, 1, 2, 2))


@pytest.mark.exercise("flow.training_times")
def test_one_time_for_the_frames_to_be_made_and_the_level_for_the_given() -> None:
    given = torch.rand(400, 5, generator=torch.Generator().manual_seed(1)) < 0.4
    given[0], given[1] = True, False
    level = torch.rand(400, generator=torch.Generator().manual_seed(2))
    kept, levels = given.clone(), level.clone()
    torch.manual_seed(3)
    drawn = torch.sigmoid(0.5 + 0.25 * torch.randn(400))
    torch.manual_seed(3)
    times = flow.training_times(given, level, 0.5, 0.25)
    assert (times.shape, times.dtype) == (given.shape, torch.float32)
    for b in range(400):
        for frame in range(5):
            assert times[b, frame] == (level[b] if given[b, frame] else drawn[b])
    logits = torch.logit(drawn.double())
    assert logits.mean().item() == pytest.approx(0.5, abs=0.05)
    assert logits.std().item() == pytest.approx(0.25, abs=0.05)
    assert torch.equal(given, kept)
    assert torch.equal(level, levels)


@pytest.mark.exercise("flow.training_times")
def test_times_of_one_clip_and_of_one_frame() -> None:
    for shape in [(1, 4), (3, 1), (1, 1)]:
        given = torch.zeros(shape, dtype=torch.bool)
        times = flow.training_times(given, torch.zeros(shape[0]), -1.0, 2.0)
        assert times.shape == shape
        assert ((times > 0) & (times < 1)).all()
        assert (times == times[:, :1]).all()
    with torch.device("meta"):
        level = torch.zeros(2)
    given = torch.zeros(2, 3, dtype=torch.bool, device="meta")
    assert flow.training_times(given, level, 0.0, 1.0).device.type == "meta"


def test_augmented_is_a_mixture_with_fresh_noise() -> None:
    low, level = torch.randn(2, 3, 1, 4, 5), torch.tensor([0.0, 0.25])
    found = flow.augmented(low, level, torch.Generator().manual_seed(2))
    noise = torch.randn(low.shape, generator=torch.Generator().manual_seed(2))
    assert torch.equal(found[0], low[0])
    torch.testing.assert_close(found[1], 0.75 * low[1] + 0.25 * noise[1])


class Watched(nn.Module):
    """Keeps what it is called with, and answers with something that depends on all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []

    def forward(self, x: Tensor, times: Tensor, **low: Tensor) -> Tensor:
        self.calls.append((x.clone(), times.clone(), low))
        return (2 * x + times[:, :, None, None, None]).bfloat16()


@pytest.mark.exercise("flow.predictor")
def test_the_predictor_writes_given_frames_in_at_their_own_time() -> None:
    torch.manual_seed(0)
    network, clip, x = Watched(), torch.randn(2, 3, 1, 2, 4), torch.randn(2, 3, 1, 2, 4)
    given = torch.tensor([[True, False, True], [False, False, False]])
    level, extra = torch.tensor([0.125, 0.0]), torch.randn(2)
    kept = [v.clone() for v in (clip, x, given, level)]
    velocity = flow.predictor(network, clip, given, level, {"hint": extra})
    for t in (1.0, 0.25):
        found = velocity(x, t)
        seen, times, low = network.calls[-1]
        for b in range(2):
            for frame in range(3):
                source = clip if given[b, frame] else x
                assert torch.equal(seen[b, frame], source[b, frame])
                expected = level[b] if given[b, frame] else torch.tensor(t)
                assert times[b, frame] == expected
        assert list(low) == ["hint"]
        assert torch.equal(low["hint"], extra)
        assert found.dtype == torch.float32
        assert torch.equal(found, (2 * seen + times[:, :, None, None, None]).bfloat16().float())
    assert len(network.calls) == 2
    assert all(torch.equal(a, b) for a, b in zip(kept, (clip, x, given, level), strict=True))


@pytest.mark.exercise("flow.predictor")
def test_the_predictor_lets_gradients_through() -> None:
    clip, x = (torch.randn(1, 2, 1, 1, 1, requires_grad=True) for _ in range(2))
    given = torch.tensor([[True, False]])
    flow.predictor(Watched(), clip, given, torch.zeros(1), {})(x, 0.5).sum().backward()
    assert clip.grad is not None
    assert x.grad is not None
    assert clip.grad.flatten().tolist() == [2, 0]
    assert x.grad.flatten().tolist() == [0, 2]


class Perfect(nn.Module):
    """The exact velocity for one known clip: from x = (1 - t) x0 + t eps, it is (x - x0) / t."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.x0, self.times = x0, torch.empty(0)

    def forward(self, x: Tensor, times: Tensor, pictures: int = 0) -> Tensor:
        self.times = times
        t = times[:, :, None, None, None]
        return torch.where(t > 0, (x - self.x0) / t.clamp(min=1e-9), 0)


def test_a_perfect_network_has_no_loss_and_draws_the_clip() -> None:
    torch.manual_seed(0)
    clip, single = torch.rand(3, 4, 1, 2, 3), torch.rand(3, 2, 1, 2, 3)
    given = flow.given_frames(3, 4, "base", 2)
    network, level = Perfect(clip), torch.zeros(3)
    assert flow.clip_loss(network, clip, given, level, 0.0, 1.0, {}).item() == pytest.approx(
        0, abs=1e-8
    )
    assert not network.times[:, :2].any()
    assert torch.equal(network.times[:, 2], network.times[:, 3])  # one time for all that is made
    assert len(network.times[:, 3].unique()) == 3

    joint = Perfect(torch.cat([clip, single], dim=1))
    loss = flow.clip_loss(joint, clip, given, level, 0.0, 1.0, {}, single)
    assert loss.item() == pytest.approx(0, abs=1e-8)
    assert len(joint.times[:, 3:].unique()) == 9  # pictures have times of their own

    denoise = flow.predictor(network, clip, given, level, {})
    for sampler in RectifiedFlow.samplers:
        x = RectifiedFlow().sample(denoise, torch.randn_like(clip), 3, sampler)
        torch.testing.assert_close(x[:, 2:], clip[:, 2:])


def test_random_times_are_logit_normal() -> None:
    torch.manual_seed(0)
    times = flow.random_times((20_000,), 0.5, 2.0, torch.zeros(1))
    logit = times.logit()
    assert logit.mean().item() == pytest.approx(0.5, abs=0.05)
    assert logit.std().item() == pytest.approx(2.0, abs=0.05)
