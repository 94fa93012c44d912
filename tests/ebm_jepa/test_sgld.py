"""Langevin dynamics against closed forms; chains, modes and gradients."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from ebm_jepa import sgld
from ebm_jepa.sgld import ReplayBuffer, sample, sgld_step


def points(*shape: int, seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draws, dtype=torch.float64)


@pytest.mark.exercise("sgld.sgld_step")
@pytest.mark.parametrize("shape", [(1, 2), (3, 2, 4, 5)])
def test_step_without_noise_is_half_a_step_down_the_gradient(shape: tuple[int, ...]) -> None:
    x, gradient = points(*shape), points(*shape, seed=1)
    kept = x.clone(), gradient.clone()
    found = sgld_step(x, gradient, 0.3, 0.0)
    torch.testing.assert_close(found, kept[0] - 0.15 * kept[1])
    assert torch.equal(x, kept[0])
    assert torch.equal(gradient, kept[1])


@pytest.mark.exercise("sgld.sgld_step")
@pytest.mark.parametrize(
    ("step_size", "noise", "deviation"),
    [(0.04, None, 0.2), (9.0, None, 3.0), (2.0, 0.01, 0.01), (0.04, 0.5, 0.5)],
)
def test_noise_of_a_step(step_size: float, noise: float | None, deviation: float) -> None:
    torch.manual_seed(0)
    x, gradient = points(200, 3, 50), points(200, 3, 50, seed=1)
    z = (sgld_step(x, gradient, step_size, noise) - x + step_size / 2 * gradient) / deviation
    assert z.mean().item() == pytest.approx(0, abs=0.03)
    assert z.std().item() == pytest.approx(1, abs=0.02)
    assert z.pow(4).mean().item() == pytest.approx(3, abs=0.25), "Gaussian, not uniform"
    flat = z.flatten(1)  # each number has a draw of its own
    assert (flat[::2] * flat[1::2]).mean().abs() < 0.05
    assert (flat[:, ::2] * flat[:, 1::2]).mean().abs() < 0.05
    again = sgld_step(x, gradient, step_size, noise)
    assert not torch.equal(again - x, z), "new noise every time"


@pytest.mark.exercise("sgld.sgld_step")
def test_chain_of_a_gaussian_has_the_variance_of_its_recursion() -> None:
    """E = x^2 / (2 s^2): x' = (1 - a / (2 s^2)) x + sqrt(a) z, whose variance is known."""
    torch.manual_seed(0)
    s, a = 0.7, 0.1
    x = torch.zeros(20_000, 1)
    for _ in range(60):
        x = sgld_step(x, x / s**2, a, None)
    kept = 1 - a / (2 * s**2)
    assert x.var().item() == pytest.approx(a / (1 - kept**2), rel=0.03)


@pytest.mark.exercise("sgld.sgld_step")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_step_keeps_the_dtype(dtype: torch.dtype) -> None:
    x = points(4, 3).to(dtype)
    assert sgld_step(x, x, 0.1, None).dtype == dtype


def test_temperature() -> None:
    assert sgld.temperature(2.0, 0.01) == pytest.approx(1 / 20_000)
    assert sgld.temperature(0.3, 0.3**0.5) == pytest.approx(1)
    assert sgld.temperature(0.3, None) == 1


