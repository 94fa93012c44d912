"""The pieces of DDPM against diffusers' and against Bayes' rule."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch.autograd import gradcheck

from diffusion import ddpm
from diffusion.ddpm import Prediction

NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
COMMON = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}


def batch(seed: int, n: int = 4) -> torch.Tensor:
    return torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


@contextlib.contextmanager
def unchanged(*arguments: torch.Tensor) -> Iterator[None]:
    """What is done inside must leave these tensors as they are."""
    before = [value.clone() for value in arguments]
    yield
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))


@pytest.mark.exercise("ddpm.q_sample")
def test_q_sample_is_add_noise() -> None:
    theirs = DDPMScheduler(1000, **COMMON)
    t = torch.tensor([0, 10, 500, 999])
    ours = ddpm.q_sample(batch(0), batch(1), theirs.alphas_cumprod[t].view(-1, 1, 1, 1))
    torch.testing.assert_close(ours, theirs.add_noise(batch(0), batch(1), t))


@pytest.mark.exercise("ddpm.q_sample")
def test_q_sample_keeps_unit_variance() -> None:
    x = ddpm.q_sample(batch(0, 5000), batch(1, 5000), torch.tensor(0.3))
    assert x.var().item() == pytest.approx(1, abs=0.02)
    assert (x * batch(0, 5000)).mean().item() == pytest.approx(0.3**0.5, abs=0.02)


@pytest.mark.exercise("ddpm.q_sample")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_q_sample_changes_no_argument_and_no_type(dtype: torch.dtype) -> None:
    arguments = batch(0).to(dtype), batch(1).to(dtype), torch.tensor(0.25).to(dtype)
    with unchanged(*arguments):
        found = ddpm.q_sample(*arguments)
    assert found.dtype == dtype
    expected = 0.5 * arguments[0] + 0.75**0.5 * arguments[1]
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.exercise("ddpm.q_sample")
def test_q_sample_from_the_picture_to_pure_noise() -> None:
    """Each picture at its own level, both ends included, where nothing of the other is left."""
    x0, noise, levels = batch(0, 3), batch(1, 3), torch.tensor([1.0, 0.36, 0.0])
    found = ddpm.q_sample(x0, noise, levels.view(3, 1, 1, 1))
    torch.testing.assert_close(found, torch.stack([x0[0], 0.6 * x0[1] + 0.8 * noise[1], noise[2]]))
    alone = ddpm.q_sample(x0[1:2], noise[1:2], levels[1])
    torch.testing.assert_close(alone, found[1:2])


def test_targets_are_those_of_diffusers() -> None:
    theirs = DDPMScheduler(1000, **COMMON)
    t = torch.tensor([0, 10, 500, 999])
    alpha_bar = theirs.alphas_cumprod[t].view(-1, 1, 1, 1)
    x0, noise = batch(0), batch(1)
    torch.testing.assert_close(
        ddpm.target("v", x0, noise, alpha_bar), theirs.get_velocity(x0, noise, t)
    )
    assert ddpm.target("eps", x0, noise, alpha_bar) is noise
    assert ddpm.target("x0", x0, noise, alpha_bar) is x0


@pytest.mark.exercise("ddpm.predicted_x0")
@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("t", [0, 400, 900])
def test_predicted_x0_is_pred_original_sample(prediction: str, t: int) -> None:
    theirs = DDPMScheduler(1000, **COMMON, prediction_type=NAMES[prediction], clip_sample=False)
    output, x_t = batch(0), batch(1)
    expected = theirs.step(output, t, x_t).pred_original_sample
    ours = ddpm.predicted_x0(prediction, output, x_t, theirs.alphas_cumprod[t])  # type: ignore[arg-type]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.exercise("ddpm.predicted_x0")
@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_predicted_x0_of_pictures_at_levels_of_their_own(prediction: Prediction) -> None:
    """Pictures are noised here and the perfect answer is given: the picture must come back."""
    x0, noise = batch(0).double(), batch(1).double()
    a = torch.tensor([1.0, 0.9, 0.25, 1e-4], dtype=torch.float64).view(4, 1, 1, 1)
    x_t = a**0.5 * x0 + (1 - a) ** 0.5 * noise
    output = {"eps": noise, "x0": x0, "v": a**0.5 * noise - (1 - a) ** 0.5 * x0}[prediction]
    with unchanged(output, x_t, a):
        found = ddpm.predicted_x0(prediction, output, x_t, a)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, x0)
    one = ddpm.predicted_x0(prediction, output[2:3], x_t[2:3], a[2, 0, 0, 0])
    torch.testing.assert_close(one, x0[2:3])


@pytest.mark.exercise("ddpm.posterior")
def test_posterior_of_pictures_at_levels_of_their_own() -> None:
    """Bayes' rule again, a picture at a time; arguments stay as they are."""
    x0, x_t = batch(0, 3), batch(1, 3)
    a = torch.tensor([0.4, 0.1, 1e-5]).view(3, 1, 1, 1)
    before = torch.tensor([0.41, 0.8, 1.0]).view(3, 1, 1, 1)
    with unchanged(x0, x_t, a, before):
        mean, variance = ddpm.posterior(x0, x_t, a, before)
    assert variance.shape == (3, 1, 1, 1)
    assert mean.dtype == variance.dtype == torch.float32
    for i, (alpha_bar, level) in enumerate([(0.4, 0.41), (0.1, 0.8)]):
        alpha = alpha_bar / level
        prior, likelihood = 1 / (1 - level), alpha / (1 - alpha)
        expected = prior * level**0.5 * x0[i] + likelihood * x_t[i] / alpha**0.5
        torch.testing.assert_close(mean[i], expected / (prior + likelihood), rtol=1e-3, atol=1e-4)
        assert variance[i].item() == pytest.approx(1 / (prior + likelihood), rel=1e-3)
    torch.testing.assert_close(mean[2], x0[2])
    assert variance[2].item() == 0


