"""What the residual stream says before its end: the logit lens, and who wrote which logit.

Every layer adds to one stream, and the logits are a linear function of its normed end. So the
unembedding can be applied to the stream after any layer (nostalgebraist 2020, "interpreting GPT:
the logit lens"), and a logit is a sum over all that was added, once the scale of the last norm is
held at its value (Elhage et al. 2021, "direct logit attribution"; Wang et al. 2022, section 2.2).

Letters: B batch, T tokens, V vocabulary, C width, K components.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from labkit import exercise
from pretraining import GPT
from robustness.mechanistic.hooks import run_with_cache
from robustness.mechanistic.model import EPS, AttentionOnly


class Readable(Protocol):
    """A model whose logits are `logits(norm(stream))`: AttentionOnly, and week 7's GPT."""

    def norm(self, x: Tensor, /) -> Tensor: ...

    def logits(self, normed: Tensor, /) -> Tensor: ...


@exercise(minutes=10)
def logit_lens(model: Readable, streams: Tensor) -> Tensor:
    """What the model would say if the stream ended here.

    The stream is read as the model reads its end: by its last norm, `model.norm`, then by its
    unembedding, `model.logits`. So of the stream after the last layer the lens gives the model's
    own logits exactly.

    Args:
        streams: (..., C).
    Returns:
        logits (..., V).
    """
    return model.logits(model.norm(streams))


@exercise(minutes=20)
def direct_logit_attribution(
    components: Tensor, direction: Tensor, centre: bool = False, eps: float = EPS
) -> Tensor:
    """How much each component of the stream adds to a logit, or to a difference of logits.

    The stream is the sum of its components, x = Σ_k c_k, and its norm is x / s with
    s = sqrt(mean(x²) + eps), the mean over C. With s held at its value for the whole x, component k
    adds c_k · u / s. The sum over k is the logit.

    Args:
        components: c (K, N, C) at N places.
        direction: u (N, C), the unembedding of a token, or the difference of two; a norm's gain is
            already multiplied into it.
        centre: for LayerNorm, which takes from x its mean over C first: from each c_k its own.
        eps: as in the norm.
    Returns:
        (K, N).
    """
    if centre:
        components = components - components.mean(-1, keepdim=True)
    scale = (components.sum(0).square().mean(-1) + eps).sqrt()
    return torch.einsum("knc,nc->kn", components, direction) / scale


def streams_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """The stream before the first layer and after each: (layers + 1, B, T, C).

    Raises TypeError for a model of another kind, and as `run_with_cache` does.
    """
    start = _start(model)
    names = [start, *(f"blocks.{layer}" for layer in range(_layers(model)))]
    cache = run_with_cache(model, tokens, names)[1]
    return torch.stack([cache[name] for name in names])


def components_of(model: nn.Module, tokens: Tensor) -> tuple[list[str], Tensor]:
    """All that is added up in the stream, with names: (K, B, T, C). Their sum is its end.

    The heads of AttentionOnly one by one; attention and MLP of each layer of week 7's GPT. Raises
    as `streams_of` does.
    """
    start, layers = _start(model), range(_layers(model))
    if isinstance(model, AttentionOnly):
        names = [start, *(f"blocks.{layer}.mixed" for layer in layers)]
        cache = run_with_cache(model, tokens, names)[1]
        written = [
            block.written(cache[name]).detach().transpose(0, 1)  # (H, B, T, C)
            for block, name in zip(model.layers, names[1:], strict=True)
        ]
        said = [f"head {i}.{h}" for i, each in enumerate(written) for h in range(len(each))]
        return ["embedding", *said], torch.cat([cache[start][None], *written])
    names = [start, *(f"blocks.{i}.{part}" for i in layers for part in ("attention", "mlp"))]
    cache = run_with_cache(model, tokens, names)[1]
    said = [name.removeprefix("blocks.").replace(".", " ") for name in names[1:]]
    return ["embedding", *said], torch.stack([cache[name] for name in names])


def _start(model: nn.Module) -> str:
    """The name of what the stream begins with."""
    if isinstance(model, AttentionOnly):
        return "embedding"
    if isinstance(model, GPT):
        return "drop"  # after the positions
    raise TypeError(f"the streams of a {type(model).__name__} are not known here")


def _layers(model: nn.Module) -> int:
    return sum(1 for name, _ in model.named_modules() if name.count(".") == 1 and "blocks." in name)
