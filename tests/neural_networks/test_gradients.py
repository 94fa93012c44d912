"""Loss and backward pass against torch autograd and finite differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neural_networks import activations, gradcheck, losses, model

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


@pytest.mark.exercise("losses.cross_entropy")
@pytest.mark.parametrize("shape", [(1, 4), (5, 1), (1, 1), (3, 2)])
@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("integers", [np.int64, np.uint8])
def test_cross_entropy_of_one_row_and_one_class(
    shape: tuple[int, int], smoothing: float, integers: type
):
    rng = np.random.default_rng(5)
    z, y = rng.standard_normal(shape), rng.integers(shape[1], size=shape[0]).astype(integers)
    kept = y.copy()
    loss, grad = losses.cross_entropy(z, y, smoothing)
    tz = torch.tensor(z, requires_grad=True)
    expected = F.cross_entropy(tz, torch.tensor(y.astype(int)), label_smoothing=smoothing)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12, abs=1e-15)
    np.testing.assert_allclose(grad, tz.grad.numpy(), rtol=1e-10, atol=1e-14)
    np.testing.assert_array_equal(y, kept)
    if smoothing == 0:
        assert losses.cross_entropy(z, y)[0] == loss, "there is no smoothing by default"


@pytest.mark.exercise("losses.cross_entropy")
@pytest.mark.parametrize(
    ("dtype", "digits"), [(np.float16, 1e-2), (np.float32, 1e-5), (np.float64, 1e-12)]
)
def test_cross_entropy_computes_in_the_dtype_of_the_logits(dtype: type, digits: float):
    z, y = np.array([[1.0, 2, 4], [0, -1, 5], [3, 3, 3]], dtype), np.array([0, 2, 1])
    loss, grad = losses.cross_entropy(z, y, 0.2)
    exact, exact_grad = (each for each in torch_cross_entropy(z.astype(float), y, 0.2))
    assert loss == pytest.approx(exact, rel=digits)
    assert grad.dtype == dtype
    np.testing.assert_allclose(grad, exact_grad, atol=digits)


def torch_cross_entropy(z: np.ndarray, y: np.ndarray, smoothing: float):
    tz = torch.tensor(z, requires_grad=True)
    loss = F.cross_entropy(tz, torch.tensor(y), label_smoothing=smoothing)
    loss.backward()
    return loss.item(), tz.grad.numpy()


@pytest.mark.exercise("losses.cross_entropy")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 3e38), (np.float64, 1.7e308)])
@pytest.mark.parametrize("smoothing", [0.0, 0.5, 1.0])
def test_cross_entropy_of_the_largest_logits_is_never_nan(
    dtype: type, most: float, smoothing: float
):
    """Their difference is beyond the dtype: log p is -∞, and 0 · ∞ must not become NaN."""
    z = np.array([[most, -most]], dtype)
    for label in (0, 1):
        loss, grad = losses.cross_entropy(z, np.array([label]), smoothing)
        q = (1 - smoothing) * np.eye(2)[label] + smoothing / 2
        np.testing.assert_allclose(grad, [np.array([1, 0]) - q], atol=1e-7)
        assert loss == 0 if q[1] == 0 else loss >= q[1] * most


# ---- forward


@pytest.mark.exercise("model.forward")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_is_torchs(activation: str):
    params, x, _ = network()
    before = x.copy()
    logits, hidden = model.forward(params, x, getattr(activations, activation))
    tp = {name: torch.tensor(w) for name, w in params.items()}
    expected_logits, expected_hidden = torch_forward(tp, torch.tensor(x), activation)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-12)
    np.testing.assert_allclose(hidden, expected_hidden, rtol=1e-12)
    np.testing.assert_array_equal(x, before)


@pytest.mark.exercise("model.forward")
def test_forward_keeps_float32_and_its_arguments():
    params, x, _ = network(np.float32)
    before = {name: w.copy() for name, w in params.items()}
    logits, hidden = model.forward(params, x)
    assert logits.dtype == hidden.dtype == np.float32
    for name, w in before.items():
        np.testing.assert_array_equal(params[name], w)


def squared(power: int) -> activations.Activation:
    """z to a power, which is no activation of the week's: f must be called, and not written out."""

    def apply(z: np.ndarray) -> np.ndarray:
        z **= power
        return z

    def backprop(grad: np.ndarray, a: np.ndarray) -> np.ndarray:
        grad *= power * a ** ((power - 1) / power)  # z = a^(1/power), of positive z
        return grad

    return activations.Activation(apply, backprop, gain=1.0)


