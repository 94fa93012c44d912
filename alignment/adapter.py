"""An adapter on disk, in peft's own format: `PeftModel.from_pretrained(base, folder)` reads it.

Two small files: adapter_config.json, and adapter_model.safetensors with A and B of every layer.

peft can save many variants that a LoRALayer does not support. So the settings are a closed list:
each is used here (`USED`), cannot change what the model computes (`WITHOUT_EFFECT`), or must have
peft's own default; and each tensor in the file is used, or is the base's own.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.pytorch_utils import Conv1D

from alignment.lora import LoRALayer, lora_layers
from labkit import UsageError

if TYPE_CHECKING:
    from peft import LoraConfig

PREFIX = "base_model.model."
"""What peft puts before the names of a model's layers."""

USED = (
    "r lora_alpha use_rslora rank_pattern alpha_pattern target_modules exclude_modules "
    "layers_to_transform layers_pattern"
).split()
"""Settings that say which layers have an update, its rank and its factor."""

WITHOUT_EFFECT = (
    "auto_mapping peft_version base_model_name_or_path revision inference_mode runtime_config "
    "lora_dropout fan_in_fan_out megatron_core qalora_group_size"
).split()
"""Labels, settings of training (the dropout is the LoRALayer's own), what peft corrects by itself
(fan_in_fan_out), and parts of settings that must be off."""

CHOICES: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": (None, "CAUSAL_LM"),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}
"""Values that leave the base as it is. Others change its weights too (init_lora_weights=pissa), or
put another head on it (task_type=SEQ_CLS)."""


