"""A memory that grows: passages with both searches over them, added and removed at any time."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from labkit import UsageError
from labkit.data import Passage
from retrieval.bm25 import BM25, top_k
from retrieval.embed import Embedder
from retrieval.fusion import reciprocal_rank_fusion
from retrieval.index import Kind, VectorIndex

FILE = "passages.json"


@dataclass(frozen=True)
class Hit:
    """A passage that was found."""

    id: int
    passage: Passage
    score: float


class Store:
    """Passages by id; an id is not given again."""

    def __init__(
        self, embedder: Embedder, kind: Kind = "flat", weight: float = 0.5, depth: int = 100
    ) -> None:
        """Args:
        kind: of the FAISS index.
        weight: of the dense ranking in the fusion, 0 to 1; BM25's is the rest.
        depth: passages taken from each ranking.
        """
        self.embedder, self.weight, self.depth = embedder, weight, depth
        self.passages: list[Passage] = []
        self.bm25 = BM25()
        self.index = VectorIndex(kind, embedder.dim, embedder.fingerprint)

    def __len__(self) -> int:
        return len(self.bm25)

    def add(self, passages: Sequence[Passage]) -> np.ndarray:
        """Add passages and return their ids. Only these are read and encoded."""
        texts = [passage.text for passage in passages]
        ids = self.bm25.add(texts)
        self.passages += passages
        self.index.add(ids, self.embedder(texts))
        return ids

    def remove(self, title: str) -> int:
        """Remove the passages of a document; returns how many. Raises UsageError for a title that
        is not here.
        """
        ids = [i for i, p in enumerate(self.passages) if p.title == title and self.bm25.alive[i]]
        if not ids:
            raise UsageError(f"no document has the title {title!r}")
        self.bm25.remove(ids)
        self.index.remove(np.array(ids))
        return len(ids)

    def rankings(self, questions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids by BM25 and by the encoder, each (Q, depth), -1 at the end where there are fewer."""
        words, _ = self.bm25.search(questions, self.depth)
        meaning, _ = self.index.search(self.embedder(questions), self.depth)
        return words, meaning

    def fuse(
        self, rankings: Sequence[np.ndarray], k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The two rankings as one: ids and scores (Q, k). `allowed`, bool (Q, N), are the passages
        to choose from.
        """
        weights = (1 - self.weight, self.weight)
        scores = reciprocal_rank_fusion(rankings, len(self.passages), weights=weights)
        scores[scores == 0] = -np.inf
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        return top_k(scores, k)

    def search(self, question: str, k: int) -> list[Hit]:
        """The k best passages. Raises UsageError for a question that is empty or too long."""
        if not question.strip():
            raise UsageError("the question is empty: type one, such as: Who wrote the Iliad?")
        self.embedder.check(question)
        ids, scores = self.fuse(self.rankings([question]), k)
        return [
            Hit(int(i), self.passages[i], float(s))
            for i, s in zip(ids[0], scores[0], strict=True)
            if i >= 0
        ]

    def save(self, folder: Path) -> None:
        """Write passages and vectors into `folder`."""
        self.index.save(folder)
        rows = [asdict(p) if self.bm25.alive[i] else None for i, p in enumerate(self.passages)]
        (folder / FILE).write_text(json.dumps(rows), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, embedder: Embedder, weight: float, depth: int = 100) -> "Store":
        """What `save` wrote. Raises UsageError as `VectorIndex.load`, and when the passages are not
        those of the vectors.
        """
        store = cls(embedder, weight=weight, depth=depth)
        store.index = VectorIndex.load(folder, embedder.fingerprint)
        try:
            rows = json.loads((folder / FILE).read_text(encoding="utf-8"))
            store.passages = [Passage(**row) if row else Passage("", "") for row in rows]
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(
                f"{folder / FILE} cannot be read ({error}): remove {folder} to have it made again"
            ) from error
        store.bm25.add(p.text for p in store.passages)
        store.bm25.remove([i for i, row in enumerate(rows) if row is None])
        if sorted(store.index.held.tolist()) != np.flatnonzero(store.bm25.alive).tolist():
            raise UsageError(
                f"passages and vectors in {folder} do not belong together: remove it to have it "
                "made again"
            )
        return store
