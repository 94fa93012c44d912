"""Hooks: inspecting a network while it runs, without changing its code.

A hook that is not removed stays active, keeps tensors alive and slows every step. So each function
here is a context manager that removes its hooks when the block ends, also after an exception.

    with activation_statistics(model) as layers:
        model(images)
    layers["body.0.3"].dead
"""

import difflib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Activation:
    """Statistics of one layer's output in its last call."""

    mean: float
    std: float
    dead: float
    """Share of units (channels) that were <= 0 for every example and position: after a ReLU, units
    through which no gradient passes."""


@dataclass
class GradientNorm:
    """Euclidean norms of one layer's gradients in a backward pass."""

    output: float = 0.0
    """Of dL/d(output)."""
    parameters: dict[str, float] = field(default_factory=dict)
    """Of dL/d(parameter), by the parameter's name in the layer."""


def leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers that contain no other layers, with their full names."""
    for name, module in model.named_modules():
        if not any(True for _ in module.children()):
            yield name, module


@contextmanager
def activation_statistics(model: nn.Module) -> Iterator[dict[str, Activation]]:
    """Mean, deviation and share of dead units of every layer, filled in as the model runs."""
    seen: dict[str, Activation] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen[name] = statistics(output.detach())

        return hook

    with ExitStack() as stack:
        for name, module in leaves(model):
            stack.callback(module.register_forward_hook(record(name)).remove)
        yield seen


def statistics(output: Tensor) -> Activation:
    """Of one layer's output (B, C, ...)."""
    x = output.float()
    off = (x <= 0).transpose(0, 1).flatten(1).all(dim=1) if x.ndim > 1 else x <= 0
    return Activation(x.mean().item(), x.std(correction=0).item(), off.float().mean().item())


@contextmanager
def gradient_norms(model: nn.Module) -> Iterator[dict[str, GradientNorm]]:
    """Gradient norms of every layer, filled in by `backward()` called inside the block.

    They are of that backward pass alone, also when `.grad` accumulates over several. If a layer
    runs more than once, `output` is of the call that backward reached last. A forward hook puts the
    hook on the output tensor: a module's own `register_full_backward_hook` forbids a following
    ReLU(inplace=True), and warns at the first layer, whose input needs no gradient.
    """
    seen: dict[str, GradientNorm] = {}

    def of_output(name: str) -> Callable[..., None]:
        def arrived(grad: Tensor) -> None:
            seen.setdefault(name, GradientNorm()).output = grad.norm().item()

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad:
                stack.callback(output.register_hook(arrived).remove)

        return hook

    def of_parameter(name: str, parameter: str) -> Callable[[Tensor], None]:
        def hook(grad: Tensor) -> None:
            norms = seen.setdefault(name, GradientNorm()).parameters
            norms[parameter] = grad.norm().item()

        return hook

    with ExitStack() as stack:
        for name, module in leaves(model):
            stack.callback(module.register_forward_hook(of_output(name)).remove)
            for parameter, p in module.named_parameters():
                if p.requires_grad:
                    stack.callback(p.register_hook(of_parameter(name, parameter)).remove)
        yield seen


@contextmanager
def outputs_of(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """A list that collects the named layer's detached outputs, one for each forward pass.

    Raises ValueError, with the nearest name, if the model has no such layer.
    """
    modules = dict(model.named_modules())
    if layer not in modules:
        near = difflib.get_close_matches(layer, modules, n=1)
        hint = (
            f"did you mean {near[0]!r}?" if near else f"it has {', '.join(filter(None, modules))}"
        )
        raise ValueError(f"the model has no layer {layer!r}; {hint}")
    collected: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        collected.append(output.detach())

    handle = modules[layer].register_forward_hook(hook)
    try:
        yield collected
    finally:
        handle.remove()


def extract(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """Output of the named layer for input x, without gradients; the mode of the model is kept.

    Raises ValueError if the model has no such layer, or did not call it exactly once.
    """
    with outputs_of(model, layer) as collected, torch.no_grad():
        model(x)
    if len(collected) != 1:
        raise ValueError(f"layer {layer!r} ran {len(collected)} times for one input, not once")
    return collected[0]
