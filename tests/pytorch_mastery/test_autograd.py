"""The autograd engine against torch's, on the same expressions, and against arithmetic."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pytorch_mastery import autograd
from pytorch_mastery.autograd import Tensor, Value


class Leaf(autograd.Node):
    """A node without arithmetic of its own, so that only the traversal is graded."""

    def __init__(self, *parents: autograd.Node, slopes: tuple[float, ...] = ()) -> None:
        self.grad, self.parents, self.pulls = 0.0, parents, 0
        self.slopes = slopes or (1.0,) * len(parents)

    def pull(self, g: float) -> tuple[float, ...]:
        self.pulls += 1
        return tuple(g * slope for slope in self.slopes)


@pytest.mark.exercise("autograd.backpropagate")
@pytest.mark.parametrize("flip", [False, True])
def test_a_node_pulls_once_when_all_its_uses_have_sent(flip: bool) -> None:
    """x feeds y; y feeds z and, by a shorter way, the root. Whatever the order of the parents."""
    x = Leaf()
    y = Leaf(x, slopes=(3.0,))
    z = Leaf(y, slopes=(5.0,))
    root = Leaf(*((y, z) if flip else (z, y)), slopes=(7.0, 11.0))
    autograd.backpropagate(root, 2.0)
    dz, dy = (11.0, 7.0) if flip else (7.0, 11.0)
    assert (root.grad, z.grad) == (2, 2 * dz)
    assert y.grad == 2 * (dz * 5 + dy)
    assert x.grad == 3 * y.grad
    assert [n.pulls for n in (root, z, y)] == [1, 1, 1]


@pytest.mark.exercise("autograd.backpropagate")
def test_an_operand_used_twice_by_one_operation_gets_both_parts() -> None:
    x = Leaf()
    autograd.backpropagate(Leaf(x, x, slopes=(3.0, 4.0)), 1.0)
    assert x.grad == 7


@pytest.mark.exercise("autograd.backpropagate")
def test_a_root_that_was_computed_from_nothing_gets_the_seed() -> None:
    x = Leaf()
    autograd.backpropagate(x, 3.0)
    assert (x.grad, x.pulls) == (3, 1)


@pytest.mark.exercise("autograd.backpropagate")
def test_gradients_accumulate_over_calls_and_old_ones_are_not_sent_on() -> None:
    x = Leaf()
    y = Leaf(x, slopes=(3.0,))
    for call in (1, 2, 3):
        autograd.backpropagate(y, 2.0)
        assert (y.grad, x.grad) == (2 * call, 6 * call)


@pytest.mark.exercise("autograd.backpropagate")
def test_deep_graphs_and_ladders() -> None:
    """5,000 operations in a row; and 60 in a row that each use their operand twice: 2^60 paths."""
    x = Leaf()
    node = x
    for _ in range(5000):
        node = Leaf(node)
    autograd.backpropagate(node, 1.0)
    assert x.grad == 1
    x = node = Leaf()
    for _ in range(60):
        node = Leaf(node, node)
    autograd.backpropagate(node, 1.0)
    assert x.grad == 2.0**60


@pytest.mark.exercise("autograd.backpropagate")
def test_arrays_sent_to_several_parents_are_not_changed() -> None:
    sent = np.ones(3)

    class Fork(Leaf):
        def pull(self, g: Any) -> tuple[Any, ...]:
            return sent, sent

    a, b = Leaf(), Leaf()
    autograd.backpropagate(Leaf(Fork(a, b), Fork(b, a)), np.zeros(3))
    assert sent.tolist() == [1, 1, 1]
    assert np.asarray(a.grad).tolist() == [2, 2, 2]
    seed = np.ones(3)
    root = Leaf(a, a)
    for _ in range(2):
        autograd.backpropagate(root, seed)
    assert seed.tolist() == [1, 1, 1]
    assert np.asarray(root.grad).tolist() == [2, 2, 2]
    assert np.asarray(a.grad).tolist() == [6, 6, 6]


SCALAR: dict[str, Callable[[Any, Any], Any]] = {
    "arithmetic": lambda a, b: 3 - a * b / (a + 2 * b) + (2 / b - a) * -a,
    "powers": lambda a, b: (a**3 + b**-2) * a**0.5,
    "functions": lambda a, b: (a * b).tanh() + (a - b).exp() + (a + b).log(),
    "relu": lambda a, b: (a - b).relu() * 3 + (b - a).relu() * 5,
    "shared": lambda a, b: (a * b + a) * (a * b + a) + (a * b + a).tanh(),
}


@pytest.mark.parametrize("name", SCALAR)
@pytest.mark.parametrize("seed", range(3))
def test_values_have_the_gradients_of_torch(name: str, seed: int) -> None:
    numbers = np.random.default_rng(seed).uniform(0.3, 2, 2)
    ours = [Value(x) for x in numbers]
    theirs = [torch.tensor(x, requires_grad=True) for x in numbers]
    y, expected = SCALAR[name](*ours), SCALAR[name](*theirs)
    y.backward()
    expected.backward()
    assert y.data == pytest.approx(expected.item(), rel=1e-12)
    for value, tensor in zip(ours, theirs, strict=True):
        assert tensor.grad is not None
        assert value.grad == pytest.approx(tensor.grad.item(), rel=1e-10)


@pytest.mark.parametrize("make", [Value, lambda x: Tensor([x, 1.0])])
def test_an_exponent_that_is_itself_a_node_is_refused(make: Callable[[float], Any]) -> None:
    with pytest.raises(ValueError, match="exponent must be a plain number"):
        make(2.0) ** make(3.0)


inf, nan = math.inf, math.nan

EDGES: dict[str, Callable[[Any], Any]] = {
    **{f"power {n}": lambda x, n=n: x**n for n in (0, 0.0, 1, 2, 3, -1, -2, 0.3, -0.3)},
    "log": lambda x: x.log(),
    "exp": lambda x: x.exp(),
    "tanh": lambda x: x.tanh(),
    "relu": lambda x: x.relu(),
    "root of relu": lambda x: x.relu() ** 0.5,  # an infinite gradient comes to where relu has 0
    "1 / x": lambda x: 1 / x,
    "x / 0": lambda x: x / 0.0,
    "x / x": lambda x: x / x,
    "times infinity": lambda x: x * inf,
    "times 0": lambda x: x * 0.0,
}
"""Operations where a derivative can meet 0 * inf, log 0 or a division by 0."""

NUMBERS = (0.0, 1.0, -2.0, 1e-200, 1e-310, 1e200, 1000.0, -1000.0, inf, -inf, nan)


@pytest.mark.parametrize("name", EDGES)
def test_arithmetic_at_its_edges_is_that_of_torch(name: str) -> None:
    """Both engines, without a warning, in values and gradients, NaN where torch has NaN."""
    for number in NUMBERS:
        x = torch.tensor(number, dtype=torch.float64, requires_grad=True)
        expected = EDGES[name](x)
        expected.backward()
        assert x.grad is not None
        for make in (Value, Tensor):
            ours = make(number)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                y = EDGES[name](ours)
                y.backward()
            for a, b in ((y.data, expected.item()), (ours.grad, x.grad.item())):
                assert float(a) == pytest.approx(b, rel=1e-12, abs=0, nan_ok=True), (number, make)


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([[0.0, -inf], [-inf, -inf], [1.0, 2.0]], "logsumexp"),
        ([[-inf, -inf], [-inf, -inf]], "logsumexp"),
        ([[inf, 1.0], [1000.0, 1000.0]], "logsumexp"),
        ([[inf, 1.0], [-inf, -inf]], "max"),
    ],
)
def test_reductions_of_infinities_are_those_of_torch(rows: list[list[float]], name: str) -> None:
    ours, theirs = Tensor(rows), torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    y = ours.logsumexp(1) if name == "logsumexp" else ours.max(1)
    y.backward(np.ones(len(rows)))
    expected = theirs.logsumexp(1) if name == "logsumexp" else theirs.amax(1)
    expected.sum().backward()
    assert theirs.grad is not None
    np.testing.assert_array_equal(y.data, expected.detach().numpy())
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-12)


def test_an_infinite_gradient_goes_to_the_maximum_alone() -> None:
    x = Tensor([4.0, 1.0, 4.0])
    ((x.max() - 4) ** 0.5).backward()
    assert x.grad.tolist() == [inf, 0, inf]


def test_the_mean_of_nothing_is_nan_as_in_torch() -> None:
    for axis in (None, 0, 1):
        ours = Tensor(np.zeros((0, 3))).mean(axis).data
        theirs = torch.zeros(0, 3).mean() if axis is None else torch.zeros(0, 3).mean(axis)
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_cross_entropy_with_a_class_that_is_impossible_is_torchs() -> None:
    rows, labels = [[-inf, 1.0, 2.0], [3e38, -3e38, 0.0]], [1, 0]
    ours, theirs = Tensor(rows), torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    loss = autograd.cross_entropy(ours, labels)
    loss.backward()
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels))
    expected.backward()
    assert theirs.grad is not None
    assert float(loss.data) == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.exercise("autograd.unbroadcast")
@pytest.mark.parametrize(
    ("shape", "to"),
    [
        ((3,), (2, 3)),
        ((), (4, 2)),
        ((2, 1), (5, 2, 3)),
        ((1, 3), (4, 3)),
        ((4, 1, 3), (4, 2, 3)),
        ((1, 1), (1, 1)),
        ((1,), (1, 1)),
        ((3, 3), (3, 3)),
        ((1, 2), (2, 1, 2)),
        ((), ()),
        ((3,), (3,)),
        ((2, 3), (4, 5, 2, 3)),
        ((0, 3), (2, 0, 3)),
        ((1, 0, 1), (1, 0, 4)),
    ],
)
def test_unbroadcast_is_the_gradient_of_expand(shape: tuple[int, ...], to: tuple[int, ...]) -> None:
    gradient = np.random.default_rng(0).normal(size=to)
    before = gradient.copy()
    x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    x.expand(to).backward(torch.tensor(gradient))
    assert x.grad is not None
    ours = autograd.unbroadcast(gradient, shape)
    assert ours.shape == shape
    np.testing.assert_allclose(ours, x.grad.numpy(), rtol=1e-12)
    assert (gradient == before).all()
    assert autograd.unbroadcast(gradient.astype(np.float32), shape).dtype == np.float32


def torch_axes(name: str) -> Callable[..., torch.Tensor]:
    """torch's reduction under NumPy's names for its arguments."""
    method = getattr(torch.Tensor, name)

    def call(x: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
        axis = tuple(range(x.ndim)) if axis is None else axis
        return method(x, dim=axis, keepdim=keepdims)

    return call


def reduce(name: str, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    if isinstance(x, Tensor):
        return getattr(x, name)(axis, keepdims=keepdims)
    return torch_axes({"max": "amax"}.get(name, name))(x, axis, keepdims)


def transpose(x: Any, *axes: int) -> Any:
    return x.transpose(*axes) if isinstance(x, Tensor) else x.permute(*axes)


PICKS = np.array([0, 2, 2, 1])

CASES: dict[str, tuple[tuple[tuple[int, ...], ...], Callable[..., Any]]] = {
    "add, broadcast": (((4, 1, 3), (2, 1)), lambda a, b: a + b + 1),
    "subtract": (((2, 3), (3,)), lambda a, b: 2 - a - b),
    "multiply, broadcast": (((2, 3), (1, 3)), lambda a, b: a * b * 3),
    "multiply by a scalar": (((2, 3), ()), lambda a, b: a * b),
    "divide, broadcast": (((2, 3), (4, 1, 1)), lambda a, b: a / b + 1 / a),
    "powers": (((2, 3),), lambda a: a**3 + a**0.5),
    "exp log tanh": (((2, 3),), lambda a: a.exp() * a.log() + a.tanh()),
    "relu": (((3, 4),), lambda a: (a - 1).relu()),
    "matmul": (((3, 4), (4, 2)), lambda a, b: a @ b),
    "matmul, batched": (((5, 3, 4), (5, 4, 2)), lambda a, b: a @ b),
    "matmul, one for all": (((5, 3, 4), (4, 2)), lambda a, b: a @ b),
    "matmul, broadcast batches": (((2, 1, 3, 4), (6, 4, 2)), lambda a, b: a @ b),
    "sum": (((2, 3, 4),), lambda a: a * reduce("sum", a)),
    "sum over an axis": (((2, 3, 4),), lambda a: reduce("sum", a * a, 1)),
    "sum over axes, kept": (((2, 3, 4),), lambda a: a / reduce("sum", a, (0, 2), True)),
    "sum over the last": (((2, 3),), lambda a: reduce("sum", a * a, -1)),
    "mean": (((2, 3, 4),), lambda a: a - reduce("mean", a * a, (0, 1), True)),
    "mean of all": (((2, 3),), lambda a: reduce("mean", a * a)),
    "max": (((3, 4),), lambda a: reduce("max", a, 1) * 2 + reduce("max", a)),
    "max, kept": (((3, 4),), lambda a: a - reduce("max", a, 0, True)),
    "reshape": (((2, 6),), lambda a: a.reshape(3, 4) @ a.reshape(4, 3)),
    "transpose": (((2, 3, 4),), lambda a: transpose(a, 1, -1, 0) * 2),
    "slice": (((4, 5),), lambda a: a[1:, ::2] * a[:3, :3]),
    "gather with repeats": (((3, 4),), lambda a: a[PICKS] * a[PICKS, PICKS].reshape(4, 1)),
    "logsumexp": (((3, 4),), lambda a: (a * 50).logsumexp(1)),
    "shared": (((3, 3),), lambda a: (a @ a + a) * (a @ a + a).tanh()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(2))
def test_tensors_have_the_gradients_of_torch(name: str, seed: int) -> None:
    shapes, function = CASES[name]
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(0.3, 2, shape) for shape in shapes]
    ours = [Tensor(x) for x in arrays]
    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    y, expected = function(*ours), function(*theirs)
    np.testing.assert_allclose(y.data, expected.detach().numpy(), rtol=1e-12)
    sent = rng.normal(size=y.shape)
    y.backward(sent)
    expected.backward(torch.tensor(sent))
    for a, b in zip(ours, theirs, strict=True):
        assert b.grad is not None
        assert a.grad.shape == a.shape
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_random_shapes_that_broadcast(seed: int) -> None:
    rng = np.random.default_rng(seed)
    full = rng.integers(1, 5, size=rng.integers(1, 5))
    shapes = [
        tuple(int(n) if rng.random() < 0.6 else 1 for n in full)[int(rng.integers(len(full))) :]
        for _ in range(2)
    ]
    arrays = [rng.uniform(0.5, 2, shape) for shape in shapes]
    ours = [Tensor(x) for x in arrays]
    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    (ours[0] * ours[1] - ours[0] / ours[1]).sum().backward()
    (theirs[0] * theirs[1] - theirs[0] / theirs[1]).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        assert b.grad is not None
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-10)


def test_tied_maxima_share_as_in_torch_amax() -> None:
    x = [[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]
    ours, theirs = Tensor(x), torch.tensor(x, dtype=torch.float64, requires_grad=True)
    ours.max(1).sum().backward()
    theirs.amax(1).sum().backward()
    assert theirs.grad is not None
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy())


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_cross_entropy_of_a_network_as_torch(scale: float) -> None:
    """Two layers with a shared bias; logits in the thousands must not overflow."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) * scale for s in ((6, 5), (5, 4), (4,))]
    labels = rng.integers(4, size=6)
    x, w, b = (Tensor(a) for a in arrays)
    loss = autograd.cross_entropy((x @ w + b).relu() + b, labels)
    loss.backward()
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in arrays)
    expected = torch.nn.functional.cross_entropy((tx @ tw + tb).relu() + tb, torch.tensor(labels))
    expected.backward()
    assert float(loss.data) == pytest.approx(expected.item(), rel=1e-12)
    for a, t in ((x, tx), (w, tw), (b, tb)):
        assert t.grad is not None
        np.testing.assert_allclose(a.grad, t.grad.numpy(), rtol=1e-8, atol=1e-12 * scale)


def test_an_array_on_the_left_keeps_the_graph() -> None:
    x = Tensor([1.0, 2.0])
    y = np.array([3.0, 4.0]) * x + np.array([1.0, 1.0])
    y.sum().backward()
    assert x.grad.tolist() == [3, 4]


def test_backward_of_a_non_scalar_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\); take \.sum\(\) or \.mean\(\) first"):
        Tensor(np.ones((2, 3))).backward()
    with pytest.raises(ValueError, match=r"gradient has shape \(3,\)"):
        Tensor(np.ones((2, 3))).backward(np.ones(3))


def test_shapes_that_do_not_fit_are_named() -> None:
    a, b = Tensor(np.ones((2, 3))), Tensor(np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"\+: shapes \(2, 3\) and \(4, 2\) do not broadcast"):
        a + b
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(4, 2\)"):
        a @ b
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(3,\)"):
        a @ np.ones(3)
    with pytest.raises(ValueError, match=r"leading axes.*\(2,\) and \(3,\)"):
        Tensor(np.ones((2, 3, 3))) @ Tensor(np.ones((3, 3, 3)))
    with pytest.raises(ValueError, match=r"logits \(N, K\) and labels \(N,\)"):
        autograd.cross_entropy(a, [0, 1, 2])
