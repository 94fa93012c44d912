"""Published CLIP models, opened in this week's towers: the same weights and the same logits.

Three traps, none of which raises an error by itself:

    hidden_act       OpenAI's weights want quick_gelu, LAION's the exact GELU: it is in the config
    eos_token_id     older configs say 2, and mean the highest number of the vocabulary
    image_mean, std  those of the model's own training, in preprocessor_config.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit import UsageError
from labkit.learning.weights import check_finite, check_loaded, opening
from labkit.text import short
from multimodal.towers import CLIP, EPS, MEAN, STD, CLIPShape, TowerShape

HUB = "https://huggingface.co"
FILES = ["*.json", "*.txt", "*.safetensors"]
FIX = "Type model=openai/clip-vit-base-patch32 with a network, model=/path/to/a/folder or model=new"
NAMES = (
    ("vision_model.embeddings.class_embedding", "image.class_token"),
    ("vision_model.embeddings.patch_embedding", "image.stem"),
    ("vision_model.embeddings.position_embedding.weight", "image.positions"),
    ("vision_model.pre_layrnorm", "image.norm_in"),
    ("vision_model.post_layernorm", "image.norm_out"),
    ("vision_model.encoder.layers", "image.blocks"),
    ("text_model.embeddings.token_embedding", "text.embedding"),
    ("text_model.embeddings.position_embedding.weight", "text.positions"),
    ("text_model.final_layer_norm", "text.norm_out"),
    ("text_model.encoder.layers", "text.blocks"),
    ("visual_projection", "image_projection"),
    ("logit_scale", "log_scale"),
    ("layer_norm", "norm"), ("self_attn", "attention"), ("_proj.", "."),
    ("mlp.fc1", "up"), ("mlp.fc2", "down"),
)  # fmt: skip
"""Parts of their names and of ours, replaced in this order."""


def our_name(theirs: str) -> str:
    """vision_model.encoder.layers.3.mlp.fc1.weight -> image.blocks.3.up.weight"""
    for old, new in NAMES:
        theirs = theirs.replace(old, new)
    return theirs


def shape_of(config: Any, mean: Any = MEAN, std: Any = STD) -> CLIPShape:
    """The shape that a CLIPConfig states. Raises ValueError for one that our towers do not have."""

    def tower(part: Any) -> TowerShape:
        if part.hidden_act not in ("gelu", "quick_gelu"):
            raise ValueError(f"activation {part.hidden_act}; known are gelu and quick_gelu")
        if part.layer_norm_eps != EPS:
            raise ValueError(f"a norm with {part.layer_norm_eps} in it, and ours has {EPS}")
        return TowerShape(
            part.hidden_size, part.num_hidden_layers, part.num_attention_heads,
            part.intermediate_size, part.hidden_act,
        )  # fmt: skip

    text, vision = config.text_config, config.vision_config
    end = text.eos_token_id
    return CLIPShape(
        image=tower(vision), text=tower(text), side=vision.image_size, patch=vision.patch_size,
        vocabulary=text.vocab_size, context=text.max_position_embeddings,
        end=text.vocab_size - 1 if end == 2 else end, embedding=config.projection_dim,
        mean=tuple(mean), std=tuple(std),
    )  # fmt: skip


def from_huggingface(theirs: Any, mean: Any = MEAN, std: Any = STD) -> CLIP:
    """Our model with the weights of a CLIPModel, in float32.

    Raises ValueError for a config that our towers do not have, and for weights that do not fit.
    """
    model = CLIP(shape_of(theirs.config, mean, std))
    weights: dict[str, Tensor] = {
        our_name(name): value.detach().float() for name, value in theirs.state_dict().items()
    }
    weights["bias"] = model.bias.detach()  # SigLIP's, which CLIP does not have
    problems = model.load_state_dict(weights, strict=False)
    if problems.missing_keys or problems.unexpected_keys:
        raise ValueError(f"weights that do not fit: {problems}")
    return model.eval()


def load_published(name: str) -> tuple[CLIP, Any]:
    """The CLIP model and tokenizer in a folder, or of that name on the hub.

    Raises UsageError when there is none, or it is damaged or of another kind.
    """
    from transformers import AutoConfig, AutoTokenizer, CLIPModel

    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = Path(_from_hub(name))
    with opening(folder, "CLIP model", FIX):
        kind = AutoConfig.from_pretrained(folder).model_type
        if kind != "clip":
            raise UsageError(f"model={name} is a {kind}, not a CLIP model. {FIX}.")
        opened: Any = CLIPModel.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        theirs, info = opened
        check_loaded(info, folder)
        check_finite(theirs, folder)
        model = from_huggingface(theirs, *_normalisation(folder))
    with opening(folder, "tokenizer", "It must lie beside the model"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if not tokenizer.encode("words"):  # without its files the library makes an empty one
            raise UsageError(f"{folder} has no tokenizer; it must lie beside the model")
    if tokenizer.eos_token_id != model.shape.end:
        raise UsageError(
            f"the tokenizer in {folder} ends a text with {tokenizer.eos_token_id}, and the model "
            f"reads off at {model.shape.end}: take both from one model"
        )
    return model, tokenizer


def _normalisation(folder: Path) -> tuple[Any, Any]:
    """Mean and deviation of the channels; OpenAI's where the folder does not say."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return MEAN, STD
    settings = json.loads(file.read_text(encoding="utf-8"))
    return settings.get("image_mean", MEAN), settings.get("image_std", STD)


def _from_hub(name: str) -> str:
    """The folder of a model, downloaded now unless it was before. Raises UsageError."""
    from huggingface_hub import snapshot_download

    from labkit.data.fetch import reachable

    try:
        return snapshot_download(name, allow_patterns=FILES, local_files_only=not reachable(HUB))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"model={name} is neither a folder nor a model that can be got from the hub "
            f"({short(error, 160)}). {FIX}."
        ) from error
