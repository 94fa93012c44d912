"""Questions about passages: SQuAD 1.1, and clozes over CPython's manual, which need no download."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labkit.data.files import FIX, decode, unzip
from labkit.data.kinds import DataError
from labkit.data.questions import Passage, Question, QuestionData
from labkit.data.sets.images import source_of

SQUAD_URL = "https://huggingface.co/datasets/rajpurkar/squad"
SQUAD_QUESTIONS = {"train": 87_599, "dev": 10_570}
"""Another count shows a cut or altered copy."""
CLOZE_WORDS = (30, 120)
"""Words of a passage of `pydoc_cloze`, at least and at most."""
PER_PASSAGE = 2
"""Questions about a passage of `pydoc_cloze`, at most."""

Split = tuple[list[Passage], dict[str, list[Question]]]


def read_squad(folder: Path) -> QuestionData | None:
    """SQuAD 1.1 (Rajpurkar et al. 2016), CC BY-SA 4.0: squad/{train,dev}-v1.1.json.gz.

    With both files the dev articles are the test split, and every twentieth article of the other
    is for validation. With the dev file alone the set is named squad_dev: of its 48 articles, in
    alphabetical order, every sixth is for testing and the one before it for validation.
    """
    train, dev = (folder / "squad" / f"{name}-v1.1.json.gz" for name in ("train", "dev"))
    if not dev.is_file():
        return None
    articles = _articles(dev, SQUAD_QUESTIONS["dev"])
    if train.is_file():
        others = _articles(train, SQUAD_QUESTIONS["train"])
        parts = ["valid" if i % 20 == 19 else "train" for i in range(len(others))]
        name, places = "squad", [*parts, *["test"] * len(articles)]
        articles = [*others, *articles]
    else:
        name = "squad_dev"
        places = [{4: "valid", 5: "test"}.get(i % 6, "train") for i in range(len(articles))]
    passages: list[Passage] = []
    splits: dict[str, list[Question]] = {"train": [], "valid": [], "test": []}
    for article, split in zip(articles, places, strict=True):
        for paragraph in article["paragraphs"]:
            for row in paragraph["qas"]:
                texts = tuple(dict.fromkeys(answer["text"] for answer in row["answers"]))
                start = row["answers"][0]["answer_start"]
                question = row["question"].strip()
                splits[split].append(Question(question, len(passages), texts, start))
            passages.append(Passage(article["title"].replace("_", " "), paragraph["context"]))
    rows = {split: tuple(found) for split, found in splits.items()}
    return QuestionData(name, source_of(folder), tuple(passages), **rows)


def _articles(path: Path, count: int) -> list[dict[str, Any]]:
    """Articles in alphabetical order. Raises DataError unless the file has `count` questions."""
    try:
        articles = json.loads(decode(unzip(path), path))["data"]
        found = sum(len(p["qas"]) for article in articles for p in article["paragraphs"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is not SQuAD's JSON ({error!r}): {FIX}") from error
    if found != count:
        raise DataError(f"{path} has {found:,} questions, SQuAD 1.1 has {count:,}: {FIX}")
    return sorted(articles, key=lambda article: article["title"])


def fetch_squad(folder: Path) -> None:
    """Through the `datasets` library, written in the layout that `read_squad` reads."""
    import datasets

    for name, theirs in (("train", "train"), ("dev", "validation")):
        rows = datasets.load_dataset("rajpurkar/squad", split=theirs)
        text = json.dumps({"version": "1.1", "data": articles_of(rows)})
        (folder / f"{name}-v1.1.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def articles_of(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the `datasets` library, one a question, as SQuAD's own nested articles."""
    articles: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        entry = {"id": row["id"], "question": row["question"], "answers": answers}
        articles.setdefault(row["title"], {}).setdefault(row["context"], []).append(entry)
    return [
        {"title": title, "paragraphs": [{"context": c, "qas": q} for c, q in paragraphs.items()]}
        for title, paragraphs in articles.items()
    ]


def pydoc_cloze() -> QuestionData:
    """CPython's manual in passages, and clozes about them (Taylor 1953): a sentence without one of
    its words, and without about a third of the others, asks for the missing word.

    Whole topics go to one split: of five, one to validation and one to test. The text differs
    between Python versions; the record's SHA-256 shows which it was.
    """
    from pydoc_data.topics import topics

    passages: list[Passage] = []
    splits: dict[str, list[Question]] = {"train": [], "valid": [], "test": []}
    seen: set[str] = set()
    for i, topic in enumerate(sorted(topics)):
        split = splits[{2: "valid", 0: "test"}.get(i % 5, "train")]
        for block in re.split(r"\n\s*\n", topics[topic]):
            text = " ".join(block.split())
            if block[:1].isspace() or text in seen or not prose(text):
                continue
            seen.add(text)
            split += clozes(text, len(passages))
            passages.append(Passage(topic, text))
    rows = {split: tuple(found) for split, found in splits.items()}
    return QuestionData("pydoc_cloze", "embedded", tuple(passages), **rows)


def prose(text: str) -> bool:
    """Whether a block is sentences of the wanted length, and not a table or grammar."""
    least, most = CLOZE_WORDS
    return (
        least <= len(text.split()) <= most
        and text[0].isupper()
        and "::=" not in text
        and ">>>" not in text
    )


def clozes(text: str, passage: int) -> list[Question]:
    """One question for each of the first sentences of eight words or more: their longest word is
    the answer, at its first place in the passage.
    """
    found: list[Question] = []
    for match in re.finditer(r"[A-Z][^.?!]+[.?!]", text):
        words = re.findall(r"\b[A-Za-z_]+\b", match[0])
        if len(words) < 8 or len(found) == PER_PASSAGE:
            continue
        answer = max(words, key=len)
        kept = [
            "____" if word == answer else word
            for word in words
            if word == answer or zlib.crc32(word.encode()) % 3
        ]
        place = re.search(rf"\b{answer}\b", text)
        assert place is not None, "the words were found in this text"
        start = place.start()
        found.append(
            Question(f"Which word is missing: {' '.join(kept)}?", passage, (answer,), start)
        )
    return found