@pytest.mark.exercise("ddpm.posterior")
@pytest.mark.parametrize(("alpha_bar", "before"), [(0.4, 0.41), (0.1, 0.8), (0.99, 0.999)])
def test_posterior_is_bayes_rule(alpha_bar: float, before: float) -> None:
    """Prior x_s | x_0 and likelihood x_t | x_s are Gaussians: precisions add."""
    x0, x_t = batch(0).double(), batch(1).double()
    alpha = alpha_bar / before
    prior, likelihood = 1 / (1 - before), alpha / (1 - alpha)
    expected = (prior * before**0.5 * x0 + likelihood * x_t / alpha**0.5) / (prior + likelihood)
    a, b = (torch.tensor(v, dtype=torch.float64) for v in (alpha_bar, before))
    mean, variance = ddpm.posterior(x0, x_t, a, b)
    torch.testing.assert_close(mean, expected)
    assert variance.item() == pytest.approx(1 / (prior + likelihood))


@pytest.mark.exercise("ddpm.posterior")
def test_posterior_of_the_last_step_is_the_picture_itself() -> None:
    mean, variance = ddpm.posterior(batch(0), batch(1), torch.tensor(0.99), torch.tensor(1.0))
    torch.testing.assert_close(mean, batch(0))
    assert variance.item() == 0


@pytest.mark.exercise("ddpm.ddim_step")
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("t", [49, 499, 999])
def test_ddim_step_is_that_of_diffusers(eta: float, t: int) -> None:
    theirs = DDIMScheduler(
        1000, **COMMON, prediction_type="sample", clip_sample=False, set_alpha_to_one=True
    )
    theirs.set_timesteps(20)
    x0, x_t, noise = batch(0).clamp(-1, 1), batch(1), batch(2)
    expected = theirs.step(x0, t, x_t, eta=eta, variance_noise=noise).prev_sample
    before = theirs.alphas_cumprod[t - 50] if t >= 50 else torch.tensor(1.0)
    ours = ddpm.ddim_step(x0, x_t, theirs.alphas_cumprod[t], before, eta, noise)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.exercise("ddpm.ddim_step")
def test_ddim_with_eta_one_has_the_moments_of_the_posterior() -> None:
    """Song et al. 2021, section 4.1: their eta = 1 is DDPM. The posterior here is Bayes' rule."""
    alpha_bar, before = 0.2, 0.5
    x0, x_t = torch.full((1, 1, 1, 1), 0.3), torch.full((1, 1, 1, 1), -0.8)
    arguments = x0, x_t, torch.tensor(alpha_bar), torch.tensor(before), 1.0
    at_zero = ddpm.ddim_step(*arguments, torch.zeros(1, 1, 1, 1)).item()
    at_one = ddpm.ddim_step(*arguments, torch.ones(1, 1, 1, 1)).item()
    alpha = alpha_bar / before
    prior, likelihood = 1 / (1 - before), alpha / (1 - alpha)
    mean = (prior * before**0.5 * 0.3 + likelihood * -0.8 / alpha**0.5) / (prior + likelihood)
    assert at_zero == pytest.approx(mean, abs=1e-6)
    assert (at_one - at_zero) ** 2 == pytest.approx(1 / (prior + likelihood), abs=1e-6)


@pytest.mark.exercise("ddpm.ddim_step")
def test_ddim_of_pictures_at_levels_of_their_own() -> None:
    """Against the scheduler, a picture at a time; arguments stay as they are."""
    theirs = DDIMScheduler(
        1000, **COMMON, prediction_type="sample", clip_sample=False, set_alpha_to_one=True
    )
    theirs.set_timesteps(20)
    x0, x_t, noise = (batch(seed, 3).double() for seed in range(3))
    a = theirs.alphas_cumprod.double()
    levels = torch.stack([a[49], a[499], a[999]]).view(3, 1, 1, 1)
    before = torch.stack([torch.ones(()).double(), a[449], a[949]]).view(3, 1, 1, 1)
    with unchanged(x0, x_t, noise, levels, before):
        found = ddpm.ddim_step(x0, x_t, levels, before, 0.3, noise)
    assert found.dtype == torch.float64
    for i, t in enumerate((49, 499, 999)):
        rows = x0[i : i + 1], t, x_t[i : i + 1]
        step = theirs.step(*rows, eta=0.3, variance_noise=noise[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], step.prev_sample, rtol=1e-5, atol=1e-5)


