"""BatchNorm by hand against torch.nn's, in values, gradients and buffers."""

import pytest
import torch
from torch import Tensor, nn

from pytorch_mastery import BatchNorm, batch_norm

SHAPES = [(8, 3), (5, 3, 7), (4, 3, 5, 6), (2, 3)]


def pair(x: Tensor) -> tuple[BatchNorm, nn.Module]:
    """Ours and torch's, with the same weights, in float64."""
    torch.manual_seed(1)
    theirs = (nn.BatchNorm2d if x.ndim == 4 else nn.BatchNorm1d)(x.shape[1], momentum=0.3)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours = BatchNorm(x.shape[1], momentum=0.3)
    ours.load_state_dict(theirs.state_dict())
    return ours.double(), theirs.double()


@pytest.mark.parametrize("shape", SHAPES)
def test_values_gradients_and_buffers_are_those_of_torch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours, theirs = pair(torch.empty(shape))
    for step in range(3):
        x = torch.randn(shape, dtype=torch.float64) * (step + 1) + 5
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, expected = ours(a), theirs(b)
        grad = torch.randn_like(y)
        y.backward(grad)
        expected.backward(grad)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(a.grad, b.grad)
    for name, p in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, p.grad)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_eval_mode_is_differentiable_and_changes_nothing() -> None:
    x = torch.randn(1, 3, dtype=torch.float64)
    ours, theirs = pair(x)
    ours.eval()
    theirs.eval()
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours(a).sum().backward()
    theirs(b).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    assert all(torch.equal(before[k], v) for k, v in ours.state_dict().items())


def test_gradcheck() -> None:
    """Finite differences; mean and variance are recomputed inside, so that they move with x."""
    torch.manual_seed(0)

    def normalise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        var, mean = torch.var_mean(x.detach(), (0, 2), correction=0)
        y: Tensor = batch_norm.BatchNormFunction.apply(x, weight, bias, mean, var, 1e-5)
        return y

    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((4, 2, 3), 2, 2)]
    assert torch.autograd.gradcheck(normalise, inputs)


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    x = torch.randn(4, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(BatchNorm(2)(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_bad_inputs_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 3, \.\.\.\), got \(4, 2\)"):
        BatchNorm(3)(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="more than one number"):
        BatchNorm(3)(torch.zeros(1, 3))


@pytest.mark.exercise("batch_norm.backward")
@pytest.mark.parametrize("shape", [*SHAPES, (1, 3, 7), (6, 1)])
def test_backward_is_what_autograd_derives(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = (3 * torch.randn(shape, dtype=torch.float64) + 1).requires_grad_()
    weight = torch.randn(shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.randn(shape[1], dtype=torch.float64, requires_grad=True)
    y = nn.functional.batch_norm(x, None, None, weight, bias, training=True, eps=0.1)
    grad = torch.randn_like(y)
    expected = torch.autograd.grad(y, (x, weight, bias), grad)

    axes = [i for i in range(x.ndim) if i != 1]
    var, mean = torch.var_mean(x.detach(), axes, correction=0, keepdim=True)
    std = (var + 0.1).sqrt()
    given = (grad, (x.detach() - mean) / std, std.flatten(), weight.detach())
    before = [v.clone() for v in given]
    got = batch_norm.backward(*given)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert all(map(torch.equal, given, before)), "the arguments are left alone"
    for ours, theirs in zip(batch_norm.backward(*(v.float() for v in given)), got, strict=True):
        torch.testing.assert_close(ours, theirs.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.exercise("batch_norm.backward")
def test_a_channel_far_from_0_does_not_cancel() -> None:
    """xhat is given, so nothing is computed from x: a huge gradient keeps its digits."""
    xhat = torch.tensor([[1.0], [-1.0]])
    grad = torch.tensor([[1e6 + 1], [1e6 - 1]])
    dx, dweight, dbias = batch_norm.backward(grad, xhat, torch.ones(1), torch.ones(1))
    assert dx.flatten().tolist() == [0, 0]  # of two numbers, x - mean is +-std whatever x is
    assert (dweight.tolist(), dbias.tolist()) == ([2], [2e6])


@pytest.mark.exercise("batch_norm.update_running")
@pytest.mark.parametrize("momentum", [0.1, 0.7, 1.0, 0.0])
def test_running_statistics_move_as_those_of_torch(momentum: float) -> None:
    torch.manual_seed(0)
    theirs = nn.BatchNorm1d(3, momentum=momentum).double()
    mean = torch.zeros(3, dtype=torch.float64)
    var = torch.ones(3, dtype=torch.float64)
    for _ in range(3):
        x = torch.randn(5, 3, dtype=torch.float64) * 4 + 2
        theirs(x)
        new = x.mean(0), x.var(0, correction=0)
        batch_norm.update_running(mean, var, new[0], new[1], 5, momentum)
        torch.testing.assert_close(mean, theirs.running_mean)
        torch.testing.assert_close(var, theirs.running_var)
        assert torch.equal(new[0], x.mean(0)), "the batch's statistics are left alone"
        assert torch.equal(new[1], x.var(0, correction=0)), "the batch's statistics are left alone"


@pytest.mark.exercise("batch_norm.update_running")
def test_running_statistics_of_two_numbers_by_hand() -> None:
    """n counts positions too, so it is no length of an argument: of 2 numbers, 2 times as much."""
    running = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 5.0])
    given = torch.tensor([3.0, 2.0, -1.0]), torch.tensor([2.0, 0.0, 1.0])
    batch_norm.update_running(*running, *given, 2, 0.25)
    assert running[0].tolist() == [1.5, 2.0, 2.0]
    assert running[1].tolist() == [1.75, 0.75, 4.25]
