"""Loss and backward pass against torch autograd and finite differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neural_networks import activations, gradcheck, losses, mlp

NAMES = ["W1", "b1", "W2", "b2"]
ACTIVATIONS = ["relu", "scaled_tanh"]


def network(dtype: type = np.float64, inputs: int = 7, hidden: int = 5, classes: int = 4):
    """Random parameters (biases too), a batch of six, its labels."""
    rng = np.random.default_rng(1)
    shapes = {"W1": (inputs, hidden), "b1": hidden, "W2": (hidden, classes), "b2": classes}
    params = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    return params, rng.standard_normal((6, inputs)).astype(dtype), rng.integers(classes, size=6)


def torch_forward(params: dict[str, torch.Tensor], x: torch.Tensor, activation: str):
    z = x @ params["W1"] + params["b1"]
    h = torch.relu(z) if activation == "relu" else 1.7159 * torch.tanh(2 / 3 * z)
    return h @ params["W2"] + params["b2"], h


# ---- the loss


@pytest.mark.exercise("losses.cross_entropy")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_and_its_gradient_are_torchs(smoothing: float):
    rng = np.random.default_rng(0)
    z, y = 3 * rng.standard_normal((8, 5)), rng.integers(5, size=8)
    loss, grad = losses.cross_entropy(z.copy(), y, smoothing)
    tz = torch.tensor(z, requires_grad=True)
    expected = F.cross_entropy(tz, torch.tensor(y), label_smoothing=smoothing)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(grad, tz.grad.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.exercise("losses.cross_entropy")
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_cross_entropy_of_huge_logits_is_finite(size: float):
    """exp(1e4) overflows, and exp(-1e4) makes the sum 0: without the max the loss is NaN."""
    z = np.array([[size, size + 5, size - 5], [0.0, size, 1.0]], dtype=np.float32)
    y = np.array([0, 2])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, grad = losses.cross_entropy(z, y)
    tz = torch.tensor(z, requires_grad=True)
    expected = F.cross_entropy(tz, torch.tensor(y))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(grad, tz.grad.numpy(), atol=1e-6)


@pytest.mark.exercise("losses.cross_entropy")
def test_cross_entropy_keeps_float32_and_its_arguments():
    z, y = np.ones((3, 4), np.float32), np.array([0, 1, 2])
    loss, grad = losses.cross_entropy(z, y, smoothing=0.1)
    assert isinstance(loss, float)
    assert loss == pytest.approx(np.log(4), rel=1e-6)  # all classes equally likely
    assert grad.dtype == np.float32
    assert grad.shape == z.shape
    assert (z == 1).all(), "the logits must not be changed"


# ---- forward


@pytest.mark.exercise("mlp.forward")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_is_torchs(activation: str):
    params, x, _ = network()
    before = x.copy()
    logits, hidden = mlp.forward(params, x, getattr(activations, activation))
    tp = {name: torch.tensor(w) for name, w in params.items()}
    expected_logits, expected_hidden = torch_forward(tp, torch.tensor(x), activation)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-12)
    np.testing.assert_allclose(hidden, expected_hidden, rtol=1e-12)
    np.testing.assert_array_equal(x, before)


@pytest.mark.exercise("mlp.forward")
def test_forward_keeps_float32():
    params, x, _ = network(np.float32)
    logits, hidden = mlp.forward(params, x)
    assert logits.dtype == hidden.dtype == np.float32


# ---- backward: given h and dL/dlogits, so that neither forward nor the loss need be right


def torch_gradients(params, x, direction, activation: str):
    """dL/dw for L = Σ logits · direction, whose dL/dlogits is `direction`; and h."""
    tp = {name: torch.tensor(w, requires_grad=True) for name, w in params.items()}
    logits, hidden = torch_forward(tp, torch.tensor(x), activation)
    (logits * torch.tensor(direction)).sum().backward()
    return {name: tp[name].grad.numpy() for name in NAMES}, hidden.detach().numpy()


@pytest.mark.exercise("mlp.backward")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_backward_is_torchs(activation: str):
    params, x, _ = network()
    direction = np.random.default_rng(2).standard_normal((6, 4))
    expected, hidden = torch_gradients(params, x, direction, activation)
    before = hidden.copy()
    grads = mlp.backward(params, x, hidden, direction.copy(), getattr(activations, activation))
    assert sorted(grads) == sorted(NAMES)
    for name in NAMES:
        assert grads[name].shape == params[name].shape
        np.testing.assert_allclose(grads[name], expected[name], rtol=1e-10, err_msg=name)
    np.testing.assert_array_equal(hidden, before)


@pytest.mark.exercise("mlp.backward")
def test_backward_keeps_float32_and_the_parameters():
    params, x, _ = network(np.float32)
    before = {name: w.copy() for name, w in params.items()}
    direction = np.ones((6, 4), np.float32)
    hidden = torch_gradients(params, x, direction, "relu")[1]
    grads = mlp.backward(params, x, hidden, direction)
    for name in NAMES:
        assert grads[name].dtype == np.float32
        np.testing.assert_array_equal(params[name], before[name])
        assert not np.shares_memory(grads[name], params[name])


# ---- the whole


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_of_the_whole_is_what_finite_differences_measure(activation, smoothing):
    params, x, y = network()
    f = getattr(activations, activation)

    def loss() -> float:
        return losses.cross_entropy(mlp.forward(params, x, f)[0], y, smoothing)[0]

    logits, hidden = mlp.forward(params, x, f)
    _, dlogits = losses.cross_entropy(logits, y, smoothing)
    grads = mlp.backward(params, x, hidden, dlogits, f)
    for name in NAMES:
        measured = gradcheck.numerical_gradient(loss, params[name])
        assert gradcheck.relative_error(grads[name], measured) < 1e-7, name


def test_scaled_tanh_is_lecuns():
    """f(1) = 1 and f(-1) = -1 (LeCun et al. 1998, Appendix A); slope by finite differences."""
    assert activations.scaled_tanh.apply(np.array([1.0, -1.0])) == pytest.approx([1, -1], abs=1e-4)
    z, eps = np.linspace(-3, 3, 13), 1e-6
    f = activations.scaled_tanh.apply
    slope = (f(z + eps) - f(z - eps)) / (2 * eps)
    backprop = activations.scaled_tanh.backprop(np.ones_like(z), f(z.copy()))
    np.testing.assert_allclose(backprop, slope, rtol=1e-8)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_init_keeps_the_size_of_the_signal(activation: str):
    """With the activation's gain, logits of standardised inputs have deviation near 1."""
    f = getattr(activations, activation)
    params = mlp.init(784, 512, 1000, seed=0, activation=f)
    x = np.random.default_rng(0).standard_normal((200, 784), dtype=np.float32)
    logits, _ = mlp.forward(params, x, f)
    assert logits.std() == pytest.approx(1.0, abs=0.25)
    assert all(w.dtype == np.float32 for w in params.values())
    again = mlp.init(784, 512, 1000, seed=0, activation=f)
    assert all((params[name] == again[name]).all() for name in NAMES)


