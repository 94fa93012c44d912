"""To Hugging Face and back: the same weights under other names, and the same logits.

    gpt2      GPT2LMHeadModel       keeps its matrices transposed (Conv1D: x W instead of x Wᵀ)
    modern    NanoChatForCausalLM   rotates halves of a head, not neighbours; opposite direction

Both open with AutoModelForCausalLM, without code of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    NanoChatConfig,
    NanoChatForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from labkit import UsageError, exercise
from labkit.learning.weights import opening
from pretraining.model import EPS, GPT, Architecture
from pretraining.variants import FAMILIES, refuse_other_weights, shape_of


@exercise(minutes=20)
def neighbours_to_halves(rows: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a query or key matrix for a model that rotates halves of each head.

    Ours rotates the pair (x_2i, x_2i+1) of a head to (x_2i cos - x_2i+1 sin, x_2i+1 cos + x_2i
    sin). NanoChat rotates (y_i, y_{i+d/2}) to (y_i cos + y_{i+d/2} sin, y_{i+d/2} cos - y_i sin):
    one of our pairs with its two members exchanged. So y_i = x_2i+1 and y_{i+d/2} = x_2i for
    i < d/2, in each head. Queries and keys are reordered alike, so their products do not change.

    Args:
        rows: (C, ...), where row h d + j is dimension j of head h.
    Returns:
        the same shape, reordered; differentiable in the rows.
    """
    by_pair = rows.unflatten(0, (heads, -1, 2))  # (H, d/2, 2, ...)
    return torch.cat([by_pair[:, :, 1], by_pair[:, :, 0]], dim=1).flatten(0, 1)


