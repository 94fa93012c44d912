"""The mixture density output against torch.distributions, quadrature and its own draws."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from world_models.mdn import Mixture, log_prob, sample


def mixture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Mixture:
    generator = torch.Generator().manual_seed(seed)
    return Mixture(*(torch.randn(shape, generator=generator, dtype=dtype) for _ in range(3)))


def theirs(parts: Mixture) -> MixtureSameFamily:
    return MixtureSameFamily(
        Categorical(logits=parts.logits), Normal(parts.mean, parts.log_deviation.exp())
    )


@pytest.mark.exercise("mdn.log_prob")
@pytest.mark.parametrize("shape", [(3, 5), (1, 1, 1), (2, 7, 3, 4), (6, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_is_that_of_torch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    parts = mixture(*shape, dtype=dtype)
    x = torch.randn(shape[:-1], dtype=dtype)
    kept = [p.clone() for p in (*parts, x)]
    found = log_prob(parts, x)
    assert found.shape == x.shape
    assert found.dtype == dtype
    torch.testing.assert_close(found, theirs(parts).log_prob(x))
    assert all(torch.equal(a, b) for a, b in zip(kept, (*parts, x), strict=True))


@pytest.mark.exercise("mdn.log_prob")
def test_the_density_integrates_to_one_whatever_is_added_to_the_logits() -> None:
    logits, mean, log_deviation = mixture(2, 4, dtype=torch.float64)
    grid = torch.linspace(-60, 60, 200_001, dtype=torch.float64)
    for shift in (0.0, 5.0, -300.0):
        parts = Mixture(logits + shift, mean, log_deviation)
        for d in range(2):
            one = Mixture(*(p[d].expand(len(grid), -1) for p in parts))
            total = torch.trapezoid(log_prob(one, grid).exp(), grid)
            assert total.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.exercise("mdn.log_prob")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_from_every_component_it_is_finite_and_has_gradients(dtype: torch.dtype) -> None:
    parts = Mixture(torch.zeros(2, 3), torch.zeros(2, 3), torch.full((2, 3), -3.0))
    parts = Mixture(*(p.to(dtype).requires_grad_() for p in parts))
    x = torch.tensor([6.0, -60.0], dtype=dtype)
    found = log_prob(parts, x)
    expected = -0.5 * (x * math.exp(3)).square() + 3 - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parts)
    pull = x[:, None] * math.exp(6) / 3  # d log p / d mean, a third for each component
    assert parts.mean.grad is not None
    torch.testing.assert_close(parts.mean.grad, pull.expand(2, 3), rtol=0.1, atol=0)


@pytest.mark.exercise("mdn.log_prob")
def test_gradients_are_those_of_the_function() -> None:
    parts = mixture(2, 3, 4, dtype=torch.float64)
    x = torch.randn(2, 3, dtype=torch.float64)
    inputs = tuple(p.requires_grad_() for p in (*parts, x))
    assert torch.autograd.gradcheck(lambda a, b, c, x: log_prob(Mixture(a, b, c), x), inputs)


@pytest.mark.exercise("mdn.log_prob")
def test_a_component_of_no_weight_does_not_count() -> None:
    parts = Mixture(
        torch.tensor([[0.0, -200.0]]), torch.tensor([[1.0, 4.0]]), torch.tensor([[0.5, -5.0]])
    )
    expected = Normal(1.0, math.exp(0.5)).log_prob(torch.tensor([4.0]))
    torch.testing.assert_close(log_prob(parts, torch.tensor([4.0])), expected)


def drawn(parts: Mixture, temperature: float, count: int = 200_000) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    D = parts.mean.shape[0]
    uniform = torch.rand(count, D, generator=generator)
    normal = torch.randn(count, D, generator=generator)
    many = Mixture(*(p.expand(count, *p.shape) for p in parts))
    return sample(many, temperature, uniform, normal)


@pytest.mark.exercise("mdn.sample")
@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.5])
def test_draws_have_the_moments_of_the_mixture_at_that_temperature(temperature: float) -> None:
    parts = Mixture(
        torch.tensor([[0.2, 1.0, -0.5], [2.0, 0.0, 0.3]]),
        torch.tensor([[-3.0, 0.5, 4.0], [1.0, -6.0, 2.0]]),
        torch.tensor([[0.1, -0.7, 0.4], [-0.2, 0.3, -1.0]]),
    )
    hot = Mixture(
        parts.logits / temperature, parts.mean, parts.log_deviation + 0.5 * math.log(temperature)
    )
    expected = theirs(hot)
    found = drawn(parts, temperature)
    assert found.shape == (200_000, 2)
    torch.testing.assert_close(found.mean(dim=0), expected.mean, atol=0.03, rtol=0)
    torch.testing.assert_close(found.var(dim=0), expected.variance, rtol=0.02, atol=0)


@pytest.mark.exercise("mdn.sample")
def test_the_given_numbers_choose_component_and_place() -> None:
    parts = Mixture(
        torch.tensor([0.5, 0.25, 0.25]).log().expand(6, 3),
        torch.tensor([10.0, 20.0, 30.0]).expand(6, 3),
        torch.tensor([1.0, 2.0, 4.0]).log().expand(6, 3),
    )
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.74, 0.76, 0.999999])
    normal = torch.tensor([0.0, 1.0, -1.0, 0.5, 2.0, -0.5])
    kept = uniform.clone(), normal.clone()
    found = sample(parts, 1.0, uniform, normal)
    torch.testing.assert_close(found, torch.tensor([10.0, 11.0, 18.0, 21.0, 38.0, 28.0]))
    assert torch.equal(kept[0], uniform)
    assert torch.equal(kept[1], normal)
    cold = sample(parts, 0.25, uniform, normal)  # pi is 16 : 1 : 1, deviations are halved
    torch.testing.assert_close(cold, torch.tensor([10.0, 10.5, 9.5, 10.25, 11.0, 29.0]))


@pytest.mark.exercise("mdn.sample")
def test_every_number_has_a_mixture_of_its_own_and_the_last_component_takes_the_rest() -> None:
    logits = torch.full((2, 3, 4), -1e4)
    for b in range(2):
        for d in range(3):
            logits[b, d, (b + d) % 4] = 0
    mean = torch.arange(24.0).view(2, 3, 4)
    parts = Mixture(logits, mean, torch.zeros(2, 3, 4))
    uniform = torch.full((2, 3), 1 - 2**-24)
    found = sample(parts, 1.0, uniform, torch.zeros(2, 3))
    expected = [[mean[b, d, (b + d) % 4].item() for d in range(3)] for b in range(2)]
    assert found.tolist() == expected
    # Shares that add up to less than 1 by rounding: some rows have none above the number.
    flat = mixture(5000, 5)
    found = sample(flat, 1.0, torch.full((5000,), 1 - 2**-24), torch.zeros(5000))
    assert torch.equal(found, flat.mean[:, -1])


@pytest.mark.exercise("mdn.sample")
def test_a_number_on_the_border_belongs_to_the_next_component() -> None:
    parts = Mixture(torch.zeros(2, 2), torch.tensor([[3.0, 7.0]] * 2), torch.zeros(2, 2))
    found = sample(parts, 2.0, torch.tensor([0.5, 0.0]), torch.zeros(2))
    assert found.tolist() == [7.0, 3.0]


@pytest.mark.exercise("mdn.sample")
def test_types_and_a_temperature_near_zero() -> None:
    parts = mixture(4, 3, dtype=torch.float64)
    zeros = torch.zeros(4, dtype=torch.float64)
    found = sample(parts, 1e-6, zeros + 0.5, zeros + 1)
    assert found.dtype == torch.float64
    best = parts.mean.gather(-1, parts.logits.argmax(dim=-1, keepdim=True)).squeeze(-1)
    torch.testing.assert_close(found, best, atol=0.02, rtol=0)