# ---- measuring gradients


@pytest.mark.exercise("gradcheck.numerical_gradient")
def test_numerical_gradient_of_a_cubic_is_the_closed_form():
    """d/dw Σ a w³ = 3 a w²: central differences err by a ε² only, one-sided ones by 3 a w ε."""
    rng = np.random.default_rng(0)
    w, a = rng.standard_normal((3, 2)), rng.standard_normal((3, 2))
    before = w.copy()
    grad = gradcheck.numerical_gradient(lambda: float((a * w**3).sum()), w, eps=1e-4)
    np.testing.assert_allclose(grad, 3 * a * before**2, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(w, before)


@pytest.mark.exercise("gradcheck.numerical_gradient")
def test_numerical_gradient_sees_every_entry_apart():
    """The Hessian of a quadratic with cross terms: entries left displaced would show."""
    matrix = np.array([[2.0, 3.0], [3.0, -1.0]])
    w = np.array([0.5, -2.0])
    grad = gradcheck.numerical_gradient(lambda: float(w @ matrix @ w), w)
    np.testing.assert_allclose(grad, 2 * matrix @ [0.5, -2.0], atol=1e-8)
    assert grad.dtype == np.float64


@pytest.mark.exercise("gradcheck.numerical_gradient")
def test_numerical_gradient_refuses_float32():
    with pytest.raises(ValueError, match="float64"):
        gradcheck.numerical_gradient(lambda: 0.0, np.zeros(2, np.float32))


def test_relative_error():
    assert gradcheck.relative_error(np.zeros(2), np.zeros(2)) == 0
    assert gradcheck.relative_error(np.array([3.0, 4.0]), np.zeros(2)) == 1
    assert gradcheck.relative_error(np.ones(2), np.ones(2)) == 0
