"""Both trained models, and what was chosen on validation, in one object that can be saved."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from labkit.data import Passage
from labkit.learning.weights import check_finite, opening
from retrieval.embed import Embedder, Own, published
from retrieval.encoder import Encoder
from retrieval.rag import Reader
from retrieval.reader import CrossEncoder
from retrieval.store import Store
from retrieval.tensors import Vocabulary

TRAIN = "Train one: python -m retrieval.train +size=tiny"


@dataclass
class Choices:
    """What was chosen on the validation questions, and the sizes of the search."""

    weight: float = 0.5
    """Of the dense ranking in the fusion."""
    rerank_weight: float = 0.5
    """Of the cross-encoder's ranking, fused with the ranking it was given."""
    threshold: float = 0.0
    """Support that an answer needs."""
    depth: int = 100
    rerank: int = 10
    read: int = 5


class Pipeline:
    """Embedder and reader with their choices; `store` makes a memory for passages."""

    def __init__(self, embedder: Embedder, reader: Reader, choices: Choices, name: str) -> None:
        """`name` is `ours`, or that of a published encoder."""
        self.embedder, self.reader, self.choices, self.name = embedder, reader, choices, name

    def store(self, passages: Sequence[Passage] = ()) -> Store:
        """A memory with these passages."""
        store = Store(self.embedder, weight=self.choices.weight, depth=self.choices.depth)
        store.add(passages)
        return store

    def save(self, folder: Path) -> None:
        """Write weights and settings into `folder`, which is made if need be."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        models: dict[str, torch.nn.Module] = {"reader": self.reader.model}
        config: dict[str, Any] = {
            "encoder": self.name,
            "choices": asdict(self.choices),
            "longest": self.reader.longest,
            "reader": self.reader.model.settings,
            "words": self.reader.vocabulary.words,
            "idf": self.reader.vocabulary.idf,
        }
        if isinstance(self.embedder, Own):
            models["encoder"] = self.embedder.encoder
            config["own"] = self.embedder.encoder.settings
            config["buckets"] = self.embedder.buckets
        for name, model in models.items():
            weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
            save_file(weights, folder / f"{name}.safetensors")
        text = json.dumps(config, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> "Pipeline":
        """What a run saved. Raises UsageError, which names the folder and what is wrong with it."""
        from safetensors.torch import load_file

        with opening(folder, "retrieval model", TRAIN):
            config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
            vocabulary = Vocabulary(config["words"], config["idf"])
            model = CrossEncoder(torch.tensor(vocabulary.idf), **config["reader"])
            model.load_state_dict(load_file(Path(folder, "reader.safetensors")))
            check_finite(model, folder)
            embedder: Embedder
            if config["encoder"] == "ours":
                encoder = Encoder(torch.ones(config["buckets"]), **config["own"])
                encoder.load_state_dict(load_file(Path(folder, "encoder.safetensors")))
                check_finite(encoder, folder)
                embedder = Own(encoder.to(device).eval())
            else:
                embedder = published(config["encoder"], device)
            choices = Choices(**config["choices"])
        reader = Reader(model.to(device).eval(), vocabulary, config["longest"])
        return cls(embedder, reader, choices, config["encoder"])
