"""Questions about a memory of passages, answered in a stream, with the passages beside the answer.

The terminal (`chat.py`), the page (`app.py`) and other programmes use this.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit import UsageError, paths
from labkit.data import Passage, QuestionData, load
from labkit.run import folders
from retrieval.corpus import passages_of, read_folder
from retrieval.generate import ChatModel, addresses_model, prompt
from retrieval.pipeline import Pipeline
from retrieval.rag import UNKNOWN, check_citations, citations
from retrieval.store import Hit, Store


@dataclass(frozen=True)
class Answer:
    """What has been answered so far; the last one of a stream is complete."""

    text: str
    citations: tuple[int, ...]
    """Numbers of the hits that support it, from 1; empty while it is not complete."""
    hits: tuple[Hit, ...]
    known: bool
    """Whether an answer is given that a passage supports."""


class Assistant:
    """Search, reader and, if there is one, a language model."""

    def __init__(self, pipeline: Pipeline, store: Store, model: ChatModel | None = None) -> None:
        self.pipeline, self.store, self.model = pipeline, store, model

    def find(self, question: str) -> tuple[list[Hit], str, int, float]:
        """Passages in their reranked order, the likeliest span, its passage's number from 1 (0 for
        none), and how well it is supported. Raises UsageError as `Store.search` does.
        """
        choices, reader = self.pipeline.choices, self.pipeline.reader
        hits = self.store.search(question, choices.rerank)
        if not hits:
            return [], "", 0, -np.inf
        sheets = reader.sheets([hit.passage.text for hit in hits])
        reading = reader.read([question], np.arange(len(hits))[None], sheets)
        relevance = reading.relevance[0]
        places = np.empty(len(hits), int)
        places[np.argsort(-relevance, kind="stable")] = np.arange(len(hits))
        weight = choices.rerank_weight  # as `reciprocal_rank_fusion` of both orders
        score = (1 - weight) / (61 + np.arange(len(hits))) + weight / (61 + places)
        order = np.argsort(-score, kind="stable")[: choices.read]
        best = int(reading.support[0, order].argmax())
        chosen = int(order[best])
        first, last = int(reading.first[0, chosen]), int(reading.last[0, chosen])
        text = reader.text(hits[chosen].passage.text, sheets.places[chosen], first, last)
        return [hits[i] for i in order], text, best + 1, float(reading.support[0, chosen])

    def stream(self, question: str) -> Iterator[Answer]:
        """The answer as it grows. Raises UsageError for a question that cannot be asked."""
        found, text, number, support = self.find(question)
        hits = tuple(found)
        if self.model is None:
            yield self.extracted(hits, text, number, support)
            return
        # Passages that address a model are shown to the person and not to the model.
        shown = [i for i, hit in enumerate(hits, start=1) if not addresses_model(hit.passage.text)]
        messages, room = prompt(
            question, [hits[i - 1].passage.text for i in shown], self.model.context
        )
        written = ""
        for piece in self.model.stream(messages):
            written += piece
            yield Answer(written, (), hits, False)
        text, kept = check_citations(written.strip(), room)
        renumbered = tuple(shown[n - 1] for n in kept)
        for n in sorted(kept, reverse=True):  # a number only rises, so none is changed twice
            text = text.replace(f"[{n}]", f"[{shown[n - 1]}]")
        if "i do not know" in text.lower():
            yield Answer(UNKNOWN, (), hits, False)
        elif renumbered:
            yield Answer(text, renumbered, hits, True)
        else:
            yield Answer(f"{text}\n(The answer cites no passage.)", (), hits, False)

    def extracted(self, hits: tuple[Hit, ...], text: str, number: int, support: float) -> Answer:
        """The reader's span with its citations, or `UNKNOWN`."""
        if not number or support < self.pipeline.choices.threshold:
            return Answer(UNKNOWN, (), hits, False)
        cited = citations(text, number, [hit.passage.text for hit in hits])
        return Answer(f"{text} {''.join(f'[{n}]' for n in cited)}", tuple(cited), hits, True)


def find_model(where: str) -> Path:
    """The model of a run folder, or with `latest` of the run that finished last, artifacts
    included. Raises UsageError when there is none.
    """
    if where == "latest":
        found = [path.parent for path in (paths.runs() / "retrieval").glob("*/*/model/config.json")]
        if found:
            return folders.newest_first([path.parent for path in found])[0] / "model"
        published = sorted((paths.artifacts() / "retrieval").glob("*/config.json"))
        if published:
            return published[-1].parent
        raise UsageError(
            f"no finished run of retrieval is below {paths.runs()}; train one:\n"
            "    python -m retrieval.train +size=tiny"
        )
    folder = paths.typed(where)
    for candidate in (folder / "model", folder):
        if (candidate / "config.json").is_file():
            return candidate
    raise UsageError(f"run={where} is not a finished run of retrieval (no model/ in it)")


def open_store(pipeline: Pipeline, docs: str, kept: str = "") -> Store:
    """The memory to answer from: the files of a folder, or with docs=squad (or pydoc_cloze) the
    passages of that set. `kept` is a folder where its vectors are kept for the next time.
    """
    choices = pipeline.choices
    folder = paths.typed(kept) if kept else None
    if folder is not None and folder.is_dir():
        return Store.load(folder, pipeline.embedder, choices.weight, choices.depth)
    passages: Sequence[Passage]
    if docs in ("squad", "pydoc_cloze"):
        data = load(docs, "pydoc_cloze", QuestionData)
        assert isinstance(data, QuestionData)
        passages = data.passages
    else:
        documents = read_folder(paths.typed(docs))
        passages = [passage for document in documents for passage in passages_of(document)]
    store = pipeline.store(passages)
    if folder is not None:
        store.save(folder)
    return store
