"""Read and change what a model computes inside, by the names of its modules.

An activation is the output of a submodule, and its name is the submodule's name: `blocks.0` of any
model here is the residual stream after its first layer. `named_modules()` lists the names. Nothing
of this needs the model's own code, so it works for week 7's GPT as for the model of this part.

    logits, cache = run_with_cache(model, tokens, ["blocks.0"])
    logits = run_with_hooks(model, tokens, {"blocks.0": lambda x: 0 * x})
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from labkit.text import closest

Hook = Callable[[Tensor], Tensor]
"""From an activation to what the model goes on with."""


def run_with_hooks(model: nn.Module, tokens: Tensor, hooks: Mapping[str, Hook]) -> Tensor:
    """The model's output while each named activation is replaced by what its hook returns.

    Without gradients. The hooks are gone afterwards, also when one of them fails.

    Raises:
        ValueError for a name that is no submodule (the nearest one is named), for a model in
        training mode, whose dropout would change what is measured, and for a hook that changes
        the shape.
    """
    modules = dict(model.named_modules())
    for name in hooks:
        if name not in modules or not name:
            raise ValueError(f"there is no activation {name!r}{closest(name, sorted(modules))}")
    if any(module.training for module in modules.values()):
        raise ValueError("the model is in training mode, so dropout acts; call model.eval() first")
    handles = []
    try:
        for name, hook in hooks.items():
            handles.append(modules[name].register_forward_hook(_replacing(name, hook)))
        with torch.no_grad():
            out: Tensor = model(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return out


def run_with_cache(
    model: nn.Module, tokens: Tensor, names: Iterable[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The model's output, and the activations of these names. Raises as `run_with_hooks` does."""
    cache: dict[str, Tensor] = {}

    def keeping(name: str) -> Hook:
        def keep(x: Tensor) -> Tensor:
            cache[name] = x
            return x

        return keep

    return run_with_hooks(model, tokens, {name: keeping(name) for name in names}), cache


def _replacing(name: str, hook: Hook) -> Callable[[nn.Module, object, Tensor], Tensor]:
    def replace(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        new = hook(output)
        if new.shape != output.shape:
            raise ValueError(
                f"the hook of {name} must keep the shape {tuple(output.shape)}, it returned "
                f"{tuple(new.shape)}"
            )
        return new

    return replace