@pytest.mark.exercise("model.forward")
@pytest.mark.parametrize(
    ("rows", "hidden", "classes"), [(1, 5, 4), (3, 1, 4), (3, 5, 1), (1, 1, 1)]
)
def test_forward_of_one_row_one_unit_and_one_class(rows: int, hidden: int, classes: int):
    """By a loop over the units; every axis stays."""
    params, x, _ = network(hidden=hidden, classes=classes)
    x = x[:rows]
    logits, h = model.forward(params, x, squared(3))
    assert (logits.shape, h.shape) == ((rows, classes), (rows, hidden))
    for n in range(rows):
        for j in range(hidden):
            z = sum(x[n, i] * params["W1"][i, j] for i in range(7)) + params["b1"][j]
            assert h[n, j] == pytest.approx(z**3, rel=1e-10)
        for k in range(classes):
            out = sum(h[n, j] * params["W2"][j, k] for j in range(hidden)) + params["b2"][k]
            assert logits[n, k] == pytest.approx(out, rel=1e-10)


@pytest.mark.exercise("model.forward")
def test_forward_of_no_rows_and_its_default_activation():
    params, x, _ = network()
    logits, hidden = model.forward(params, x[:0])
    assert (logits.shape, hidden.shape) == ((0, 4), (0, 5))
    tp = {name: torch.tensor(w) for name, w in params.items()}
    for ours, theirs in zip(
        model.forward(params, x), torch_forward(tp, torch.tensor(x), "relu"), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


# ---- backward: given h and dL/dlogits, so that neither forward nor the loss need be right


def torch_gradients(params, x, direction, activation: str):
    """dL/dw for L = Σ logits · direction, whose dL/dlogits is `direction`; and h."""
    tp = {name: torch.tensor(w, requires_grad=True) for name, w in params.items()}
    logits, hidden = torch_forward(tp, torch.tensor(x), activation)
    (logits * torch.tensor(direction)).sum().backward()
    return {name: tp[name].grad.numpy() for name in NAMES}, hidden.detach().numpy()


@pytest.mark.exercise("model.backward")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_backward_is_torchs(activation: str):
    params, x, _ = network()
    direction = np.random.default_rng(2).standard_normal((6, 4))
    expected, hidden = torch_gradients(params, x, direction, activation)
    arguments = x, hidden, direction
    before = [each.copy() for each in arguments]
    grads = model.backward(params, *arguments, getattr(activations, activation))
    assert sorted(grads) == sorted(NAMES)
    for name in NAMES:
        assert grads[name].shape == params[name].shape
        np.testing.assert_allclose(grads[name], expected[name], rtol=1e-10, err_msg=name)
    for now, kept in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(now, kept)
    if activation == "relu":
        by_default = model.backward(params, *arguments)
        assert all((by_default[name] == grads[name]).all() for name in NAMES)


@pytest.mark.exercise("model.backward")
@pytest.mark.parametrize(
    ("rows", "hidden", "classes"), [(1, 5, 4), (3, 1, 4), (3, 5, 1), (1, 1, 1)]
)
def test_backward_of_one_row_one_unit_and_one_class(rows: int, hidden: int, classes: int):
    """With an activation that is none of the week's: h = z³ of positive z, by autograd."""
    params, x, _ = network(hidden=hidden, classes=classes)
    x = np.abs(x[:rows])
    params = {name: np.abs(w) for name, w in params.items()}
    direction = np.random.default_rng(2).standard_normal((rows, classes))
    tp = {name: torch.tensor(w, requires_grad=True) for name, w in params.items()}
    h = (torch.tensor(x) @ tp["W1"] + tp["b1"]) ** 3
    ((h @ tp["W2"] + tp["b2"]) * torch.tensor(direction)).sum().backward()
    grads = model.backward(params, x, h.detach().numpy(), direction, squared(3))
    for name in NAMES:
        assert grads[name].shape == params[name].shape
        np.testing.assert_allclose(grads[name], tp[name].grad, rtol=1e-8, err_msg=name)


@pytest.mark.exercise("model.backward")
def test_backward_keeps_float32_and_the_parameters():
    params, x, _ = network(np.float32)
    before = {name: w.copy() for name, w in params.items()}
    direction = np.ones((6, 4), np.float32)
    hidden = torch_gradients(params, x, direction, "relu")[1]
    grads = model.backward(params, x, hidden, direction)
    assert (direction == 1).all()
    for name in NAMES:
        assert grads[name].dtype == np.float32
        assert not np.shares_memory(grads[name], direction)
        np.testing.assert_array_equal(params[name], before[name])
        assert not np.shares_memory(grads[name], params[name])


# ---- the whole


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_of_the_whole_is_what_finite_differences_measure(activation, smoothing):
    params, x, y = network()
    f = getattr(activations, activation)

    def loss() -> float:
        return losses.cross_entropy(model.forward(params, x, f)[0], y, smoothing)[0]

    logits, hidden = model.forward(params, x, f)
    _, dlogits = losses.cross_entropy(logits, y, smoothing)
    grads = model.backward(params, x, hidden, dlogits, f)
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
    params = model.init(784, 512, 1000, seed=0, activation=f)
    x = np.random.default_rng(0).standard_normal((200, 784), dtype=np.float32)
    logits, _ = model.forward(params, x, f)
    assert logits.std() == pytest.approx(1.0, abs=0.25)
    assert all(w.dtype == np.float32 for w in params.values())
    again = model.init(784, 512, 1000, seed=0, activation=f)
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
def test_numerical_gradient_takes_the_step_it_is_given():
    """Of w³ at 2 with ε = 1: (27 - 1)/2 is 13, and not the derivative; and 1e-6 by default."""
    w = np.array([2.0])
    measured = gradcheck.numerical_gradient(lambda: float(w[0] ** 3), w, eps=1.0)
    np.testing.assert_allclose(measured, [13.0], rtol=1e-15)
    seen = []
    gradcheck.numerical_gradient(lambda: seen.append(w[0]) or 0.0, w)
    np.testing.assert_allclose(sorted(set(seen) - {2.0}), [2 - 1e-6, 2 + 1e-6], rtol=0, atol=1e-12)


@pytest.mark.exercise("gradcheck.numerical_gradient")
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3, 2), (1, 1, 4)])
@pytest.mark.parametrize("reversed_axes", [False, True])
def test_numerical_gradient_of_any_shape_moves_one_entry_at_a_time(
    shape: tuple[int, ...], reversed_axes: bool
):
    """Of Σ a w, as exact as ε = 1/4 is; a view with its axes reversed is moved in place too."""
    rng = np.random.default_rng(4)
    w = rng.standard_normal(shape[::-1]).T if reversed_axes else rng.standard_normal(shape)
    a, before = rng.standard_normal(shape), w.copy()
    moved = []

    def loss() -> float:
        moved.append(int((w != before).sum()))
        return float((a * w).sum())

    grad = gradcheck.numerical_gradient(loss, w, eps=0.25)
    assert grad.shape == shape
    assert grad.dtype == np.float64
    np.testing.assert_allclose(grad, a, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(w, before)
    assert not np.shares_memory(grad, w)
    assert max(moved, default=0) <= 1


@pytest.mark.exercise("gradcheck.numerical_gradient")
def test_numerical_gradient_puts_every_bit_back():
    """Adding ε again leaves rounding errors: of 1e-20, far below ε, nothing is left."""
    w = np.append(np.random.default_rng(0).standard_normal(100), [1e-20, 1e9, 0.0])
    before = w.copy()
    gradcheck.numerical_gradient(lambda: float((w**2).sum()), w)
    np.testing.assert_array_equal(w, before)


@pytest.mark.exercise("gradcheck.numerical_gradient")
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.complex128])
def test_numerical_gradient_refuses_other_dtypes(dtype: type):
    with pytest.raises(ValueError):
        gradcheck.numerical_gradient(lambda: 0.0, np.zeros(2, dtype))


def test_the_refusal_says_what_to_type():
    with pytest.raises(ValueError, match=r"need float64, got float32: use w\.astype\(float\)"):
        gradcheck.numerical_gradient(lambda: 0.0, np.zeros(2, np.float32))


def test_relative_error():
    assert gradcheck.relative_error(np.zeros(2), np.zeros(2)) == 0
    assert gradcheck.relative_error(np.array([3.0, 4.0]), np.zeros(2)) == 1
    assert gradcheck.relative_error(np.ones(2), np.ones(2)) == 0
    assert gradcheck.relative_error(np.zeros(0), np.zeros(0)) == 0
    assert np.isnan(gradcheck.relative_error(np.array([np.nan]), np.ones(1)))


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(np.float32, 1e-25), (np.float32, 1e25), (np.float64, 1e-200), (np.float64, 1e200)],
)
def test_relative_error_of_numbers_whose_squares_overflow_or_vanish(dtype: type, size: float):
    """Vanished, any two gradients seemed equal."""
    a, b = np.array([3.0, 4.0], dtype) * dtype(size), np.array([3.0, 1.0], dtype) * dtype(size)
    assert gradcheck.relative_error(a, b) == pytest.approx(3 / (5 + 10**0.5), rel=1e-6)