class Watched(nn.Module):
    """E(x) = sum of w x^4 / 4 with a dropout beside it; notes what it was given and how."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.drop = nn.Dropout(0.5)
        self.calls: list[dict[str, object]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(
            {"x": x.detach().clone(), "leaf": x.is_leaf, "training": self.drop.training,
             "weights": self.w.requires_grad}
        )  # fmt: skip
        return (self.w * self.drop(x).pow(4) / 4).flatten(1).sum(dim=1)


@pytest.mark.exercise("sgld.sample")
@pytest.mark.parametrize("shape", [(1, 2), (3, 1, 2, 4)])
def test_chain_follows_the_gradient_at_the_newest_point(shape: tuple[int, ...]) -> None:
    energy, start = Watched(), points(*shape)
    kept = expected = start.clone()
    for _ in range(3):
        expected = expected - 0.2 / 2 * 0.5 * expected**3
    found = sample(energy, start, 3, 0.2, 0.0)
    torch.testing.assert_close(found, expected)
    assert torch.equal(start, kept)
    assert len(energy.calls) == 3
    torch.testing.assert_close(found[:1], sample(energy, start[:1], 3, 0.2, 0.0))


@pytest.mark.exercise("sgld.sample")
def test_model_inside_and_after_sampling() -> None:
    energy = Watched().train()
    energy.drop.eval()
    energy.w.grad = torch.ones((), dtype=torch.float64)
    sample(energy, points(2, 3), 2, 0.1, 0.1)
    assert all(not call["training"] and not call["weights"] for call in energy.calls)
    assert energy.training
    assert not energy.drop.training
    assert energy.w.requires_grad
    assert energy.w.grad.item() == 1, "the weights collect no gradient"
    energy.train()
    sample(energy, points(2, 3), 2, 0.1, 0.1)
    assert not energy.calls[-1]["training"]
    assert energy.drop.training


@pytest.mark.exercise("sgld.sample")
@pytest.mark.parametrize("steps", [0, 3])
def test_ends_are_connected_to_nothing(steps: int) -> None:
    energy, leaf = Watched(), points(2, 3).requires_grad_()
    found = sample(energy, 2 * leaf, steps, 0.1, 0.1)
    assert not found.requires_grad
    assert all(call["leaf"] for call in energy.calls), "each step begins a graph of its own"
    found = sample(energy, leaf, steps, 0.1, 0.1)
    assert not found.requires_grad
    assert leaf.requires_grad
    assert leaf.grad is None


@pytest.mark.exercise("sgld.sample")
def test_chain_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        found = sample(Watched(), points(2, 3), 2, 0.1, 0.0)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(found, sample(Watched(), points(2, 3), 2, 0.1, 0.0))


@pytest.mark.exercise("sgld.sample")
def test_chain_stays_inside_its_bound() -> None:
    energy = Watched()
    energy.w.data.fill_(-2.0)  # pushes outwards
    start = 3 * points(50, 2)
    found = sample(energy, start, 4, 0.5, 0.1, 1.5)
    assert found.abs().max() == 1.5
    assert all(bool((call["x"].abs() <= 1.5).all()) for call in energy.calls)  # type: ignore[attr-defined]
    torch.testing.assert_close(sample(energy, start, 0, 0.5, 0.1, 1.5), start.clamp(-1.5, 1.5))
    torch.testing.assert_close(sample(energy, start, 0, 0.5, 0.1), start)
    assert sample(energy, start, 1, 0.5, 0.1).abs().max() > 3


@pytest.mark.exercise("sgld.sample")
def test_chain_has_the_noise_that_was_asked_for() -> None:
    torch.manual_seed(0)
    energy = Watched()
    energy.w.data.fill_(0.0)
    moved = sample(energy, torch.zeros(4000, 2, dtype=torch.float64), 4, 0.09, None)
    assert moved.std().item() == pytest.approx(0.6, rel=0.05)
    moved = sample(energy, torch.zeros(4000, 2, dtype=torch.float64), 4, 0.09, 0.2)
    assert moved.std().item() == pytest.approx(0.4, rel=0.05)


def test_chains_of_two_gaussians_end_in_the_true_density() -> None:
    """Long enough chains of the ring's own energy have its density: a mean and a variance."""
    from ebm_jepa.densities import Ring

    class True_(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return -Ring().log_prob(x)

    torch.manual_seed(0)
    start = Ring().sample(2000, torch.Generator().manual_seed(1))
    moved = sample(True_(), start, 30, 0.01, None)
    radius = moved.norm(dim=1)
    assert radius.mean().item() == pytest.approx(start.norm(dim=1).mean().item(), abs=0.03)
    assert radius.std().item() == pytest.approx(0.3, abs=0.03)


def test_buffer_keeps_the_ends_and_restarts_some() -> None:
    torch.manual_seed(0)
    made: list[int] = []

    def start(n: int) -> Tensor:
        made.append(n)
        return torch.full((n, 2), float(len(made)))

    buffer = ReplayBuffer(6, 0.0, start)
    x, place = buffer.draw(4)
    assert made == [6]
    assert len(set(place.tolist())) == 4
    buffer.put(place, x + 10)
    assert (buffer.chains == 11).all(dim=1).sum() == 4
    assert (x == 1).all(), "a draw is a copy"
    anew = ReplayBuffer(400, 0.25, start)
    counts = [int((anew.draw(400)[0][:, 0] != anew.chains[0, 0]).sum()) for _ in range(20)]
    assert sum(counts) / 20 == pytest.approx(100, abs=12)
    assert ReplayBuffer(3, 1.0, start).draw(9)[0].shape == (3, 2)
    assert all(a != b for a, b in pairwise(made[1:])) or made


def test_buffer_state_comes_back() -> None:
    buffer, other = (ReplayBuffer(5, 0.5, lambda n: torch.randn(n, 3)) for _ in range(2))
    other.load_state_dict(buffer.state_dict())
    assert torch.equal(buffer.chains, other.chains)
    assert buffer.chains is not other.chains


def test_gaussian_start_has_each_class_mean_and_covariance() -> None:
    torch.manual_seed(0)
    root = torch.tensor([[1.0, 0.0], [0.8, 0.3]])
    y = torch.arange(600) % 2
    x = torch.randn(600, 2) @ root.T + 20.0 * y[:, None]
    start = sgld.gaussian_start(x.view(600, 1, 1, 2), y, 2)
    drawn = start(20_000)
    assert drawn.shape == (20_000, 1, 1, 2)
    flat = drawn.flatten(1)
    for c in (0, 1):
        part = flat[(flat[:, 0] > 10) == bool(c)]
        assert len(part) == pytest.approx(10_000, abs=300)
        torch.testing.assert_close(part.mean(0), x[y == c].mean(0), atol=0.05, rtol=0)
        torch.testing.assert_close(part.T.cov(), x[y == c].T.cov(), atol=0.05, rtol=0.05)
