"""FAISS behind one interface: flat, IVF, PQ and HNSW (Douze et al. 2024, The Faiss library).

    flat    every vector is compared: exact
    ivf     vectors in lists; the nearest lists are searched (see ivf.py)
    pq      each vector in a few bytes (Jégou et al. 2011); distances from tables
    hnsw    a graph of neighbours, searched greedily (Malkov & Yashunin 2018)

All search by inner product. It is the cosine only for vectors of length 1. For others, long vectors
win whatever they are about, so `unit_rows` comes first, for what is added and for what is asked.

A file tells the encoder's fingerprint: vectors of two encoders cannot be compared.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from labkit import UsageError, exercise

Kind = Literal["flat", "ivf", "pq", "hnsw"]
FILE, NOTE = "vectors.faiss", "vectors.json"


@exercise(minutes=10)
def unit_rows(x: np.ndarray) -> np.ndarray:
    """Each row scaled to Euclidean length 1; a row of zeros stays as it is.

    Args:
        x: float (N, d), not changed. Its numbers may be so small or so large that their squares
            leave the range of float32: compute in float64.
    Returns:
        float32 (N, d), in C order as FAISS needs it.
    """
    exact = x.astype(np.float64)
    length = np.sqrt(np.square(exact).sum(axis=1, keepdims=True))
    return np.ascontiguousarray(exact / np.where(length > 0, length, 1), np.float32)


class VectorIndex:
    """Vectors by id, which can be added and removed without building the index anew."""

    def __init__(self, kind: Kind, dim: int, fingerprint: str = "", probes: int = 8) -> None:
        """Args:
        dim: d.
        fingerprint: of the encoder whose vectors these are.
        probes: lists that ivf looks into.
        """
        self.kind, self.dim, self.fingerprint, self.probes = kind, dim, fingerprint, probes
        self.held = np.zeros(0, np.int64)
        """Ids that can be found, in the order of adding."""
        self.removed: set[int] = set()
        """Of hnsw, whose graph loses no vector: they are left out of what it finds."""
        self.index: Any = None

    def __len__(self) -> int:
        """Vectors that can be found."""
        return len(self.held)

    def _new(self, count: int) -> Any:
        """An empty index, with sizes that fit the first `count` vectors."""
        import faiss

        metric = faiss.METRIC_INNER_PRODUCT
        index: Any
        if self.kind == "ivf":
            lists = min(count, round(2 * count**0.5))
            index = faiss.index_factory(self.dim, f"IVF{lists},Flat", metric)
            index.cp.min_points_per_centroid = 1  # warns of few vectors otherwise
            return index  # keeps ids by itself, and removes by them
        if self.kind == "pq":
            pieces = max(m for m in (1, 2, 4, 8, 16, 32) if self.dim % m == 0)
            # Eight vectors for each centroid of a piece, or k-means learns single vectors.
            bits = min(8, max(1, int(np.log2(max(2, count / 8)))))
            index = faiss.index_factory(self.dim, f"PQ{pieces}x{bits}", metric)
            index.pq.cp.min_points_per_centroid = 1
        else:
            index = faiss.index_factory(
                self.dim, {"flat": "Flat", "hnsw": "HNSW32"}[self.kind], metric
            )
        return faiss.IndexIDMap2(index)

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors (N, d) by ids (N,). The first call also trains ivf and pq.

        Raises ValueError for vectors of another dimension, or an id that is there already.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim or len(ids) != len(vectors):
            raise ValueError(f"(N, {self.dim}) vectors with N ids are needed, got {vectors.shape}")
        if not len(vectors):
            return
        taken = np.append(self.held, sorted(self.removed))
        if len(np.unique(ids)) < len(ids) or np.isin(ids, taken).any():
            raise ValueError("an id can be given only once")
        rows = unit_rows(vectors)
        if self.index is None:
            self.index = self._new(len(rows))
        if not self.index.is_trained:
            self.index.train(rows)
        self.index.add_with_ids(rows, np.asarray(ids, np.int64))
        self.held = np.append(self.held, np.asarray(ids, np.int64))

    def remove(self, ids: np.ndarray) -> None:
        """Remove vectors. Raises KeyError for an id that is not there."""
        missing = np.setdiff1d(ids, self.held)
        if len(missing):
            raise KeyError(f"no vector has the id {missing[0]}")
        if self.kind == "hnsw":
            self.removed |= {int(i) for i in ids}
        else:
            self.index.remove_ids(np.asarray(ids, np.int64))
        self.held = self.held[~np.isin(self.held, ids)]

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """ids and cosines of the k nearest of each query, (Q, d) -> both (Q, k), best first.

        Where fewer were found, -1 and -inf. Raises ValueError for queries of another dimension.
        """
        import faiss

        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"queries (Q, {self.dim}) are needed, got {queries.shape}")
        found = np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf)
        if not len(self) or not len(queries):
            return found
        wanted = min(k + len(self.removed), int(self.index.ntotal))
        if self.kind == "ivf":
            self.index.nprobe = self.probes
        if self.kind == "hnsw":
            graph: Any = faiss.downcast_index(self.index.index)
            graph.hnsw.efSearch = max(64, wanted)
        scores, ids = self.index.search(unit_rows(queries), wanted)
        gone = np.isin(ids, [-1, *self.removed])
        order = np.argsort(gone, axis=1, kind="stable")[:, :k]
        ids = np.where(gone, -1, ids)
        scores = np.where(gone, -np.inf, scores)
        for whole, part in zip(found, (ids, scores), strict=True):
            whole[:, : order.shape[1]] = np.take_along_axis(part, order, axis=1)
        return found

    def save(self, folder: Path) -> None:
        """Write two files into `folder`, which is made if need be."""
        import faiss

        folder.mkdir(parents=True, exist_ok=True)
        if self.index is None:
            (folder / FILE).write_bytes(b"")
        else:
            faiss.write_index(self.index, str(folder / FILE))
        note = {
            "kind": self.kind, "dim": self.dim, "fingerprint": self.fingerprint,
            "probes": self.probes, "held": self.held.tolist(),
            "removed": sorted(self.removed),
            "sha256": hashlib.sha256((folder / FILE).read_bytes()).hexdigest(),
        }  # fmt: skip
        (folder / NOTE).write_text(json.dumps(note) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, fingerprint: str) -> "VectorIndex":
        """What `save` wrote. Raises UsageError when it is not there, was cut short, or is of
        another encoder than `fingerprint`.
        """
        import faiss

        again = f"remove {folder} to have it made again"
        try:
            note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
            raw = (folder / FILE).read_bytes()
        except (OSError, ValueError) as error:
            raise UsageError(f"{folder} holds no index ({error}): {again}") from error
        if hashlib.sha256(raw).hexdigest() != note.get("sha256"):
            raise UsageError(f"{folder / FILE} is cut short or damaged: {again}")
        if note["fingerprint"] != fingerprint:
            raise UsageError(
                f"the index in {folder} was made by another encoder ({note['fingerprint'][:12]}, "
                f"this one is {fingerprint[:12]}), so its vectors mean something else: {again}"
            )
        index = cls(note["kind"], note["dim"], fingerprint, note["probes"])
        index.removed = set(note["removed"])
        index.held = np.array(note["held"], np.int64)
        index.index = faiss.read_index(str(folder / FILE)) if raw else None
        return index
