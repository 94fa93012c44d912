"""Measuring the searches one by one, the inverted file, and the answers.

What is chosen (weights of the fusions, lists to probe, the threshold) is chosen on the validation
questions; the test questions are of other documents than both others. All passages are searched.
"""

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from labkit.data import Question, QuestionData, epoch_order
from retrieval import metrics
from retrieval.batches import has_answer
from retrieval.bm25 import top_k
from retrieval.embed import Embedder
from retrieval.index import unit_rows
from retrieval.ivf import IVF, agreement
from retrieval.pipeline import Pipeline
from retrieval.rag import Extracted, choose_threshold, citations, extract
from retrieval.store import Store
from retrieval.tensors import Sheets

K = 10
"""Ranks that nDCG and recall count."""
PROBED = 500
"""Validation questions on which the lists to probe are chosen."""
GRID = tuple(np.linspace(0.05, 0.95, 19).tolist())
"""Weights of a fusion that are tried."""


@dataclass(frozen=True)
class Asked:
    """Questions of one split with what the two searches found for them."""

    rows: Sequence[Question]
    texts: list[str]
    gold: np.ndarray
    """int64 (Q,), each question's passage."""
    words: np.ndarray
    """Ids by BM25, (Q, depth)."""
    meaning: np.ndarray
    """Ids by the encoder, (Q, depth)."""

    def first(self, count: int) -> "Asked":
        """A part of them, the same in every run."""
        chosen = np.sort(epoch_order(len(self.rows), 0, 0)[:count])
        return Asked(
            [self.rows[i] for i in chosen], [self.texts[i] for i in chosen],
            self.gold[chosen], self.words[chosen], self.meaning[chosen],
        )  # fmt: skip


def ask(store: Store, rows: Sequence[Question]) -> Asked:
    """Search for the questions in both ways."""
    texts = [row.text for row in rows]
    return Asked(rows, texts, np.array([row.passage for row in rows]), *store.rankings(texts))


def ndcg(ids: np.ndarray, gold: np.ndarray) -> float:
    """Mean nDCG@10 in %, where each question has one right passage."""
    return float(100 * metrics.ndcg(*metrics.single(ids, gold), K).mean())


def recall(ids: np.ndarray, gold: np.ndarray, k: int) -> float:
    """Mean recall@k in %."""
    return float(100 * metrics.recall(*metrics.single(ids, gold), k).mean())


def choose_weight(store: Store, asked: Asked) -> float:
    """The dense ranking's weight of highest nDCG@10 on these questions."""
    found = {}
    for weight in GRID:
        store.weight = weight
        found[weight] = ndcg(store.fuse((asked.words, asked.meaning), K)[0], asked.gold)
    return max(found, key=found.__getitem__)


def search_metrics(store: Store, test: Asked) -> tuple[dict[str, float], np.ndarray]:
    """The searches alone: nDCG@10 and recall in %; and the hybrid's ids, (Q, depth)."""
    hybrid, _ = store.fuse((test.words, test.meaning), store.depth)
    found = {
        "ndcg_bm25": ndcg(test.words, test.gold),
        "ndcg_dense": ndcg(test.meaning, test.gold),
        "ndcg_hybrid": ndcg(hybrid, test.gold),
        "recall_at_1": recall(hybrid, test.gold, 1),
        "recall_at_10": recall(hybrid, test.gold, 10),
        "mrr": float(metrics.reciprocal_rank(metrics.single(hybrid, test.gold)[0], K).mean()),
    }
    found["hybrid_gain"] = found["ndcg_hybrid"] - max(found["ndcg_bm25"], found["ndcg_dense"])
    return found, hybrid


