"""Whole samplers: step by step against diffusers', and in law where it is known."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from diffusion import ddpm, flow

NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
Prediction = Literal["eps", "v", "x0"]
Schedule = Literal["linear", "cosine"]


def network(x: Tensor, t: float) -> Tensor:
    """Any function of picture and time will do: both sides are given the same one."""
    return torch.tanh(0.7 * x + 0.3 * x.roll(1, -1) + t)


def noise() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def scheduler(kind: type, prediction: Prediction, schedule: Schedule, **options: object):
    return kind(
        1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule=BETAS[schedule],
        prediction_type=NAMES[prediction],
        clip_sample=True,
        clip_sample_range=1.0,
        timestep_spacing="trailing",
        **options,
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("steps", [20, 1000])
def test_ancestral_is_ddpm_of_diffusers(
    prediction: Prediction, schedule: Schedule, steps: int
) -> None:
    theirs = scheduler(DDPMScheduler, prediction, schedule, variance_type="fixed_small")
    theirs.set_timesteps(steps)
    x, generator, states = noise(), torch.Generator().manual_seed(1), []
    for t in theirs.timesteps.tolist():
        states.append(x)
        x = theirs.step(network(x, t / 1000), t, x, generator=generator).prev_sample

    seen: list[Tensor] = []
    process = ddpm.DDPM(prediction, schedule)
    generator = torch.Generator().manual_seed(1)
    out = process.sample(
        network, noise(), steps, "ancestral", generator, lambda x, x0: seen.append(x)
    )
    assert len(seen) == steps
    for ours, expected in zip([*seen, out], [*states, x], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_is_ddim_of_diffusers(prediction: Prediction, schedule: Schedule, steps: int) -> None:
    theirs = scheduler(DDIMScheduler, prediction, schedule, set_alpha_to_one=True)
    theirs.set_timesteps(steps)
    x, states = noise(), []
    for t in theirs.timesteps.tolist():
        states.append(x)
        x = theirs.step(
            network(x, t / 1000), t, x, eta=0.0, use_clipped_model_output=True
        ).prev_sample

    seen: list[Tensor] = []
    process = ddpm.DDPM(prediction, schedule)
    out = process.sample(network, noise(), steps, "ddim", None, lambda x, x0: seen.append(x))
    for ours, expected in zip([*seen, out], [*states, x], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 8, 25])
def test_euler_is_flow_match_euler_of_diffusers(steps: int) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=1.0)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    x = noise()
    for sigma, t in zip(theirs.sigmas.tolist(), theirs.timesteps, strict=False):
        x = theirs.step(network(x, sigma), t, x).prev_sample
    ours = flow.RectifiedFlow().sample(network, noise(), steps, "euler")
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)


@pytest.mark.exercise("flow.heun_step")
def test_heun_is_the_second_order_taylor_step() -> None:
    """On dx/dt = x a step of length h multiplies by 1 + h + h^2 / 2; Euler stops at 1 + h."""
    x = torch.tensor([1.0, -2.0])
    ours = flow.heun_step(lambda x, t: x, x, 0.9, 0.4)
    torch.testing.assert_close(ours, x * (1 - 0.5 + 0.125))


@pytest.mark.exercise("flow.heun_step")
def test_heun_uses_the_time_of_both_ends_and_euler_at_the_very_end() -> None:
    asked: list[float] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        asked.append(t)
        return torch.full_like(x, 2 * t)  # x = t^2: the trapezoid rule is exact

    x = torch.tensor([1.0])
    torch.testing.assert_close(flow.heun_step(velocity, x, 1.0, 0.5), torch.tensor([0.25]))
    assert asked == [1.0, 0.5]
    torch.testing.assert_close(flow.heun_step(velocity, x, 0.5, 0.0), torch.tensor([0.5]))
    assert asked == [1.0, 0.5, 0.5]


@pytest.mark.exercise("flow.heun_step")
@pytest.mark.parametrize("t_next", [1e-3, 0.005, 0.3])
def test_every_step_that_ends_before_zero_has_two_slopes(t_next: float) -> None:
    """However near to 0: on dx/dt = x again, with h = t_next - 1."""
    calls: list[float] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        calls.append(t)
        return x

    h, x = t_next - 1.0, noise().double()
    kept = x.clone()
    found = flow.heun_step(velocity, x, 1.0, t_next)
    torch.testing.assert_close(found, kept * (1 + h + h**2 / 2))
    assert calls == [1.0, t_next]
    assert torch.equal(x, kept), "x is not changed"
    assert found.dtype == torch.float64


@pytest.mark.exercise("flow.heun_step")
def test_heun_sees_every_picture_by_itself() -> None:
    """dx/dt = A x with another A for each of three pictures, on the way to t = 0.2."""
    rates = torch.tensor([-2.0, 0.5, 3.0]).view(3, 1, 1, 1)
    x, h = noise(), -0.5
    found = flow.heun_step(lambda x, t: rates * x, x, 0.7, 0.2)
    torch.testing.assert_close(found, x * (1 + h * rates + (h * rates) ** 2 / 2))
    last = flow.heun_step(lambda x, t: rates * x, x, 0.5, 0.0)
    torch.testing.assert_close(last, x * (1 + h * rates))


@pytest.mark.exercise("flow.heun_step")
@pytest.mark.parametrize("t_next", [0.2, 0.0])
def test_heun_is_differentiable_through_both_slopes(t_next: float) -> None:
    """Against finite differences; the field is no line, so the second slope has its own share."""

    def step(x: Tensor) -> Tensor:
        return flow.heun_step(lambda x, t: torch.sin(3 * x + t), x, 0.8, t_next)

    x = torch.linspace(-1, 1, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(step, [x])


MEAN, DEVIATION = 0.4, 0.25


def gaussian_guess(x: Tensor, signal: float, noise_level: float) -> Tensor:
    """E[x0 | x], x = signal x0 + noise_level eps, x0 ~ N(MEAN, DEVIATION^2): the best guess."""
    gain = signal * DEVIATION**2 / (signal**2 * DEVIATION**2 + noise_level**2)
    return MEAN + gain * (x - signal * MEAN)


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 200), ("ancestral", 500)])
@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_ddpm_with_the_best_denoiser_draws_the_gaussian(
    sampler: str, steps: int, prediction: Prediction
) -> None:
    process = ddpm.DDPM(prediction, "cosine", limit=math.inf)

    def denoise(x: Tensor, t: float) -> Tensor:
        a = process.alpha_bar[round(t * 1000)].double()
        x0 = gaussian_guess(x, a.sqrt().item(), (1 - a).sqrt().item())
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt()
        return {"eps": eps, "x0": x0, "v": a.sqrt() * eps - (1 - a).sqrt() * x0}[prediction]

    process.alpha_bar = process.alpha_bar.double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, 1, 1, generator=generator, dtype=torch.float64)
    out = process.sample(denoise, x, steps, sampler, generator)
    assert out.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert out.std().item() == pytest.approx(DEVIATION, rel=0.03)


@pytest.mark.parametrize(
    ("sampler", "steps", "close"),
    [("heun", 40, 0.02), ("euler", 200, 0.03), ("ancestral", 500, 0.03)],
)
def test_flow_with_the_best_field_draws_the_gaussian(
    sampler: str, steps: int, close: float
) -> None:
    def velocity(x: Tensor, t: float) -> Tensor:
        x0 = gaussian_guess(x, 1 - t, t)
        return (x - x0) / t  # eps - x0, and x = (1 - t) x0 + t eps

    x = torch.randn(20_000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    out = flow.RectifiedFlow().sample(velocity, x, steps, sampler, generator)
    assert out.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert out.std().item() == pytest.approx(DEVIATION, rel=close)


@pytest.mark.parametrize(("t", "t_next"), [(1.0, 0.9), (0.8, 0.3), (0.05, 0.01), (0.2, 0.0)])
def test_ancestral_step_of_the_flow_is_ddpms_posterior_at_another_scale(
    t: float, t_next: float
) -> None:
    """x / sqrt((1 - t)^2 + t^2) is a variance-preserving diffusion: its posterior is the oracle."""
    x, x0, noise = torch.randn(3, 4, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    x0 = x0.clamp(-1, 1)
    scale, scale_next = (((1 - s) ** 2 + s**2) ** 0.5 for s in (t, t_next))
    alpha_bar, before = (
        torch.tensor(((1 - s) / c) ** 2, dtype=torch.float64)
        for s, c in ((t, scale), (t_next, scale_next))
    )
    mean, variance = ddpm.posterior(x0, x / scale, alpha_bar, before)
    expected = scale_next * (mean + variance.sqrt() * noise)
    out = flow.ancestral_step(lambda x, t: (x - x0) / t, x, t, t_next, noise)
    torch.testing.assert_close(out, expected)


def test_flow_loss_is_zero_for_the_field_that_knows() -> None:
    x0 = torch.rand(16, 1, 4, 4) * 2 - 1

    def knows(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        t = t.view(-1, 1, 1, 1)
        return (x - (1 - t) * x0) / t - x0

    loss = flow.RectifiedFlow().loss(knows, x0, torch.zeros(16))  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_logit_normal_times_have_the_logit_they_should() -> None:
    torch.manual_seed(0)
    logits = flow.logit_normal(50_000, -0.5, 1.5, torch.device("cpu")).logit()
    assert logits.mean().item() == pytest.approx(-0.5, abs=0.03)
    assert logits.std().item() == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize("kind", [ddpm.DDPM, flow.RectifiedFlow])
def test_an_unknown_sampler_is_named_beside_the_known(
    kind: type[ddpm.DDPM] | type[flow.RectifiedFlow],
) -> None:
    process = kind()
    with pytest.raises(ValueError, match=f"'leap'.*{process.samplers[0]}"):
        process.sample(network, noise(), 5, "leap")
