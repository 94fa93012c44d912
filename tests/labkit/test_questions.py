"""Question sets: SQuAD's layout, its checks, and the embedded clozes."""

import gzip
import json
import os
from pathlib import Path

import pytest

from labkit.data import DataError, Passage, Question, QuestionData, load, registry
from labkit.data.sets import questions

LAB_DATA = os.environ.get("LAB_DATA")
needs_data = pytest.mark.skipif(
    not LAB_DATA, reason="set LAB_DATA to a folder with the real datasets"
)


def test_clozes_ask_for_a_word_of_their_passage() -> None:
    data = load("pydoc_cloze", kind=QuestionData)
    titles = [
        {data.passages[row.passage].title for row in split}
        for split in (data.train, data.valid, data.test)
    ]
    assert sum(map(len, titles)) == len(set.union(*titles)), "whole topics go to one split"
    assert data.sizes()["passages"] > 200
    assert data.sizes()["train"] > 300
    assert min(data.sizes().values()) > 20
    for row in data.train[:200]:
        text, answer = data.passages[row.passage].text, row.answers[0]
        assert text[row.start : row.start + len(answer)] == answer
        assert "____" in row.text
        assert answer not in row.text
        kept = row.text.removeprefix("Which word is missing: ").rstrip("?").split()
        assert set(kept) - {"____"} <= set(text.replace(".", " ").split()) | set(
            questions.re.findall(r"[A-Za-z_]+", text)
        )


def articles(count: int) -> bytes:
    """`count` articles with two questions each, in SQuAD's layout, gzipped."""
    rows = []
    for i in range(count):
        context = f"Article {i} was written by Anna."
        answers = [{"text": "Anna", "answer_start": context.index("Anna")}] * 2
        qas = [{"id": f"{i}-{j}", "question": f" Who wrote {i}? ", "answers": answers}
               for j in range(2)]  # fmt: skip
        rows.append({"title": f"A_{i:02}", "paragraphs": [{"context": context, "qas": qas}]})
    return gzip.compress(json.dumps({"version": "1.1", "data": rows[::-1]}).encode())


def test_squad_is_divided_by_article(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "SQUAD_QUESTIONS", {"train": 80, "dev": 24})
    assert questions.read_squad(tmp_path) is None
    (tmp_path / "squad").mkdir()
    (tmp_path / "squad" / "dev-v1.1.json.gz").write_bytes(articles(12))
    dev = questions.read_squad(tmp_path)
    assert dev is not None
    dev.check()
    assert dev.name == "squad_dev"
    assert dev.sizes() == {"train": 16, "valid": 4, "test": 4, "passages": 12}
    assert {dev.passages[row.passage].title for row in dev.test} == {"A 05", "A 11"}
    assert dev.test[0] == Question("Who wrote 5?", 5, ("Anna",), 25)
    (tmp_path / "squad" / "train-v1.1.json.gz").write_bytes(articles(40))
    with pytest.raises(DataError, match="document of the train split"):
        questions.read_squad(tmp_path).check()  # type: ignore[union-attr]
    (tmp_path / "squad" / "train-v1.1.json.gz").write_bytes(articles(39))
    with pytest.raises(DataError, match=r"has 78 questions, SQuAD 1\.1 has 80"):
        questions.read_squad(tmp_path)
    (tmp_path / "squad" / "train-v1.1.json.gz").write_bytes(gzip.compress(b'{"data": [{}]}'))
    with pytest.raises(DataError, match="is not SQuAD's JSON"):
        questions.read_squad(tmp_path)


def test_rows_of_the_library_become_articles() -> None:
    row = {"id": "1", "title": "T", "context": "c", "question": "q",
           "answers": {"text": ["c"], "answer_start": [0]}}  # fmt: skip
    made = questions.articles_of([row, {**row, "id": "2"}, {**row, "context": "d", "id": "3"}])
    assert [p["context"] for p in made[0]["paragraphs"]] == ["c", "d"]
    assert [len(p["qas"]) for p in made[0]["paragraphs"]] == [2, 1]
    assert made[0]["paragraphs"][0]["qas"][0]["answers"] == [{"text": "c", "answer_start": 0}]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question("Who?", 9, ("Anna",), 0), "names passage 9, and it has 2"),
        (Question(" ", 0, ("Anna",), 0), "has an empty text or no answer"),
        (Question("Who?", 0, (), 0), "has an empty text or no answer"),
        (Question("Who?", 0, ("Anna",), 1), "does not stand at character 1"),
        (Question("Who?", 0, ("Anna",), -11), "does not stand at character -11"),
        (Question("Who?", 1, ("Bob",), 0), "about a document of the train split"),
    ],
)
def test_questions_that_cannot_be_are_refused(question: Question, message: str) -> None:
    passages = (Passage("a", "Anna sings."), Passage("b", "Bob runs."))
    good, other = Question("Who?", 0, ("Anna",), 0), Question("Who?", 1, ("Bob",), 0)
    data = QuestionData("mine", "test", passages, (good, other), (question,), (good,))
    with pytest.raises(DataError, match=message):
        data.check()


@needs_data
def test_real_squad() -> None:
    registry._load.cache_clear()
    data = load("squad", kind=QuestionData)
    assert sum(data.sizes()[split] for split in ("train", "valid", "test")) == 10_570 or (
        data.name == "squad" and len(data.test) == 10_570
    )
    if data.name == "squad_dev":
        assert len(data.passages) == 2_067
