"""An adapter on disk, in peft's own format: `PeftModel.from_pretrained(base, folder)` reads it.

Two small files: adapter_config.json, and adapter_model.safetensors with A and B of every layer.
"""

from pathlib import Path
from typing import Any

import torch

from alignment.lora import LoRALayer, lora_layers
from labkit import UsageError

PREFIX = "base_model.model."
"""What peft puts before the names of a model's layers."""


def save_adapter(model: Any, folder: Path) -> None:
    """Write the LoRALayers of a model to `folder`."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    layers = lora_layers(model)
    first = next(iter(layers.values()))
    LoraConfig(
        r=first.rank,
        lora_alpha=first.scale * first.rank,  # type: ignore[arg-type]  # need not be whole
        target_modules=sorted({name.rpartition(".")[2] for name in layers}),
        fan_in_fan_out=first.conv1d,
        lora_dropout=first.dropout.p,
        task_type="CAUSAL_LM",
    ).save_pretrained(str(folder))
    tensors = {}
    for name, layer in layers.items():
        for letter, value in (("A", layer.a), ("B", layer.b)):
            tensors[f"{PREFIX}{name}.lora_{letter}.weight"] = value.detach().cpu().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def load_adapter(model: Any, folder: Path) -> None:
    """Fill a model's LoRALayers with a saved adapter, ours or one that peft wrote, which adds the
    head's own weight where the head has an update.

    Raises UsageError when the adapter was made for other layers, another rank or another alpha.
    """
    from peft import LoraConfig
    from safetensors.torch import load_file

    config = LoraConfig.from_pretrained(str(folder))
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors = {name: value for name, value in tensors.items() if ".lora_" in name}
    for name, layer in lora_layers(model).items():
        _fill(layer, name, tensors, config.lora_alpha / config.r, folder)
    if tensors:
        raise UsageError(f"{folder} also adapts {min(tensors)}, which is plain in this model")


@torch.no_grad()
def _fill(
    layer: LoRALayer, name: str, tensors: dict[str, torch.Tensor], scale: float, folder: Path
) -> None:
    for letter, parameter in (("A", layer.a), ("B", layer.b)):
        value = tensors.pop(f"{PREFIX}{name}.lora_{letter}.weight", None)
        if value is None or value.shape != parameter.shape or abs(scale - layer.scale) > 1e-9:
            raise UsageError(
                f"the adapter in {folder} does not fit {name}: expected rank {layer.rank} and "
                f"alpha / rank {layer.scale:g}; add_lora(...) with the adapter's own settings"
            )
        parameter.copy_(value)
