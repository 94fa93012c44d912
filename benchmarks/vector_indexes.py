"""FAISS's indexes and the inverted file by hand: recall@10 against time and bytes.

    python benchmarks/vector_indexes.py [--n 20000] [--d 256] [--queries 200]

Vectors of length 1 around 200 centres, as passages lie around their documents; queries are other
vectors around the same centres. Comparisons are counted for the inverted file, whose cost does not
depend on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from retrieval.index import FILE, Kind, VectorIndex, unit_rows
from retrieval.ivf import IVF, agreement

K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("n", 20_000), ("d", 256), ("queries", 200), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    centres = rng.normal(size=(200, args.d))

    def draw(count: int) -> np.ndarray:
        around = centres[rng.integers(200, size=count)]
        return unit_rows(around + 0.8 * rng.normal(size=around.shape))

    x, q = draw(args.n), draw(args.queries)
    exact = np.argsort(-(q @ x.T), axis=1)[:, :K]
    print(f"{args.n:,} vectors of {args.d}, {args.queries} queries, recall@{K}")
    kinds: list[tuple[Kind, int]] = [("flat", 0), ("ivf", 4), ("ivf", 16), ("pq", 0), ("hnsw", 0)]
    for kind, probes in kinds:
        index = VectorIndex(kind, args.d, probes=probes)
        begun = time.process_time()
        index.add(np.arange(args.n), x)
        built = time.process_time() - begun
        begun = time.process_time()
        ids, _ = index.search(q, K)
        each = 1e3 * (time.process_time() - begun) / args.queries
        with tempfile.TemporaryDirectory() as folder:
            index.save(Path(folder))
            size = (Path(folder) / FILE).stat().st_size / args.n
        name = f"{kind} {probes or ''}"
        print(f"{name:10} recall {agreement(ids, exact):.3f}  {each:7.3f} ms a query  "
              f"{built:6.2f} s to build  {size:6.0f} bytes a vector")  # fmt: skip
    lists = round(args.n**0.5)
    ivf = IVF(x, lists)
    for probes in (1, 4, 16):
        begun = time.process_time()
        ids, computed = ivf.search(q, K, probes)
        each = 1e3 * (time.process_time() - begun) / args.queries
        print(f"by hand {probes:2} recall {agreement(ids, exact):.3f}  {each:7.3f} ms a query  "
              f"{100 * computed / args.n:.1f} % of the comparisons")  # fmt: skip


if __name__ == "__main__":
    main()