def ivf_metrics(
    store: Store, valid: Asked, test: Asked, share: float, seed: int
) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """The inverted file by hand against exact search, in %: recall@10, and comparisons.

    It has √N lists. Three quarters of the comparisons are for the vectors that the signs choose,
    and as many lists are probed as keep those of the validation questions within `share` of N.
    Also returns (comparisons, recall) of every number of probes on the test questions, for the
    figure; and the recall of the lists without codes at the same cost.
    """
    vectors = unit_rows(store.embedder([p.text for p in store.passages]))
    n = len(vectors)
    lists = max(1, min(n, round(n**0.5)))
    again = max(K, round(0.75 * share * n))
    ivf = IVF(vectors, lists, seed)
    asked = unit_rows(store.embedder(valid.first(PROBED).texts))

    def most(again: int | None) -> int:
        """The most lists within the cost, which grows with them; found by halving."""

        def cost(probes: int) -> float:
            return ivf.search(asked, K, probes, again)[1] / n

        # A little below, since test questions can cost a little more.
        return max(1, bisect_right(range(1, lists + 1), 0.98 * share, key=cost))

    queries = unit_rows(store.embedder(test.texts))
    exact = test.meaning[:, :K]
    chosen, curve = most(again), []
    for probes in sorted({1, 2, 4, 8, 16, 32, chosen} & set(range(1, lists + 1))):
        ids, computed = ivf.search(queries, K, probes, again)
        curve.append((100 * computed / n, 100 * agreement(ids, exact)))
        if probes == chosen:
            found = {"ivf_computed": curve[-1][0], "ivf_recall": curve[-1][1]}
    plain, _ = ivf.search(queries, K, most(None))
    return found | {"ivf_plain_recall": 100 * agreement(plain, exact)}, curve


@dataclass(frozen=True)
class Answers:
    """What the reader answers, and whether the answer stands in the corpus that was searched."""

    asked: Asked
    ids: np.ndarray
    """Passages read, (Q, n), in their final order."""
    extracted: list[Extracted]


def rerank(
    pipeline: Pipeline, store: Store, sheets: Sheets, asked: Asked, allowed: np.ndarray | None
) -> tuple[Answers, np.ndarray]:
    """Search, read and answer; also returns the reranked ids (Q, n).

    `allowed`, bool (Q, N), are the passages of the corpus; all if left out.
    """
    choices = pipeline.choices
    ids, _ = store.fuse((asked.words, asked.meaning), choices.rerank, allowed)
    reading = pipeline.reader.read(asked.texts, ids, sheets)
    order = np.argsort(-reading.relevance, axis=1, kind="stable")
    ranked = np.take_along_axis(ids, order, axis=1)
    texts = [p.text for p in store.passages]
    extracted = extract(pipeline.reader, reading, ids, texts, sheets, choices.read)
    return Answers(asked, ids, extracted), ranked


def fused_ranks(store: Store, given: np.ndarray, ranked: np.ndarray, weight: float) -> np.ndarray:
    """The cross-encoder's ranking fused with the one it was given: ids (Q, n)."""
    before, store.weight = store.weight, weight
    ids, _ = store.fuse((given, ranked), given.shape[1])
    store.weight = before
    return ids


def without_article(store: Store, asked: Asked) -> np.ndarray:
    """bool (Q, N): all passages but those of the question's own document, so that nothing there
    can support an answer.
    """
    titles = np.array([p.title for p in store.passages])
    return titles[None, :] != titles[asked.gold][:, None]


def value(answers: Answers, answerable: bool) -> np.ndarray:
    """What giving each answer is worth more than keeping it back, see `choose_threshold`."""
    if not answerable:
        return np.full(len(answers.extracted), -1.0)
    pairs = zip(answers.extracted, answers.asked.rows, strict=True)
    return np.array([metrics.f1(found.text, row.answers) for found, row in pairs])


def stands(answer: str, passage: str) -> bool:
    """Whether an answer stands in a passage, letter by letter or in SQuAD's normal form."""
    return answer in passage or has_answer(passage, [answer])