def save_adapter(model: Any, folder: Path) -> None:
    """Write the LoRALayers of a model to `folder`. Raises UsageError when it has none."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    layers = lora_layers(model)
    if not layers:
        raise UsageError("this model has no LoRALayer to save; call add_lora(model, ...) first")
    first = next(iter(layers.values()))
    alphas = {name: layer.scale * layer.rank for name, layer in layers.items()}
    alpha = first.scale * first.rank
    LoraConfig(
        r=first.rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # need not be whole
        rank_pattern={n: layer.rank for n, layer in layers.items() if layer.rank != first.rank},
        alpha_pattern={n: a for n, a in alphas.items() if a != alpha},
        target_modules=_targets(model, layers),
        fan_in_fan_out=first.conv1d,
        lora_dropout=first.dropout.p,
        task_type="CAUSAL_LM",
    ).save_pretrained(str(folder))
    tensors = {}
    for name, layer in layers.items():
        for letter, value in (("A", layer.a), ("B", layer.b)):
            tensors[f"{PREFIX}{name}.lora_{letter}.weight"] = value.detach().cpu().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _targets(model: Any, layers: dict[str, LoRALayer]) -> list[str]:
    """The last names of the updated layers; full names if other layers have the same last name."""
    last = {name.rpartition(".")[2] for name in layers}
    others = _layers(model) - layers.keys()
    return sorted(layers if any(name.rpartition(".")[2] in last for name in others) else last)


def _layers(model: Any) -> set[str]:
    """Names of the layers that can have an update, whether they have one or not."""
    kinds = (torch.nn.Linear, Conv1D, LoRALayer)
    named = {name for name, layer in model.named_modules() if isinstance(layer, kinds)}
    return named - {f"{name}.base" for name in lora_layers(model)}


def load_adapter(model: Any, folder: Path) -> None:
    """Fill a model's LoRALayers with a saved adapter, ours or one that peft wrote.

    The model then computes what peft's would. Weights of the base in the file (peft adds the head's
    own where the head has an update) must equal those of the model.

    Raises UsageError, and changes nothing, when `folder` holds no adapter, or one with a setting or
    a tensor that does not fit this model: other layers, another rank, another factor of the update,
    DoRA, trained biases and so on.
    """
    config, tensors = _read(folder)
    layers = lora_layers(model)
    for name in sorted(_layers(model)):
        if _targeted(config, name) and name not in layers:
            raise UsageError(f"{folder} also adapts {PREFIX}{name}, which is plain in this model")
    values = {}
    for name, layer in layers.items():
        values[name] = _values(layer, name, tensors, config, folder)
    for name, value in tensors.items():
        _check_base(model, name, value, folder)
    with torch.no_grad():
        for name, (a, b) in values.items():
            layers[name].a.copy_(a)
            layers[name].b.copy_(b)


def _read(folder: Path) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    from peft import LoraConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError(f"adapter_config.json holds {settings!r} and no settings")
        _check_settings(settings, folder)
        known = {field.name for field in fields(LoraConfig)} & settings.keys()
        config = LoraConfig(**{name: settings[name] for name in known})
        for rank in (config.r, *(config.rank_pattern or {}).values()):
            if not isinstance(rank, int) or rank < 1:
                raise ValueError(f"a rank of {rank!r}")
        return config, load_file(folder / "adapter_model.safetensors")
    except (OSError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise UsageError(
            f"{folder} holds no adapter that can be read: {error}. Expected are "
            "adapter_config.json and adapter_model.safetensors, as peft's save_pretrained writes "
            "them"
        ) from error


def _check_settings(settings: dict[str, Any], folder: Path) -> None:
    """Raises UsageError for a setting that changes what the model computes and is not applied."""
    from peft import LoraConfig

    default = LoraConfig()
    for name, value in settings.items():
        if hasattr(default, name):
            allowed = CHOICES.get(name, (getattr(default, name),))
        else:
            allowed = (None, False, [], {}, "")  # a setting of a later version of peft that is off
        if name not in USED and name not in WITHOUT_EFFECT and value not in allowed:
            raise UsageError(
                f"the adapter in {folder} has {name}={value!r}, which load_adapter does not know; "
                "load it with peft.PeftModel.from_pretrained"
            )


def _targeted(config: LoraConfig, name: str) -> bool:
    """Whether peft would put an update around the layer `name`."""
    from peft.tuners.tuners_utils import check_target_module_exists

    return config.target_modules is not None and bool(check_target_module_exists(config, name))


def _scale(config: LoraConfig, name: str) -> tuple[int, float]:
    """Rank and factor of the update of a layer, as peft finds them."""
    from peft.utils.other import get_pattern_key

    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    rank = ranks.get(get_pattern_key(list(ranks), name), config.r)
    alpha = alphas.get(get_pattern_key(list(alphas), name), config.lora_alpha)
    return rank, alpha / (rank**0.5 if config.use_rslora else rank)


def _values(
    layer: LoRALayer,
    name: str,
    tensors: dict[str, torch.Tensor],
    config: LoraConfig,
    folder: Path,
) -> list[torch.Tensor]:
    """A and B of one layer, taken out of `tensors`."""
    rank, scale = _scale(config, name)
    found = []
    for letter, parameter in (("A", layer.a), ("B", layer.b)):
        value = tensors.pop(f"{PREFIX}{name}.lora_{letter}.weight", None)
        fits = value is not None and value.shape == parameter.shape and _targeted(config, name)
        if value is None or not fits or abs(scale - layer.scale) > 1e-9 * abs(scale):
            raise UsageError(
                f"the adapter in {folder} does not fit {name}: expected rank {layer.rank} and "
                f"alpha / rank {layer.scale:g}, found {rank} and {scale:g}; make the model's "
                f"layers with the adapter's own: add_lora(..., rank={rank}, alpha={scale * rank:g})"
            )
        found.append(value)
    return found


def _check_base(model: Any, name: str, value: torch.Tensor, folder: Path) -> None:
    """Raises UsageError for a tensor that is not an update, unless it is the base's own weight."""
    own = model.state_dict().get(name.removeprefix(PREFIX).replace(".base_layer.", ".base."))
    if ".lora_" in name:
        raise UsageError(f"{folder} also adapts {name}, which is plain in this model")
    if own is None or own.shape != value.shape or not torch.equal(own.cpu(), value.to(own.dtype)):
        raise UsageError(
            f"{folder} holds {name}, which differs from this model's own; load it with "
            "peft.PeftModel.from_pretrained"
        )
