"""Reverse-mode automatic differentiation, as behind `loss.backward()`, in two versions.

`Value` is one number that stores what it was computed from (the idea of Karpathy's micrograd);
`Tensor` is the same on NumPy arrays, where broadcasting is the only new difficulty. Both are nodes
of a graph: a node was computed from its `parents`, and `pull` maps dL/d(node) to dL/d(parent) for
every parent, which is the chain rule for one operation. `backpropagate` does the rest.

    x = Tensor(np.ones((2, 3)))
    (x * x).sum().backward()
    x.grad  # 2 x

Arithmetic follows IEEE 754, as in PyTorch: 1 / 0 is infinite, log(-1) is NaN, and nothing is
raised. A derivative that is known to be 0 stays 0, even where its factor is infinite.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit import exercise

Axis = int | tuple[int, ...] | None
Pull = Callable[[Any], tuple[Any, ...]]


class Node:
    """Base of both: a value, its gradient, and the nodes that the value was computed from."""

    data: Any
    grad: Any
    parents: "tuple[Node, ...]"
    pull: Pull


@exercise(minutes=30)
def backpropagate(root: Node, seed: Any) -> None:
    """Add dL/d(node) to `grad` of `root` and of every node that it was computed from.

    `seed` is dL/d(root). For any node, `node.pull(dL/d(node))` gives one gradient for each of
    `node.parents`. A node that is used more than once (also twice by the same operation, x * x)
    receives the sum of what its uses send back, and may pull only when all of them have sent:
    visit the graph in reverse topological order, each node once.

    `grad` accumulates over calls, as in PyTorch: a call adds to what an earlier call left there,
    but does not propagate it again. Graphs may be thousands of operations deep, deeper than Python
    recurses; gradients are never changed in place, since one array may be sent to several parents.
    """
    order: list[Node] = []  # parents before children
    seen: set[Node] = set()
    stack = [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents)
    arrived = {root: seed}
    for node in reversed(order):
        gradient = arrived.pop(node)
        node.grad = node.grad + gradient
        for parent, part in zip(node.parents, node.pull(gradient), strict=True):
            arrived[parent] = arrived[parent] + part if parent in arrived else part


silent = np.errstate(all="ignore")
"""For operations that may meet an infinity: NumPy warns of it, PyTorch does not."""


@silent
def ieee(function: Callable[..., Any], *numbers: float) -> float:
    """`function` of NumPy on numbers; Python's own arithmetic raises for 1 / 0 and exp(1000)."""
    return float(function(*map(np.float64, numbers)))


class Value(Node):
    """A scalar that records its operations, so that gradients can be computed."""

    data: float
    grad: float

    def __init__(
        self, data: float, parents: "tuple[Value, ...]" = (), pull: Pull = lambda g: ()
    ) -> None:
        self.data, self.grad, self.parents, self.pull = float(data), 0.0, parents, pull

    def __repr__(self) -> str:
        return f"Value({self.data:.6g}, grad={self.grad:.6g})"

    def backward(self) -> None:
        """Add d(self)/d(node) to the `grad` of every node below."""
        backpropagate(self, 1.0)

    def __add__(self, other: "Value | float") -> "Value":
        other = as_value(other)
        return Value(self.data + other.data, (self, other), lambda g: (g, g))

    def __mul__(self, other: "Value | float") -> "Value":
        a, b = self, as_value(other)
        return Value(a.data * b.data, (a, b), lambda g: (g * b.data, g * a.data))

    def __pow__(self, n: float) -> "Value":
        """self to a constant power."""
        if isinstance(n, Value):
            raise ValueError("the exponent must be a plain number; write (b.log() * n).exp()")
        return Value(
            ieee(np.power, self.data, n),
            (self,),
            lambda g: (g * (n * ieee(np.power, self.data, n - 1) if n else 0.0),),  # 0 * inf at 0
        )

    def exp(self) -> "Value":
        y = ieee(np.exp, self.data)
        return Value(y, (self,), lambda g: (g * y,))

    def log(self) -> "Value":
        y = ieee(np.log, self.data)
        return Value(y, (self,), lambda g: (ieee(np.divide, g, self.data),))

    def tanh(self) -> "Value":
        y = math.tanh(self.data)
        return Value(y, (self,), lambda g: (g * (1 - y * y),))

    def relu(self) -> "Value":
        # `0.0 if ...`: the gradient may be infinite, and 0 * inf would be NaN
        return Value(max(self.data, 0.0), (self,), lambda g: (0.0 if self.data <= 0 else g,))

    def __neg__(self) -> "Value":
        return self * -1.0

    def __sub__(self, other: "Value | float") -> "Value":
        return self + -as_value(other)

    def __truediv__(self, other: "Value | float") -> "Value":
        # Not self * other ** -1: that overflows where the quotient does not
        a, b = self, as_value(other)
        y = ieee(np.divide, a.data, b.data)
        return Value(
            y, (a, b), lambda g: (ieee(np.divide, g, b.data), ieee(np.divide, -g * y, b.data))
        )

    def __rsub__(self, other: float) -> "Value":
        return as_value(other) - self

    def __rtruediv__(self, other: float) -> "Value":
        return as_value(other) / self

    __radd__, __rmul__ = __add__, __mul__


