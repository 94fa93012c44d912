"""Week 19's BM25 against rank-bm25 and bm25s: seconds to index and per question, same scores.

    pip install -e ".[bench]"
    python benchmarks/bm25.py [--data squad] [--questions 500] [--repeats 3]

All get the same lists of terms, and every question's 10 best passages are wanted. rank-bm25 scores
all passages of a question in Python and NumPy; bm25s keeps sparse scores as this week does. Ours is
timed in batches, as its tests and training use it, and one question at a time. Before anything is
timed, the scores of ours and rank-bm25 are compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from labkit.data import QuestionData, load
from retrieval.bm25 import BM25, terms

K = 10


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """CPU seconds of each repeat."""
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default="squad")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    try:
        import bm25s
        from rank_bm25 import BM25Okapi
    except ImportError as error:
        sys.exit(f'{error.name} is not installed. Type: pip install -e ".[bench]"')

    data = load(args.data, "pydoc_cloze", QuestionData)
    assert isinstance(data, QuestionData)
    texts = [p.text for p in data.passages]
    questions = [row.text for row in (*data.test, *data.valid, *data.train)][: args.questions]
    split, asked = [terms(t) for t in texts], [terms(q) for q in questions]
    theirs, ours = BM25Okapi(split), BM25(texts)
    gap = max(np.abs(ours.scores([q])[0] - theirs.get_scores(a)).max()
              for q, a in zip(questions[:50], asked, strict=False))  # fmt: skip
    print(f"{data.name}: {len(texts):,} passages, {len(questions)} questions, "
          f"greatest difference of a score {gap:.1e}")  # fmt: skip
    assert gap < 1e-6

    def rank_bm25() -> None:
        for a in asked:
            scores = theirs.get_scores(a)
            np.argpartition(-scores, K)[:K]

    fast = bm25s.BM25(k1=1.5, b=0.75)
    fast.index(split, show_progress=False)
    works: dict[str, Callable[[], object]] = {
        "rank-bm25": rank_bm25,
        "bm25s": lambda: fast.retrieve(asked, k=K, show_progress=False, n_threads=1),
        "ours, in batches": lambda: ours.search(questions, K),
        "ours, one by one": lambda: [ours.search([q], K) for q in questions],
    }
    each = {}
    for name, work in works.items():
        times = [1e3 * s / len(questions) for s in seconds(work, args.repeats)]
        each[name] = statistics.median(times)
        print(f"{name:18} {each[name]:8.3f} ms a question  ({min(times):.3f} to {max(times):.3f})")
    builds = {
        "rank-bm25": lambda: BM25Okapi([terms(t) for t in texts]),
        "ours": lambda: BM25(texts),
    }
    for name, work in builds.items():
        print(f"{name:18} {statistics.median(seconds(work, args.repeats)):8.3f} s to index")
    for name in ("ours, in batches", "ours, one by one"):
        print(f"{name}: {each['rank-bm25'] / each[name]:.0f} x as fast as rank-bm25, "
              f"{each['bm25s'] / each[name]:.1f} x as fast as bm25s")  # fmt: skip


if __name__ == "__main__":
    main()
