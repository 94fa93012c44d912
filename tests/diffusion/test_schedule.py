"""Noise schedules against diffusers' and against their own definition."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from diffusion import schedule


@pytest.mark.parametrize("timesteps", [10, 1000])
def test_linear_is_that_of_diffusers(timesteps: int) -> None:
    theirs = DDPMScheduler(timesteps, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    ours = schedule.linear_betas(timesteps).float()
    torch.testing.assert_close(ours, theirs.betas, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(
        schedule.alpha_bars("linear", timesteps), theirs.alphas_cumprod, rtol=1e-4, atol=1e-8
    )


@pytest.mark.exercise("schedule.cosine_betas")
@pytest.mark.parametrize("timesteps", [10, 1000])
def test_cosine_is_that_of_diffusers(timesteps: int) -> None:
    theirs = DDPMScheduler(timesteps, beta_schedule="squaredcos_cap_v2")
    ours = schedule.cosine_betas(timesteps)
    assert ours.dtype == torch.float64
    assert ours.shape == (timesteps,)
    torch.testing.assert_close(ours.float(), theirs.betas, rtol=1e-5, atol=1e-8)


@pytest.mark.exercise("schedule.cosine_betas")
def test_cosine_products_follow_the_cosine() -> None:
    alpha_bar = (1 - schedule.cosine_betas(200, offset=0.05)).cumprod(0)
    for t in (0, 50, 150):
        f = [math.cos((u + 0.05) / 1.05 * math.pi / 2) ** 2 for u in (0, (t + 1) / 200)]
        assert alpha_bar[t].item() == pytest.approx(f[1] / f[0], rel=1e-9)
    assert schedule.cosine_betas(200, largest=0.7).max().item() == pytest.approx(0.7)


@pytest.mark.exercise("schedule.cosine_betas")
@pytest.mark.parametrize("timesteps", [1, 2, 3, 50])
@pytest.mark.parametrize(("offset", "largest"), [(0.008, 0.999), (0.0, 0.5), (0.3, 1.0)])
def test_cosine_by_a_loop_over_its_steps(timesteps: int, offset: float, largest: float) -> None:
    def f(u: float) -> float:
        return math.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2

    expected = [
        min(1 - f((t + 1) / timesteps) / f(t / timesteps), largest) for t in range(timesteps)
    ]
    found = schedule.cosine_betas(timesteps, offset, largest)
    assert found.shape == (timesteps,)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_both_schedules_reach_noise_at_a_thousand_steps_and_linear_does_not_at_a_hundred() -> None:
    assert schedule.alpha_bars("linear", 1000)[-1] < 1e-4
    assert schedule.alpha_bars("cosine", 1000)[-1] < 1e-4
    assert schedule.alpha_bars("linear", 100)[-1] == pytest.approx(0.36, abs=0.01)


@pytest.mark.parametrize("steps", [1, 7, 20, 50, 300, 1000])
def test_strided_timesteps_are_the_trailing_ones_of_diffusers(steps: int) -> None:
    theirs = DDIMScheduler(1000, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    assert schedule.strided(1000, steps) == theirs.timesteps.tolist()


@pytest.mark.parametrize("steps", [0, 1001])
def test_strided_refuses_what_cannot_be(steps: int) -> None:
    with pytest.raises(ValueError, match="from 1 to the 1000 of training"):
        schedule.strided(1000, steps)
