"""LoRA (Hu et al. 2021): freeze the weights and learn a low-rank update.

    h = x W + (alpha / r) x A^T B^T        A (r, in) random, B (out, r) zero        section 4.1

Only A and B, of rank r, are trained. B begins at zero, so the model begins equal to its base. The
update has the shape of W, so it can be added to W afterwards and then costs nothing (section 4.1,
"No Additional Inference Latency").

Letters: `in` and `out` features of a layer, r rank. A Linear of PyTorch keeps W as (out, in); the
Conv1D of GPT-2 is the same layer with W as (in, out): when merging, do not forget the transpose.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from labkit import UsageError, exercise


@exercise(minutes=10)
def update(x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """What LoRA adds to a layer's output: scale x A^T B^T, with B A never formed.

    Args:
        x: inputs (..., in). Not changed.
        a: (r, in). Not changed.
        b: (out, r). Not changed.
        scale: alpha / r.
    Returns:
        (..., out), in the type of the arguments.
    """
    return scale * (x @ a.T) @ b.T


@exercise(minutes=10)
def delta_weight(a: Tensor, b: Tensor, scale: float, conv1d: bool) -> Tensor:
    """The update as a matrix to be added to the weight: scale B A, in the weight's orientation.

    Args:
        a: (r, in).
        b: (out, r).
        scale: alpha / r.
        conv1d: whether the weight is a Conv1D's, (in, out), and not a Linear's, (out, in).
    Returns:
        A matrix in the type of A and B, which stay as they are; differentiable in both.
    """
    delta = scale * b @ a  # (out, in)
    return delta.T if conv1d else delta


def draw(a: Tensor, generator: torch.Generator | None = None) -> None:
    """Fill A as peft does, uniformly up to 1/√in (the paper draws from a Gaussian), on the CPU."""
    values = torch.empty(a.shape)
    nn.init.kaiming_uniform_(values, a=5**0.5, generator=generator)
    with torch.no_grad():
        a.copy_(values)


class LoRALayer(nn.Module):
    """A frozen Linear or Conv1D with a trainable low-rank update beside it."""

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        scale: float,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        weight = base.weight
        assert isinstance(weight, Tensor)
        self.base, self.rank, self.scale = base, rank, scale
        self.conv1d = isinstance(base, Conv1D)
        inputs, outputs = weight.shape if self.conv1d else weight.shape[::-1]
        self.a = nn.Parameter(torch.empty(rank, inputs, device=weight.device))
        self.b = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))
        draw(self.a, generator)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of the base, which may be bf16; A and B are fp32."""
        out: Tensor = self.base(x)
        more = update(self.dropout(x).to(self.a.dtype), self.a, self.b, self.scale)
        return (out + more).to(out.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The base layer with the update added to its weight, in place."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        weight += delta_weight(self.a, self.b, self.scale, self.conv1d)
        return self.base


def add_lora(
    model: Any,
    targets: Iterable[str],
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Freeze a model and put a LoRALayer around every layer whose last name is in `targets`; A is
    drawn from `generator`, or from torch's global one.

    Returns the names of those layers. Raises UsageError for a target that the model does not have.
    """
    wanted = set(targets)
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Linear, Conv1D))
    }
    chosen = [name for name in layers if name.rpartition(".")[2] in wanted]
    missing = wanted - {name.rpartition(".")[2] for name in chosen}
    if missing:
        there = sorted({name.rpartition(".")[2] for name in layers})
        raise UsageError(
            f"this model has no layer called {', '.join(sorted(missing))}; "
            f"type targets=[{','.join(there)}] or some of these"
        )
    model.requires_grad_(False)
    for name in chosen:
        _replace(model, name, LoRALayer(layers[name], rank, alpha / rank, dropout, generator))
    return chosen


def lora_layers(model: Any) -> dict[str, LoRALayer]:
    """The LoRALayers of a model by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoRALayer)}


def untie(model: Any) -> None:
    """Give a head that shares its weight with the embedding a weight of its own.

    Otherwise, merging an update of the head would also change the input embeddings.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    head = getattr(head, "base_layer", getattr(head, "base", head))  # under peft's LoRA, or ours
    if head.weight is embedding.weight:
        head.weight = nn.Parameter(embedding.weight.detach().clone())
        model.config.tie_word_embeddings = False


def merge(model: Any) -> Any:
    """Add every update to its weight and remove the LoRALayers; returns the model, changed."""
    if isinstance(model.get_output_embeddings(), LoRALayer):
        untie(model)
    for name, layer in lora_layers(model).items():
        _replace(model, name, layer.merged())
    return model


def trainable(model: Any) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _replace(model: Any, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