def answer_metrics(
    pipeline: Pipeline, store: Store, full: Answers, empty: Answers
) -> dict[str, float]:
    """Exact match and F1 over all questions in %, whether or not an answer is given, and how good
    the answers that are given are.

    Args:
        full: answers with the whole corpus.
        empty: answers to the same questions without their documents.
    """
    texts = [p.text for p in store.passages]
    exact, overlap, grounded, unsupported = [], [], [], []
    threshold = pipeline.choices.threshold
    for row, found, ids in zip(full.asked.rows, full.extracted, full.ids, strict=True):
        exact.append(metrics.exact_match(found.text, row.answers))
        overlap.append(metrics.f1(found.text, row.answers))
        shown = [texts[i] for i in ids if i >= 0]
        cited = citations(found.text, found.passage + 1, shown)
        grounded.append(all(1 <= n <= len(shown) and stands(found.text, shown[n - 1])
                            for n in cited))  # fmt: skip
        if found.support >= threshold:
            read = texts[ids[found.passage]]
            unsupported.append(not has_answer(read, row.answers))
    false = [found.support >= threshold for found in empty.extracted]
    given = len(unsupported)
    return {
        "exact_match": 100 * float(np.mean(exact)),
        "f1": 100 * float(np.mean(overlap)),
        "answered": 100 * given / len(exact),
        "unsupported": 100 * float(np.mean(unsupported)) if given else 0.0,
        "false_answers": 100 * float(np.mean(false)),
        "grounded": 100 * float(np.mean(grounded)),
    }


def seconds_each(store: Store, texts: Sequence[str]) -> dict[str, float]:
    """Milliseconds of a question, one at a time, for the record's notes."""
    begun = time.perf_counter()
    for text in texts:
        store.bm25.search([text], K)
    words = time.perf_counter()
    for text in texts:
        store.index.search(store.embedder([text]), K)
    end = time.perf_counter()
    scale = 1000 / max(1, len(texts))
    return {"bm25_ms": scale * (words - begun), "dense_ms": scale * (end - words)}


def measure(
    pipeline: Pipeline, data: QuestionData, questions: int, share: float, seed: int
) -> tuple[dict[str, float], dict[str, float], list[tuple[float, float]]]:
    """Choose on the validation questions, then measure on the test questions.

    Returns the metrics, the notes, and the inverted file's curve; the choices are kept in
    `pipeline.choices`.
    """
    store = pipeline.store(data.passages)
    sheets = pipeline.reader.sheets([p.text for p in data.passages])
    valid, test = ask(store, data.valid), ask(store, data.test)
    store.weight = choose_weight(store, valid)
    pipeline.choices = replace(pipeline.choices, weight=store.weight)

    some = valid.first(questions)
    full, ranked = rerank(pipeline, store, sheets, some, None)
    empty, _ = rerank(pipeline, store, sheets, some, without_article(store, some))
    gains = {w: ndcg(fused_ranks(store, full.ids, ranked, w), some.gold) for w in (*GRID, 1.0)}
    support = np.array([found.support for each in (full, empty) for found in each.extracted])
    worth = np.concatenate([value(full, True), value(empty, False)])
    pipeline.choices = replace(
        pipeline.choices,
        rerank_weight=max(gains, key=gains.__getitem__),
        threshold=choose_threshold(support, worth),
    )

    found, _ = search_metrics(store, test)
    found["valid_ndcg_hybrid"] = ndcg(store.fuse((valid.words, valid.meaning), K)[0], valid.gold)
    inverted, curve = ivf_metrics(store, valid, test, share, seed)
    some = test.first(questions)
    full, ranked = rerank(pipeline, store, sheets, some, None)
    empty, _ = rerank(pipeline, store, sheets, some, without_article(store, some))
    final = fused_ranks(store, full.ids, ranked, pipeline.choices.rerank_weight)
    found["ndcg_reranked"] = ndcg(final, some.gold)
    found["rerank_gain"] = found["ndcg_reranked"] - ndcg(full.ids, some.gold)
    found |= inverted | answer_metrics(pipeline, store, full, empty)
    notes = seconds_each(store, some.texts[:50])
    notes |= {"weight": store.weight, "threshold": min(pipeline.choices.threshold, 1e9)}
    return found, notes, curve


def quick_ndcg(embedder: Embedder, data: QuestionData, count: int = 300) -> float:
    """nDCG@10 in % of the dense search on some validation questions among all passages."""
    chosen = epoch_order(len(data.valid), 0, 0)[:count]
    rows = [data.valid[i] for i in chosen]
    passages = unit_rows(embedder([p.text for p in data.passages]))
    scores = unit_rows(embedder([row.text for row in rows])) @ passages.T
    return ndcg(top_k(scores, K)[0], np.array([row.passage for row in rows]))
