"""The backward passes by hand, beside autograd's through PyTorch's own functions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pretraining.kernels import ROWS, fast_attention, gelu, relu_squared, rms_norm


def both(f: object, g: object, *inputs: Tensor) -> None:
    """Values and all gradients of f and g agree."""
    results = []
    for function in (f, g):
        leaves = [x.clone().requires_grad_() for x in inputs]
        y = function(*leaves)  # type: ignore[operator]
        weight = torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype)
        gradients = torch.autograd.grad((y * weight).sum(), leaves)
        results.append([y, *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 7, ROWS, ROWS + 1, 2 * ROWS + 40])
def test_attention_is_pytorchs_with_its_gradients(length: int, causal: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 8) for _ in range(3))
    both(
        lambda *x: fast_attention(*x, causal=causal),
        lambda *x: F.scaled_dot_product_attention(*x, is_causal=causal),
        q, k, v,
    )  # fmt: skip


def test_attention_in_bf16_is_near_that_in_fp32() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 150, 16) for _ in range(3))
    exact = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    rough = fast_attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.05


def test_dropout_drops_weights() -> None:
    q = torch.randn(1, 1, 64, 8)
    assert not torch.equal(fast_attention(q, q, q, dropout=0.5), fast_attention(q, q, q))


@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
def test_rms_norm_is_pytorchs_with_its_gradient(size: float) -> None:
    torch.manual_seed(0)
    x = size * torch.randn(3, 5, 12)
    both(lambda x: rms_norm(x, 1e-6), lambda x: F.rms_norm(x, (12,), eps=1e-6), x)


def test_rms_norm_of_zeros_is_zero() -> None:
    assert torch.equal(rms_norm(torch.zeros(2, 4), 1e-6), torch.zeros(2, 4))


def test_rms_norm_answers_in_the_type_of_autocast() -> None:
    x = torch.randn(2, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = rms_norm(x, 1e-6)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("autocast", [False, True])
def test_writing_without_gradients_computes_what_training_does(autocast: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6, 16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for kernel in (lambda x: rms_norm(x, 1e-6), relu_squared):
            trained = kernel(x)
            with torch.no_grad():
                written = kernel(x)
            assert written.dtype == trained.dtype
            torch.testing.assert_close(written, trained)


def test_squared_relu_is_pytorchs_with_its_gradient() -> None:
    torch.manual_seed(0)
    both(relu_squared, lambda x: F.relu(x).square(), torch.randn(4, 9))


@pytest.mark.parametrize("size", [0.1, 1.0, 20.0])
def test_gelu_is_pytorchs_with_its_gradient(size: float) -> None:
    torch.manual_seed(0)
    both(gelu, lambda x: F.gelu(x, approximate="tanh"), size * torch.randn(4, 50))
    assert torch.equal(gelu(torch.tensor([-1e4, 0.0, 1e4])), torch.tensor([0.0, 0.0, 1e4]))


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(fast_attention, (q, k, v))
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(relu_squared, (x,))
    assert torch.autograd.gradcheck(gelu, (x,))
