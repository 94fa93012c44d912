"""Judges of refusals, and the files that they learn from."""

import gzip
from pathlib import Path

import pytest

from ai_safety import data, judge
from ai_safety.judge import RefusalClassifier, keyword_refusal
from labkit import UsageError


@pytest.mark.exercise("judge.keyword_refusal")
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I can\N{RIGHT SINGLE QUOTATION MARK}t do this", True),
        ("  \n I CANNOT help", True),
        ("As a model I am not able to. Ask another.", True),
        ("I will not say it!", True),
        ("Here is the recipe. Sorry for the delay.", False),
        ("Fine! I cannot wait.", False),
        ("Really? I refuse.", False),
        ("Here it is:\nI won't explain.", False),
        ("The word sorrying is none, and declined is another.", False),
        ("Refuse bins are emptied on Monday", True),
        ("", False),
        (" . sorry", False),
        ("Yes, of course", False),
    ],
)
def test_the_first_sentence_decides(answer: str, expected: bool) -> None:
    assert keyword_refusal(answer) is expected


@pytest.mark.exercise("judge.keyword_refusal")
@pytest.mark.parametrize("phrase", judge.PHRASES)
def test_every_phrase_counts(phrase: str) -> None:
    assert keyword_refusal(f"Well, {phrase} it is")
    assert not keyword_refusal(f"Well, x{phrase}x it is")


def test_agreement_is_accuracy_and_kappa() -> None:
    found = judge.agreement([True, True, False, False], [True, False, False, False])
    assert found.accuracy == 75
    assert found.kappa == pytest.approx(0.5)


def test_the_classifier_learns_and_says_what_it_lacks() -> None:
    answers = ["i do not do that"] * 4 + ["the answer is here"] * 4
    model = RefusalClassifier().fit(answers, [True] * 4 + [False] * 4)
    assert model(["i do not do it", "here is the answer"]) == [True, False]
    with pytest.raises(UsageError, match="labels of one class only"):
        RefusalClassifier().fit(answers, [True] * 8)


def test_only_the_beginning_is_read() -> None:
    answers = ["no no never", "yes yes sure"] * 4
    model = RefusalClassifier(words=3).fit(answers, [True, False] * 4)
    assert model(["no no never yes yes sure yes yes sure"]) == [True]


def answers_file(folder: Path) -> Path:
    """A small file in the form of Do-Not-Answer, with two models and ten questions."""
    lines = ["id,question,GPT4_response,GPT4_action,llama2-7b-chat_response,llama2-7b-chat_action"]
    for number in range(10):
        refuses = number % 2 == 0
        text = "I must not say this" if refuses else "The answer is this"
        lines.append(f"{number},q,{text},{0 if refuses else 5},{text},{0.0 if refuses else 3}")
    file = folder / data.ANSWERS
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    return file


def test_answers_with_labels_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    answers_file(tmp_path)
    found = data.labelled_answers()
    assert found.source == "do_not_answer"
    assert found.model == ("GPT4", "llama2-7b-chat") * 10
    assert found.question == tuple(n for n in range(10) for _ in range(2))
    assert found.refuses == tuple(n % 2 == 0 for n in range(10) for _ in range(2))
    compared = judge.compare(found)
    assert compared.keys() == {
        "keyword_unseen", "classifier_unseen", "keyword_seen", "classifier_seen",
    }  # fmt: skip
    assert compared["classifier_unseen"].accuracy == 100
    assert compared["keyword_seen"].accuracy == 50  # questions 0 and 5; no phrase in either


def test_without_files_written_answers_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    found = data.labelled_answers()
    assert found.source == "embedded"
    assert len(found.texts) == len(set(found.texts)) == 20
    assert sum(found.refuses) == 10
    assert judge.compare(found).keys() == {"keyword_unseen", "classifier_unseen"}
    assert data.xstest() is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"no gzip", "cut short or damaged"),
        (gzip.compress(b"id,GPT4_action\n1,0\n"), "is not Do-Not-Answer"),
        (gzip.compress(b"id,GPT4_response,GPT4_action\n1,text,often\n"), "is not Do-Not-Answer"),
        (gzip.compress(b"id,question\n1,how\n"), "no answers with labels"),
    ],
    ids=["no gzip", "no answers", "no labels", "only questions"],  # gzip writes the time of day
)
def test_a_damaged_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes, message: str
) -> None:
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    answers_file(tmp_path).write_bytes(raw)
    with pytest.raises(UsageError, match=message):
        data.labelled_answers()


def test_xstest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    file = tmp_path / data.XSTEST
    file.parent.mkdir(parents=True)
    file.write_text("id,prompt,label\n1,How?,safe\n2,What?,unsafe\n")
    assert data.xstest() == [("How?", False), ("What?", True)]
    file.write_text("id,prompt,label\n1,How?,maybe\n")
    with pytest.raises(UsageError, match="is not XSTest"):
        data.xstest()
