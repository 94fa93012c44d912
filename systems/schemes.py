"""A whole model in few bits: which scheme, which layers, and calibration on training text.

    int8_tensor   absmax, one scale for a matrix            int4   zero point, rounding, in groups
    int8          absmax, one scale for each output         gptq   the same grid, by GPTQ
    int8_zero     zero point, one scale for each output     awq    the same grid, by AWQ
    llm_int8      int8, and the inputs rounded as well, except for outlier features

All matrices inside the layers are rounded by the scheme. The embedding is rounded to 8 bits for
each token's row in every scheme: it is also the head (tied), so each row is an output channel
there. Positions, norms and biases stay as they are: they are less than a hundredth of a GPT-2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labkit import UsageError
from labkit.learning.modes import evaluating
from labkit.text import closest
from pretraining import GPT
from systems.awq import awq
from systems.gptq import Hessian, gptq
from systems.quantize import Kind, Quantized, llm_int8, round_matrix
from systems.settings import QuantizeSettings

BATCH = 16
"""Calibration windows that go through a layer at once."""


@dataclass(frozen=True)
class Scheme:
    """How matrices are rounded."""

    bits: int
    kind: Kind
    method: str = "round"
    """round, gptq or awq."""
    whole: bool = False
    """One scale for a whole matrix."""
    grouped: bool = False
    """A scale for each group of columns, not for each row."""
    inputs: bool = False
    """Round the layer's inputs too (LLM.int8)."""

    @property
    def calibrated(self) -> bool:
        """Whether it needs to see text."""
        return self.method != "round"


SCHEMES = {
    "int8_tensor": Scheme(8, "absmax", whole=True),
    "int8": Scheme(8, "absmax"),
    "int8_zero": Scheme(8, "zero_point"),
    "llm_int8": Scheme(8, "absmax", inputs=True),
    "int4": Scheme(4, "zero_point", grouped=True),
    "gptq": Scheme(4, "zero_point", "gptq", grouped=True),
    "awq": Scheme(4, "zero_point", "awq", grouped=True),
}


def scheme_of(name: str) -> Scheme:
    """The scheme of that name. Raises UsageError when there is none."""
    if name not in SCHEMES:
        raise UsageError(
            f"scheme {name!r} is unknown{closest(name, list(SCHEMES))}; known: {', '.join(SCHEMES)}"
        )
    return SCHEMES[name]


class Int8Linear(nn.Module):
    """A layer whose inputs are rounded too: (..., I) -> (..., O)."""

    codes: Tensor
    scale: Tensor

    def __init__(self, matrix: Quantized, bias: Tensor | None, threshold: float) -> None:
        super().__init__()
        self.register_buffer("codes", matrix.codes)
        self.register_buffer("scale", matrix.scale)
        self.bias, self.threshold = None if bias is None else nn.Parameter(bias, False), threshold

    def forward(self, x: Tensor) -> Tensor:
        y = llm_int8(x.flatten(0, -2), self.codes, self.scale, self.threshold)
        y = y.unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def layers_of(block: nn.Module) -> dict[str, nn.Linear]:
    """The matrices of one layer of a GPT, by their names in it."""
    return {name: each for name, each in block.named_modules() if isinstance(each, nn.Linear)}


def quantize_model(
    model: GPT, scheme: Scheme, settings: QuantizeSettings, calibration: Tensor | None = None
) -> dict[str, Quantized]:
    """Every matrix of a GPT in codes, by the name of its weight. The model stays as it is.

    Args:
        calibration: tokens of the training text, int64 (windows, T); needed by GPTQ and AWQ.
    Raises:
        UsageError when a group does not divide the rows, or a tied model was untied.
    """
    group = settings.group if scheme.grouped else 0
    found = {"embedding.weight": round_matrix(model.embedding.weight.detach(), 8, "absmax", 0)}
    if model.head.weight is not model.embedding.weight:
        found["head.weight"] = round_matrix(model.head.weight.detach(), 8, "absmax", 0)
    if not scheme.calibrated:
        for i, block in enumerate(model.blocks):
            for name, layer in layers_of(block).items():
                weight = layer.weight.detach()
                matrix = round_matrix(weight, scheme.bits, scheme.kind, group, scheme.whole)
                found[f"blocks.{i}.{name}.weight"] = matrix
        return found
    if calibration is None:
        raise ValueError(f"{scheme.method} needs calibration text")
    return found | _calibrated(model, scheme, settings, group, calibration)


def _calibrated(
    model: GPT, scheme: Scheme, settings: QuantizeSettings, group: int, calibration: Tensor
) -> dict[str, Quantized]:
    """Layer after layer: each sees what the rounded layers before it really give."""
    found = {}
    with evaluating(model):
        hidden = [
            model.embedding(rows) + model.positions.weight[: rows.shape[1]]  # type: ignore[union-attr]
            for rows in calibration.split(BATCH)
        ]
        for i, block in enumerate(model.blocks):
            seen = watch(block, hidden)
            originals = {name: layer.weight.data for name, layer in layers_of(block).items()}
            for name, layer in layers_of(block).items():
                hessian, mean_abs = seen[name]
                if scheme.method == "gptq":
                    matrix = gptq(
                        layer.weight, hessian, scheme.bits, scheme.kind, group, settings.damping,
                        settings.act_order,
                    )  # fmt: skip
                else:
                    matrix = awq(layer.weight, hessian, mean_abs, scheme.bits, scheme.kind, group)
                found[f"blocks.{i}.{name}.weight"] = matrix
                layer.weight.data = matrix.dequantize()
            hidden = [block(x, None, True, None) for x in hidden]
            for name, layer in layers_of(block).items():
                layer.weight.data = originals[name]
    return found


def watch(block: nn.Module, hidden: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The Hessian (I, I) and the mean absolute inputs (I,) of each matrix of a layer that is given
    `hidden`, by name."""
    layers = layers_of(block)
    hessians = {name: Hessian(layer.in_features) for name, layer in layers.items()}
    sums = {name: torch.zeros(layer.in_features) for name, layer in layers.items()}

    def hook(name: str) -> Any:
        def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            hessians[name].add(inputs[0])
            sums[name] += inputs[0].detach().abs().flatten(0, -2).sum(0).cpu()

        return look

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    for x in hidden:
        block(x, None, True, None)
    for handle in handles:
        handle.remove()
    return {n: (hessians[n].value(), sums[n] / hessians[n].count) for n in layers}


def install(model: GPT, matrices: dict[str, Quantized], scheme: Scheme, threshold: float) -> None:
    """Put what the codes stand for into a model, in place. With LLM.int8 its layers compute in
    whole numbers from then on."""
    modules = dict(model.named_modules())
    for name, matrix in matrices.items():
        path = name.removesuffix(".weight")
        module = modules[path]
        assert isinstance(module, (nn.Linear, nn.Embedding))
        if scheme.inputs and path.startswith("blocks."):
            assert isinstance(module, nn.Linear)
            parent, _, last = path.rpartition(".")
            bias = None if module.bias is None else module.bias.detach()
            setattr(modules[parent], last, Int8Linear(matrix, bias, threshold))
        else:
            with torch.no_grad():
                module.weight.copy_(matrix.dequantize())
