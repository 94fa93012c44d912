"""Measures and pictures of a finished run."""

from labkit import Run
from labkit.data import QuestionData
from labkit.show.console import say
from retrieval import evaluate, figures
from retrieval.pipeline import Pipeline
from retrieval.settings import SearchSettings


def report(
    run: Run, pipeline: Pipeline, data: QuestionData, search: SearchSettings
) -> dict[str, float]:
    """The headline metrics; draws searches.png, inverted_file.png and training.png."""
    found, notes, curve = evaluate.measure(
        pipeline, data, search.questions, search.computed, run.seed
    )
    run.note(**notes)
    names = ("bm25", "dense", "hybrid", "reranked")
    run.figure("searches", figures.bars({n: found[f"ndcg_{n}"] for n in names}, "nDCG@10, %"))
    chosen = found["ivf_computed"], found["ivf_recall"]
    run.figure("inverted_file", figures.trade(curve, chosen))
    run.plot("training", "train/retriever", "train/reader")
    say(
        f"nDCG@10: BM25 {found['ndcg_bm25']:.1f}, dense {found['ndcg_dense']:.1f}, hybrid "
        f"{found['ndcg_hybrid']:.1f}; exact match {found['exact_match']:.1f} %"
    )
    return found