def halves_to_neighbours(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `neighbours_to_halves`."""
    by_half = rows.unflatten(0, (heads, 2, -1))  # (H, 2, d/2, ...)
    return torch.stack([by_half[:, 1], by_half[:, 0]], dim=2).flatten(0, 2)


def to_huggingface(model: GPT, tokenizer: PreTrainedTokenizerFast | None = None) -> PreTrainedModel:
    """The Hugging Face model with the same weights; its config takes END and PAD from the
    tokenizer. Raises ValueError for a model that is not causal.
    """
    if not model.causal:
        raise ValueError("only a causal model can be a Hugging Face CausalLM")
    shape = model.shape
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id if tokenizer else None,
        "eos_token_id": tokenizer.eos_token_id if tokenizer else None,
        "pad_token_id": tokenizer.pad_token_id if tokenizer else None,
    }
    theirs: Any
    if model.architecture == "gpt2":
        theirs = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=shape.vocabulary,
                n_positions=shape.context,
                n_embd=shape.width,
                n_layer=shape.layers,
                n_head=shape.heads,
                **special,
            )
        )
    else:
        theirs = NanoChatForCausalLM(
            NanoChatConfig(
                vocab_size=shape.vocabulary,
                max_position_embeddings=shape.context,
                hidden_size=shape.width,
                intermediate_size=4 * shape.width,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                rms_norm_eps=EPS["modern"],
                final_logit_softcapping=None,
                rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
                **special,
            )
        )
    theirs.load_state_dict(their_weights(model))
    theirs.eval()
    return theirs


def their_weights(model: GPT) -> dict[str, Tensor]:
    """Our weights under Hugging Face's names and in its layouts."""
    theirs: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        names = _their_names(name, model.architecture)
        if len(names) == 3:
            q, k, v = value.chunk(3)
            parts = [neighbours_to_halves(x, model.shape.heads) for x in (q, k)] + [v]
        else:
            parts = [value.T if model.architecture == "gpt2" and _is_conv1d(name) else value]
        theirs |= dict(zip(names, parts, strict=True))
    return {name: value.detach().clone().contiguous() for name, value in theirs.items()}


def from_huggingface(theirs: PreTrainedModel) -> GPT:
    """Our model with the weights of a GPT2LMHeadModel or NanoChatForCausalLM, in float32.

    Raises ValueError for another architecture, and for a variant that our model does not have: a
    field of its config (see variants.py), extra or missing weights, or a head that is not tied.
    """
    shape, architecture = shape_of(theirs.config)
    model = GPT(shape, architecture)
    weights = {name: value.detach().float() for name, value in theirs.state_dict().items()}
    names = {name: _their_names(name, architecture) for name in model.state_dict()}
    refuse_other_weights(weights, [each for group in names.values() for each in group])
    ours = {}
    for name, group in names.items():
        parts = [weights[each] for each in group]
        if len(parts) == 3:
            qk = [halves_to_neighbours(x, model.shape.heads) for x in parts[:2]]
            ours[name] = torch.cat([*qk, parts[2]])
        else:
            transposed = architecture == "gpt2" and _is_conv1d(name)
            ours[name] = parts[0].T if transposed else parts[0]
    if architecture == "gpt2" and not torch.equal(ours["head.weight"], ours["embedding.weight"]):
        raise ValueError("the head's weights are not the embedding's, and ours are one matrix")
    model.load_state_dict(ours)
    return model.eval()


def export(model: GPT, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model and tokenizer so that AutoModelForCausalLM and AutoTokenizer open them.

    Raises UsageError when the tokenizer has more tokens than the model.
    """
    if len(tokenizer) > model.shape.vocabulary:
        raise UsageError(
            f"the tokenizer has {len(tokenizer)} tokens and the model only "
            f"{model.shape.vocabulary}: they do not belong together"
        )
    tokenizer.model_max_length = model.shape.context
    to_huggingface(model, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load(folder: Path | str) -> GPT:
    """The model in a folder that `export` wrote, or any GPT-2 or NanoChat checkpoint.

    Raises UsageError for a model of another kind, and ValueError as `from_huggingface` does, or
    when weights are missing in the files or unknown to the model.
    """
    with opening(folder, "language model", "Take one that week 7 published"):
        if AutoConfig.from_pretrained(folder).model_type not in FAMILIES:
            raise UsageError(f"{folder} holds neither a GPT-2 nor a NanoChat")
        # The library fills what is missing with random numbers and drops what it does not know.
        opened: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
    theirs, info = opened
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            names = ", ".join(sorted(map(str, info[problem]))[:3])
            raise ValueError(f"the weights in {folder} do not fit: {problem} {names}")
    return from_huggingface(theirs)


def _their_names(name: str, architecture: Architecture) -> list[str]:
    """Their weight that holds one of ours; for queries, keys and values, the three weights."""
    if architecture == "gpt2":
        return [_gpt2_name(name)]
    theirs = _nanochat_name(name)
    return [theirs.replace("qkv", x) for x in "qkv"] if "qkv" in theirs else [theirs]


def _is_conv1d(name: str) -> bool:
    return name.startswith("blocks") and name.endswith("weight") and "norm" not in name


def _gpt2_name(name: str) -> str:
    """blocks.3.attention.qkv.weight -> transformer.h.3.attn.c_attn.weight"""
    if name == "head.weight":
        return "lm_head.weight"
    for ours, theirs in (
        ("blocks.", "h."), ("norm1", "ln_1"), ("norm2", "ln_2"), ("attention.qkv", "attn.c_attn"),
        ("attention.out", "attn.c_proj"), ("mlp.up", "mlp.c_fc"), ("mlp.down", "mlp.c_proj"),
        ("embedding.", "wte."), ("positions.", "wpe."), ("norm.", "ln_f."),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return f"transformer.{name}"


def _nanochat_name(name: str) -> str:
    """blocks.3.mlp.up.weight -> model.layers.3.mlp.fc1.weight"""
    if name == "head.weight":
        return "lm_head.weight"
    for ours, theirs in (
        ("blocks.", "layers."), ("attention.qkv", "self_attn.qkv_proj"),
        ("attention.out", "self_attn.o_proj"), ("mlp.up", "mlp.fc1"), ("mlp.down", "mlp.fc2"),
        ("embedding.", "embed_tokens."),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return f"model.{name}"