@pytest.mark.exercise("ddpm.ddim_step")
def test_ddim_at_the_last_step_is_the_picture_whatever_the_noise() -> None:
    x0, x_t, noise = batch(0), batch(1), batch(2)
    one = torch.tensor(1.0)
    for eta in (0.0, 1.0):
        found = ddpm.ddim_step(x0, x_t, torch.tensor(0.9), one, eta, noise)
        torch.testing.assert_close(found, x0)
    still = ddpm.ddim_step(x0, x_t, torch.tensor(0.5), torch.tensor(0.7), 0.0, noise)
    assert torch.equal(
        still, ddpm.ddim_step(x0, x_t, torch.tensor(0.5), torch.tensor(0.7), 0.0, 0 * noise)
    ), "eta 0 takes no noise"


@pytest.mark.exercise("ddpm.ddim_step")
def test_ddim_is_finite_where_rounding_takes_the_root_below_zero() -> None:
    """With eta = 1 and almost no signal left, sigma^2 is 1 - alpha_bar_before but for rounding."""
    before = torch.linspace(0.01, 0.99, 99).view(-1, 1, 1, 1)
    x0, x_t = batch(0, 1), batch(1, 1)
    negative = 0
    for exponent in range(4, 12):
        a = before * 10.0**-exponent
        sigma = ((1 - before) / (1 - a) * (1 - a / before)).sqrt()
        negative += int((1 - before - sigma.square() < 0).sum())
        found = ddpm.ddim_step(x0, x_t, a, before, 1.0, torch.zeros(1))
        torch.testing.assert_close(found, before.sqrt() * x0, atol=0.05, rtol=0)
    assert negative > 0, "it does occur"


def differentiable(function: Callable[..., torch.Tensor], inputs: int) -> bool:
    """Whether autograd's gradients of so many pictures are those of finite differences."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(inputs, 2, 1, 1, 2, generator=generator, dtype=torch.float64)
    return gradcheck(function, [p.clone().requires_grad_() for p in pictures])


LEVEL, BEFORE = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)


@pytest.mark.exercise("ddpm.q_sample")
def test_q_sample_is_differentiable() -> None:
    assert differentiable(lambda x0, noise: ddpm.q_sample(x0, noise, LEVEL), 2)


@pytest.mark.exercise("ddpm.predicted_x0")
@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_predicted_x0_is_differentiable(prediction: Prediction) -> None:
    """`x0` does not depend on x_t."""
    _, x_t = torch.randn(2, 2, 1, 1, 2, dtype=torch.float64)
    assert differentiable(lambda out: ddpm.predicted_x0(prediction, out, x_t, LEVEL), 1)
    if prediction != "x0":
        assert differentiable(lambda out, x_t: ddpm.predicted_x0(prediction, out, x_t, LEVEL), 2)


@pytest.mark.exercise("ddpm.posterior")
def test_the_mean_of_the_posterior_is_differentiable() -> None:
    assert differentiable(lambda x0, x_t: ddpm.posterior(x0, x_t, LEVEL, BEFORE)[0], 2)


@pytest.mark.exercise("ddpm.ddim_step")
def test_ddim_is_differentiable() -> None:
    def step(x0: torch.Tensor, x_t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return ddpm.ddim_step(x0, x_t, LEVEL, BEFORE, 0.7, noise)

    assert differentiable(step, 3)


class Recorder(torch.nn.Module):
    """Stands in for the network: answers with what it is told and remembers what it was asked."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.x, self.t = x, t
        return self.answer


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_loss_is_zero_for_the_network_that_knows(prediction: Prediction) -> None:
    """x_t, t and x0 determine the noise: a perfect answer exists, and its loss is 0."""
    process, x0 = ddpm.DDPM(prediction, "cosine", 100), batch(0).clamp(-1, 1)

    class Knows(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            a = process.alpha_bar[(t * 100).round().long()].view(-1, 1, 1, 1)
            noise = (x - a.sqrt() * x0) / (1 - a).sqrt()
            v = a.sqrt() * noise - (1 - a).sqrt() * x0
            return {"eps": noise, "x0": x0, "v": v}[prediction]

    assert process.loss(Knows(), x0, torch.zeros(4)).item() == pytest.approx(0, abs=1e-6)


def test_loss_of_answering_nothing_is_the_variance_of_the_noise() -> None:
    recorder = Recorder(torch.zeros(4000, 1, 6, 6))
    loss = ddpm.DDPM("eps").loss(recorder, torch.zeros(4000, 1, 6, 6), torch.zeros(4000))
    assert loss.item() == pytest.approx(1, abs=0.02)
    assert 0 <= recorder.t.min() < 0.01
    assert 0.99 < recorder.t.max() < 1
