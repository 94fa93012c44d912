"""A folder such as a published CLIP's, small and with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

from multimodal.tokens import word_tokenizer


def make_folder(folder: Path, act: str = "quick_gelu", eos: int = 39) -> Any:
    """A CLIPModel of random weights and its tokenizer, saved as a published one is."""
    tokenizer = word_tokenizer([" ".join(f"w{i}" for i in range(37))])  # END is 39
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "hidden_act": act}
    model = CLIPModel(
        CLIPConfig(
            text_config={**sizes, "num_attention_heads": 4, "vocab_size": 40, "eos_token_id": eos,
                         "max_position_embeddings": 12},
            vision_config={**sizes, "num_attention_heads": 2, "image_size": 24, "patch_size": 8},
            projection_dim=20,
        )
    )  # fmt: skip
    with torch.no_grad():
        for (
            parameter
        ) in model.parameters():  # biases and gains are not all alike, as after training
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    means = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(means))
    return model.eval()
