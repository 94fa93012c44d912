"""Muon beside PyTorch's own, and beside its equation in float64 by singular value decomposition."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labkit.learning import muon
from labkit.learning.muon import Muon

A, B, C = 3.4445, -4.7750, 2.0315  # of the quintic, as published
SHAPES = [(8, 8), (24, 8), (8, 32), (8, 8), (1, 5), (5, 1)]
SETTINGS: list[dict[str, Any]] = [
    {"weight_decay": 0.1, "momentum": 0.9},
    {"weight_decay": 0.0, "nesterov": False, "adjust_lr_fn": "original"},
    {"weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
]


def hardware(monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    monkeypatch.setattr(muon, "has_native_bf16", lambda device: bf16)


def train(make: Callable[[list[nn.Parameter]], Any], steps: int = 10) -> list[Tensor]:
    """How far the parameters move on gradients that depend on them."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    start = [p.detach().clone() for p in parameters]
    optimizer = make(parameters)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape) + parameter.detach()
        optimizer.step()
    return [p.detach() - s for p, s in zip(parameters, start, strict=True)]


class Exact:
    """The published equations in float64, with the quintic applied to the singular values."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        weight_decay: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        adjust_lr_fn: str = "original",
        ns_steps: int = 5,
    ) -> None:
        self.parameters, self.weight_decay, self.momentum = parameters, weight_decay, momentum
        self.nesterov, self.adjust, self.steps = nesterov, adjust_lr_fn, ns_steps
        self.buffers = [torch.zeros(p.shape, dtype=torch.float64) for p in parameters]

    @torch.no_grad()
    def step(self) -> None:
        mu, lr = self.momentum, 0.02
        for parameter, buffer in zip(self.parameters, self.buffers, strict=True):
            assert parameter.grad is not None
            gradient = parameter.grad.double()
            buffer.copy_(mu * buffer + (1 - mu) * gradient)
            moment = (1 - mu) * gradient + mu * buffer if self.nesterov else buffer
            u, s, vt = torch.linalg.svd(moment / moment.norm(), full_matrices=False)
            for _ in range(self.steps):
                s = A * s + B * s**3 + C * s**5
            rows, columns = parameter.shape
            if self.adjust == "original":
                rate = lr * max(1.0, rows / columns) ** 0.5
            else:
                rate = lr * 0.2 * max(rows, columns) ** 0.5
            new = parameter.double() * (1 - lr * self.weight_decay) - rate * (u * s) @ vt
            parameter.copy_(new)


@pytest.mark.parametrize("settings", SETTINGS)
def test_in_fp32_it_is_the_equation(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each repetition makes a rounding at most A = 3.4445 times as large, in 24 sums a product."""
    hardware(monkeypatch, bf16=False)
    ours = train(lambda p: Muon(p, 0.02, **settings))
    exact = train(lambda p: Exact(p, **settings))
    bound = A ** settings.get("ns_steps", 5) * 24 * torch.finfo(torch.float32).eps
    for moved, expected in zip(ours, exact, strict=True):
        assert (moved - expected).norm() < bound * expected.norm()


@pytest.mark.parametrize("settings", SETTINGS)
def test_in_bf16_it_is_pytorchs(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps of both; bf16 inside leaves differences of its size."""
    hardware(monkeypatch, bf16=True)
    ours = train(lambda p: Muon(p, 0.02, **settings))
    theirs = train(lambda p: torch.optim.Muon(p, 0.02, **settings))
    for moved, expected in zip(ours, theirs, strict=True):
        assert (moved - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(
    ("bf16", "precision", "expected"),
    [
        (True, "auto", torch.bfloat16),
        (True, "bf16", torch.bfloat16),
        (True, "fp32", torch.float32),
        (False, "auto", torch.float32),
        (False, "bf16", torch.float32),  # emulated it would take a hundred times as long
    ],
)
def test_bf16_is_for_hardware_that_has_it(
    bf16: bool, precision: str, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware(monkeypatch, bf16)
    seen: list[tuple[torch.dtype, torch.Size]] = []

    def orthogonalize(stack: Tensor, steps: int) -> Tensor:
        seen.append((stack.dtype, stack.shape))
        return stack

    train(lambda p: Muon(p, precision=precision, orthogonalize=orthogonalize), steps=1)
    assert {dtype for dtype, _ in seen} == {expected}
    # One call for all matrices of a shape.
    assert [tuple(shape) for _, shape in seen] == [
        (2, 8, 8), (1, 24, 8), (1, 8, 32), (1, 1, 5), (1, 5, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 3, 20), (2, 20, 3), (1, 4, 8), (2, 1, 1)])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_msign_moves_the_singular_values_only(shape: tuple[int, ...], steps: int) -> None:
    stack = 7 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    kept = stack.clone()
    out = muon.msign(stack, steps)
    assert torch.equal(stack, kept)
    for matrix, found in zip(stack.double(), out, strict=True):
        u, s, vt = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
        for _ in range(steps):
            s = A * s + B * s**3 + C * s**5
        torch.testing.assert_close(found.double(), (u * s) @ vt, atol=1e-4, rtol=1e-3)
    assert not muon.msign(torch.zeros(shape)).any()


@pytest.mark.parametrize("ours_first", [True, False])
def test_either_goes_on_from_what_the_other_saved(ours_first: bool) -> None:
    makes = [lambda p: Muon(p, 0.02), lambda p: torch.optim.Muon(p, 0.02)]
    first_make, second_make = makes if ours_first else makes[::-1]
    torch.manual_seed(0)
    a, b = (nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    first, second = first_make([a]), second_make([b])
    for step, gradient in enumerate(torch.randn(4, 4, 4)):
        if step == 2:  # b goes on where a stands
            second.load_state_dict(copy.deepcopy(first.state_dict()))
            b.data.copy_(a.data)
        a.grad, b.grad = gradient.clone(), gradient.clone()
        first.step()
        if step >= 2:
            second.step()
    assert (a - b).norm() < 0.02 * (a - 1).norm()


def test_it_resumes_to_the_last_bit() -> None:
    torch.manual_seed(0)
    a, b = (nn.Parameter(torch.ones(4, 9)) for _ in range(2))
    first, second = Muon([a]), Muon([b])
    for step, gradient in enumerate(torch.randn(4, 4, 9)):
        if step == 2:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
            b.data.copy_(a.data)
        a.grad, b.grad = gradient.clone(), gradient.clone()
        first.step()
        if step >= 2:
            second.step()
    assert torch.equal(a, b)


def test_vectors_are_refused_and_what_has_no_gradient_is_left() -> None:
    with pytest.raises(ValueError, match="2D"):
        Muon([nn.Parameter(torch.zeros(3))])
    still, moving = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    moving.grad = torch.ones(2, 2)
    assert Muon([still, moving]).step(lambda: 3.5) == 3.5
    assert torch.equal(still, torch.ones(2, 2))
    assert not torch.equal(moving, torch.ones(2, 2))
