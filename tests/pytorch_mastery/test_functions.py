"""Custom autograd functions: finite differences where they tell the truth, else the closed form."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pytorch_mastery import functions as f


def leaf(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=True)


def test_rounding_lets_the_gradient_through() -> None:
    x = leaf(-1.6, 0.4, 2.5)
    y = f.round_through(x)
    assert y.tolist() == [-2, 0, 2]
    (y * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 2, 3]


def test_a_quantised_weight_can_be_learned_only_straight_through() -> None:
    """round(w) has gradient 0; through the estimator, w reaches the integer that is best."""
    w = leaf(0.2)
    for _ in range(200):
        (grad,) = torch.autograd.grad((f.round_through(w) - 3.0).pow(2).sum(), w)
        w = (w - 0.05 * grad).detach().requires_grad_()
    assert w.detach().round().item() == 3
    (flat,) = torch.autograd.grad((torch.round(w) - 7).pow(2).sum(), w)
    assert flat.item() == 0


def test_sign_is_straight_through_inside_and_dead_outside() -> None:
    x = leaf(-2, -1, -0.5, 0, 0.5, 1, 2)
    y = f.sign_through(x)
    assert y.tolist() == [-1, -1, -1, 1, 1, 1, 1]
    (3 * y).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 3, 3, 3, 3, 3, 0]


def test_a_clipped_gradient() -> None:
    x = leaf(1, 2, 3)
    y = f.clip_gradient(x, 0.5)
    assert torch.equal(y, x)
    (y * torch.tensor([-9.0, 0.25, 9.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-0.5, 0.25, 0.5]
    with pytest.raises(ValueError, match="limit must be > 0, got 0"):
        f.clip_gradient(x, 0)


def test_a_reversed_gradient_climbs_below_and_descends_above() -> None:
    x, w = leaf(1, 2), leaf(3, 4)
    (f.reverse_gradient(x, 0.5) * w).sum().backward()
    assert x.grad is not None
    assert w.grad is not None
    assert x.grad.tolist() == [-1.5, -2]
    assert w.grad.tolist() == [1, 2]


def test_softplus_is_that_of_torch_and_can_be_differentiated_twice() -> None:
    x = leaf(-30, -3, -0.1, 0.2, 5, 30)
    torch.testing.assert_close(f.softplus(x), F.softplus(x, threshold=1e9))
    assert torch.autograd.gradcheck(f.softplus, (leaf(-3, -0.1, 0.2, 5),))
    assert torch.autograd.gradgradcheck(f.softplus, (leaf(-3, -0.1, 0.2, 5),))


@pytest.mark.parametrize("x", [-1e4, 1e4])
def test_softplus_does_not_overflow(x: float) -> None:
    a = leaf(x)
    y = f.softplus(a)
    y.backward()
    assert a.grad is not None
    assert (y.item(), a.grad.item()) == ((1e4, 1) if x > 0 else (0, 0))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_logsumexp_is_that_of_torch_and_can_be_differentiated_twice(dim: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(f.logsumexp(x, dim), torch.logsumexp(x, dim))
    assert torch.autograd.gradcheck(lambda v: f.logsumexp(v, dim), (x,))
    assert torch.autograd.gradgradcheck(lambda v: f.logsumexp(v, dim), (x,))


def test_logsumexp_of_large_and_of_impossible_numbers() -> None:
    x = torch.tensor([[1e4, 1e4], [-torch.inf, 2.0]], dtype=torch.float64, requires_grad=True)
    y = f.logsumexp(x)
    torch.testing.assert_close(y, torch.logsumexp(x, -1))
    y.sum().backward()
    assert x.grad is not None
    expected = torch.tensor([[0.5, 0.5], [0, 1]], dtype=torch.float64)
    torch.testing.assert_close(x.grad, expected)
    assert f.logsumexp(torch.full((2,), -torch.inf)).item() == -torch.inf