def as_value(x: Value | float) -> Value:
    """`x` itself, or a constant."""
    return x if isinstance(x, Value) else Value(x)


@exercise(minutes=15)
def unbroadcast(gradient: NDArray, shape: tuple[int, ...]) -> NDArray:
    """The gradient of an operand of this shape, given that of the array it was broadcast to.

    Broadcasting copies a number to many places, so its gradient is the sum over those places:
    over axes that were added in front, and over axes where the operand had length 1. The result has
    exactly `shape`; an axis that had length 1 in both stays. Example: (5, 2, 3) to (2, 1) sums over
    axis 0 away and over axis 2 to length 1.
    """
    front = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(front)))
    stretched = tuple(i for i, length in enumerate(shape) if length == 1)
    return gradient.sum(axis=stretched, keepdims=True)


class Tensor(Node):
    """A float64 array that records its operations for gradients; they broadcast as NumPy's do.

    Raises ValueError, naming both shapes, when operands do not fit.
    """

    __array_ufunc__ = None  # so that `ndarray * Tensor` calls __rmul__ instead of NumPy

    data: NDArray
    grad: NDArray

    def __init__(
        self, data: ArrayLike, parents: "tuple[Tensor, ...]" = (), pull: Pull = lambda g: ()
    ) -> None:
        self.data = np.asarray(data, dtype=np.float64)
        self.grad, self.parents, self.pull = np.zeros_like(self.data), parents, pull

    def __repr__(self) -> str:
        return f"Tensor(shape={self.shape}, data={self.data})"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @silent
    def backward(self, gradient: ArrayLike | None = None) -> None:
        """Add dL/d(node) to the `grad` of every node below; L is self, or dL/d(self) is given.

        Raises ValueError if self is not a scalar and no gradient is given, or one of another shape.
        """
        if gradient is None and self.data.size != 1:
            raise ValueError(
                f"backward() starts from a scalar, and this tensor has shape {self.shape}; "
                "take .sum() or .mean() first, or pass dL/d(self) as gradient="
            )
        seed = np.ones(self.shape) if gradient is None else np.asarray(gradient, dtype=np.float64)
        if seed.shape != self.shape:
            raise ValueError(f"gradient has shape {seed.shape}; that of the tensor is {self.shape}")
        backpropagate(self, seed)

    @silent
    def __add__(self, other: "Tensor | ArrayLike") -> "Tensor":
        a, b = operands("+", self, other)
        return Tensor(
            a.data + b.data, (a, b), lambda g: (unbroadcast(g, a.shape), unbroadcast(g, b.shape))
        )

    @silent
    def __mul__(self, other: "Tensor | ArrayLike") -> "Tensor":
        a, b = operands("*", self, other)
        return Tensor(
            a.data * b.data,
            (a, b),
            lambda g: (unbroadcast(g * b.data, a.shape), unbroadcast(g * a.data, b.shape)),
        )

    @silent
    def __pow__(self, n: float) -> "Tensor":
        """self to a constant power, element by element."""
        if isinstance(n, Node):
            raise ValueError("the exponent must be a plain number; write (b.log() * n).exp()")
        return Tensor(
            self.data**n,
            (self,),
            lambda g: (g * (n * self.data ** (n - 1.0) if n else 0.0),),  # 0 * inf at 0
        )

    @silent
    def __matmul__(self, other: "Tensor | ArrayLike") -> "Tensor":
        """(..., N, M) @ (..., M, K) -> (..., N, K), the leading axes broadcast."""
        a, b = self, as_tensor(other)
        if min(a.data.ndim, b.data.ndim) < 2 or a.shape[-1] != b.shape[-2]:
            raise ValueError(
                f"@ needs shapes (..., N, M) and (..., M, K), got {a.shape} and {b.shape}; "
                "use .reshape() to make a vector a row or a column"
            )
        operands("@ (leading axes)", Tensor(a.data[..., 0, 0]), Tensor(b.data[..., 0, 0]))
        return Tensor(
            a.data @ b.data,
            (a, b),
            lambda g: (
                unbroadcast(g @ b.data.swapaxes(-1, -2), a.shape),
                unbroadcast(a.data.swapaxes(-1, -2) @ g, b.shape),
            ),
        )

    def __neg__(self) -> "Tensor":
        return self * -1.0

    def __sub__(self, other: "Tensor | ArrayLike") -> "Tensor":
        return self + -as_tensor(other)

    @silent
    def __truediv__(self, other: "Tensor | ArrayLike") -> "Tensor":
        a, b = operands("/", self, other)
        y = a.data / b.data
        return Tensor(
            y,
            (a, b),
            lambda g: (unbroadcast(g / b.data, a.shape), unbroadcast(-g * y / b.data, b.shape)),
        )

    def __rsub__(self, other: ArrayLike) -> "Tensor":
        return as_tensor(other) - self

    def __rtruediv__(self, other: ArrayLike) -> "Tensor":
        return as_tensor(other) / self

    __radd__, __rmul__ = __add__, __mul__

    @silent
    def exp(self) -> "Tensor":
        y = np.exp(self.data)
        return Tensor(y, (self,), lambda g: (g * y,))

    @silent
    def log(self) -> "Tensor":
        return Tensor(np.log(self.data), (self,), lambda g: (g / self.data,))

    def tanh(self) -> "Tensor":
        y = np.tanh(self.data)
        return Tensor(y, (self,), lambda g: (g * (1 - y * y),))

    def relu(self) -> "Tensor":
        dead = self.data <= 0
        return Tensor(np.maximum(self.data, 0), (self,), lambda g: (np.where(dead, 0.0, g),))

    @silent
    def sum(self, axis: Axis = None, keepdims: bool = False) -> "Tensor":
        """Sum over the axes (all of them by default)."""

        def pull(g: NDArray) -> tuple[NDArray]:
            g = g if keepdims or axis is None else np.expand_dims(g, axis)
            return (np.broadcast_to(g, self.shape),)

        return Tensor(self.data.sum(axis=axis, keepdims=keepdims), (self,), pull)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> "Tensor":
        """Mean over the axes (all of them by default)."""
        total = self.sum(axis, keepdims)
        return total / (self.data.size // max(total.data.size, 1))  # of nothing: 0 / 0, NaN

    def max(self, axis: Axis = None, keepdims: bool = False) -> "Tensor":
        """Maximum over the axes; equal maxima share the gradient equally, as torch.amax."""
        at_top = self.data == self.data.max(axis=axis, keepdims=True)
        count = at_top.sum(axis=axis, keepdims=True)

        def pull(g: NDArray) -> tuple[NDArray]:
            g = g if keepdims or axis is None else np.expand_dims(g, axis)
            return (np.where(at_top, g / count, 0.0),)

        return Tensor(self.data.max(axis=axis, keepdims=keepdims), (self,), pull)

    def reshape(self, *shape: int) -> "Tensor":
        return Tensor(self.data.reshape(shape), (self,), lambda g: (g.reshape(self.shape),))

    def transpose(self, *axes: int) -> "Tensor":
        """The axes in another order; reversed if none are given."""
        order = axes or tuple(reversed(range(self.data.ndim)))
        back = np.argsort([axis % self.data.ndim for axis in order])
        return Tensor(self.data.transpose(order), (self,), lambda g: (g.transpose(back),))

    def __getitem__(self, key: Any) -> "Tensor":
        """NumPy's indexing; an element that is picked k times collects k gradients."""

        def pull(g: NDArray) -> tuple[NDArray]:
            scattered = np.zeros(self.shape)
            np.add.at(scattered, key, g)
            return (scattered,)

        return Tensor(self.data[key], (self,), pull)

    def logsumexp(self, axis: int) -> "Tensor":
        """log sum exp over one axis, which is dropped; the maximum is subtracted first."""
        top = self.data.max(axis=axis, keepdims=True)  # a constant: it cancels, gradient and all
        top = np.where(np.isfinite(top), top, 0.0)  # log sum exp of nothing but -inf is -inf
        return (self - top).exp().sum(axis).log() + top.squeeze(axis)


def as_tensor(x: "Tensor | ArrayLike") -> Tensor:
    """`x` itself, or a constant."""
    return x if isinstance(x, Tensor) else Tensor(x)


def operands(name: str, a: "Tensor | ArrayLike", b: "Tensor | ArrayLike") -> tuple[Tensor, Tensor]:
    """Both as tensors. Raises ValueError when their shapes do not broadcast together."""
    a, b = as_tensor(a), as_tensor(b)
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"{name}: shapes {a.shape} and {b.shape} do not broadcast; counted from the right, "
            "lengths must be equal or 1"
        ) from None
    return a, b


def cross_entropy(logits: Tensor, labels: Sequence[int] | NDArray) -> Tensor:
    """Mean of -log softmax(logits)[label], in nats: logits (N, K), labels (N,) in 0..K-1.

    Raises ValueError for other shapes.
    """
    labels = np.asarray(labels)
    if logits.data.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"cross_entropy needs logits (N, K) and labels (N,), got {logits.shape} and "
            f"{labels.shape}"
        )
    return (logits.logsumexp(axis=1) - logits[np.arange(len(labels)), labels]).mean()
