"""A trained model with its tokenizer: from pictures and captions to vectors of unit length.

config.json          the model's shape
model.safetensors    its weights
tokenizer.json ...   its tokenizer, as transformers writes it
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from labkit import UsageError
from labkit.learning.modes import evaluating
from labkit.learning.weights import check_finite, opening
from multimodal import tokens
from multimodal.towers import CLIP, CLIPShape, TowerShape

BATCH = 256
"""Pictures or captions that go through a tower at once."""


class Pipeline:
    """`embed_pictures` and `embed_texts`, for retrieval and classification."""

    def __init__(
        self,
        model: CLIP,
        tokenizer: Any,
        autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ) -> None:
        self.model, self.tokenizer, self.autocast = model, tokenizer, autocast

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.log_scale.device

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """uint8 (N, 3, S, S) on any device -> float32 (N, d), of unit length."""
        return self._embed(pictures, self.model.encode_images)

    def embed_texts(self, captions: Sequence[str], cut: bool = False) -> Tensor:
        """float32 (M, d), of unit length. Equal captions are computed once.

        Raises UsageError as `tokens.encode` does.
        """
        different = list(dict.fromkeys(captions))
        rows = tokens.encode(self.tokenizer, different, self.model.shape.context, cut)
        place = {caption: i for i, caption in enumerate(different)}
        index = torch.tensor([place[caption] for caption in captions], device=self.device)
        return self._embed(rows, self.model.encode_texts)[index]

    def _embed(self, inputs: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        parts = []
        with evaluating(self.model), self.autocast():
            for part in inputs.split(BATCH):
                parts.append(F.normalize(encode(part.to(self.device)).float(), dim=1))
        if not parts:
            return torch.empty(0, self.model.shape.embedding, device=self.device)
        return torch.cat(parts)

    def save(self, folder: Path) -> None:
        """Write model and tokenizer into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(asdict(self.model.shape), indent=2))
        weights = {k: v.detach().cpu().contiguous() for k, v in self.model.state_dict().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Pipeline:
        """What `save` wrote. Raises UsageError that names the folder and its fault."""
        from transformers import PreTrainedTokenizerFast

        with opening(
            folder, "model of this week", "Train one: python -m multimodal.train +size=tiny"
        ):
            numbers = json.loads((folder / "config.json").read_text())
            image, text = (TowerShape(**numbers.pop(part)) for part in ("image", "text"))
            model = CLIP(CLIPShape(image=image, text=text, **numbers))
            model.load_state_dict(load_file(folder / "model.safetensors"))
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        check_finite(model, folder)
        if tokenizer.eos_token_id != model.shape.end:
            raise UsageError(f"the tokenizer in {folder} is not the model's; copy the whole folder")
        return cls(model.to(device).eval(), tokenizer)
