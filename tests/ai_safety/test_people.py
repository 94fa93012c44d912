"""Learning from people's comparisons: dialogues as tokens, what is measured, and the programme."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binomtest

from ai_safety import data
from ai_safety.people import judged
from ai_safety.people.comparisons import encode, recent_turns, with_files
from ai_safety.people.judged import longer_accuracy, on_xstest, ordered, words_accuracy
from ai_safety.people.train import train
from alignment.base import make_tokenizer
from labkit import UsageError
from labkit.data import DataError, Preference, PreferenceData
from pretraining import GPT, Shape
from tests.conftest import Lab

SHORT = ("start.steps=4", "dpo.steps=4", "reward.steps=4", "tests=20", "looked_at=12")


def dialogue(*turns: str) -> str:
    names = ("Human", "Assistant")
    return "".join(f"\n\n{names[i % 2]}: {turn}" for i, turn in enumerate(turns)) + "\n\nAssistant:"


def line(prompt: str, chosen: str, rejected: str) -> str:
    return json.dumps({"chosen": f"{prompt} {chosen}", "rejected": f"{prompt} {rejected}"})


@pytest.mark.exercise("people.comparisons.recent_turns")
@pytest.mark.parametrize("room", range(12))
def test_the_most_recent_turns_that_fit_are_kept_whole(room: int) -> None:
    """A brute force over how many are kept."""
    turns = [[1, 2], [3], [4, 5, 6], [], [7, 8], [9]]
    ends = [[token for turn in turns[k:] for token in turn] for k in range(len(turns) + 1)]
    assert recent_turns(turns, room) == max((e for e in ends if len(e) <= room), key=len)
    assert turns == [[1, 2], [3], [4, 5, 6], [], [7, 8], [9]]


@pytest.mark.exercise("people.comparisons.recent_turns")
@pytest.mark.parametrize(
    ("turns", "room", "expected"),
    [
        ([], 5, []),
        ([[1, 2, 3]], 3, [1, 2, 3]),
        ([[1, 2, 3]], 2, []),
        ([[1], [2, 3, 4], [5]], 3, [5]),  # the first would fit, but the one between does not
        ([[1], [2, 3], [4]], 3, [2, 3, 4]),
        (((1, 2), (3,)), 9, [1, 2, 3]),
        ([[7, 7], [7, 7]], 3, [7, 7]),
    ],
)
def test_no_turn_is_cut_or_left_out_between(turns: Any, room: int, expected: list[int]) -> None:
    assert list(recent_turns(turns, room)) == expected


@pytest.mark.exercise("people.comparisons.recent_turns")
def test_what_is_returned_is_a_list_of_its_own() -> None:
    turns = [[1, 2]]
    recent_turns(turns, 5).append(3)
    assert turns == [[1, 2]]


def test_long_dialogues_lose_their_first_turns() -> None:
    tokenizer = make_tokenizer(["a"], 257)  # one token for each byte
    prompt = dialogue("old question", "old answer", "new?")
    rows = [
        Preference(prompt, "good", "bad"),
        Preference(prompt, "far too long an answer", "bad"),
        Preference(dialogue("a question of too many tokens for this"), "good", "bad"),
        Preference(dialogue("equal"), "same", "same"),
    ]
    short = len(dialogue("new?"))
    found = encode(rows, tokenizer, short + 5, 5)
    assert found.rows == rows[:1]
    assert tokenizer.decode(found.pairs[0].prompt) == dialogue("new?")
    assert tokenizer.decode(found.pairs[0].chosen) == "good<|endoftext|>"
    assert found.pairs[0].rejected[-1] == tokenizer.eos_token_id
    whole = encode(rows[:1], tokenizer, len(prompt) + 5, 5)
    assert tokenizer.decode(whole.pairs[0].prompt) == prompt
    with pytest.raises(UsageError, match="none of the 1 rows fits into context=20 with"):
        encode(rows[:1], tokenizer, 20, 5)


def test_a_dialogue_has_one_split_in_whichever_file_it_stands(tmp_path: Path) -> None:
    rows = [(dialogue(f"question {i}"), f"good {i}", "bad") for i in range(60)]
    (tmp_path / "plain.jsonl").write_text("\n".join(line(*row) for row in rows))
    both = gzip.compress("\n".join(line(*row) for row in rows[::-1]).encode())
    (tmp_path / "packed.jsonl.gz").write_bytes(both)
    row = Preference("p", "c", "r")
    names = [str(tmp_path / name) for name in ("plain.jsonl", "packed.jsonl.gz")]
    found = with_files(PreferenceData("set", "here", (row,), (row,), (row,)), names)
    assert list(found) == ["set", *names]
    for part in ("train", "valid", "test"):
        texts = [{row.prompt for row in found[name][part]} for name in names]
        assert texts[0] == texts[1]
        assert texts[0]
    first = found[names[0]]["train"][0]
    number = first.prompt.removeprefix("\n\nHuman: question ").removesuffix("\n\nAssistant:")
    assert (first.chosen, first.rejected) == (f"good {number}", "bad")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"chosen": "a"}', "line 1: expected a JSON object with chosen and rejected"),
        ('{"chosen": "a", "rejected": "b"}\nwords', "line 2: expected a JSON object"),
        ("[1, 2]", "line 1: expected a JSON object"),
    ],
)
def test_files_of_another_format_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "more.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        with_files(PreferenceData("set", "here", (), (), ()), [str(path)])


def test_ordered_counts_ties_half() -> None:
    share = ordered(torch.tensor([2.0, -1.0, 0.0, 0.0, 0.5]))
    assert share.percent == 60
    ends = binomtest(3, 5).proportion_ci(method="wilson")
    assert share.interval == pytest.approx((100 * ends.low, 100 * ends.high), abs=1e-4)


def test_simple_rules_to_beat() -> None:
    kind = [Preference("p", f"kind words {i}", f"harsh words of anger {i}") for i in range(20)]
    assert words_accuracy(kind[:10], kind[10:]) == 100
    swapped = [Preference(r.prompt, r.rejected, r.chosen) for r in kind[10:]]
    assert words_accuracy(kind[:10], swapped) == 0
    unknown = [Preference("p", "nothing", "everything")]
    assert words_accuracy(kind[:10], unknown) == 50
    assert longer_accuracy(kind) == 0
    tie = Preference("p", "ab", "ba")
    assert longer_accuracy([*swapped, tie]) == pytest.approx(100 * 10.5 / 11)


def test_xstest_is_asked_and_judged_on_both_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [("how do I kill a man", True), ("how do I kill a process", False), ("hello", False)]
    said = ["I cannot help", "i won't", "hello to you"]
    asked: list[str] = []
    tokenizer = make_tokenizer(["a"], 257)
    model = GPT(Shape(257, 64, 16, 1, 2), "modern")

    def respond(model: GPT, rows: list[list[int]], count: int, *_: Any, **names: Any) -> None:
        asked.extend(tokenizer.decode(row) for row in rows)
        assert (count, names) == (8, {"temperature": 0.0})

    monkeypatch.setattr(data, "xstest", lambda: prompts)
    monkeypatch.setattr(judged, "respond", respond)
    monkeypatch.setattr(judged, "texts_of", lambda *_: [(text, True) for text in said])
    labels = data.Labelled(
        "do_not_answer", ("i won't do", "here you are") * 4, (True, False) * 4, (0,) * 8, ("m",) * 8
    )
    monkeypatch.setattr(data, "labelled_answers", lambda: labels)
    found = on_xstest(model, tokenizer, 8)
    assert asked == [dialogue(text) for text, _ in prompts]
    assert found["keyword_unsafe"].percent == 100
    assert (found["keyword_safe"].hits, found["keyword_safe"].cases) == (1, 2)
    assert found["safe"].percent == 50
    monkeypatch.setattr(data, "xstest", lambda: None)
    assert on_xstest(model, tokenizer, 8) == {}


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_comparisons_are_learned_and_resumed(
    method: str, resume_check: Any, lab_run: Lab, tmp_path: Path
) -> None:
    resume_check("ai_safety.people", "+size=smoke", f"method={method}", *SHORT)
    folder = min(path for path in lab_run.folders())
    record = json.loads((folder / "result.json").read_text())
    assert record["notes"]["source"] == "replies"
    assert 0 <= record["metrics"]["accuracy_low"] <= record["metrics"]["accuracy"] <= 100
    assert ("nll" in record["metrics"]) == (method == "dpo")
    assert (folder / "policy" / "config.json").is_file() == (method == "dpo")


def test_planted_kindness_is_learned(here: Path, tmp_path: Path) -> None:
    """Preferred answers all have one word: a reward model must find it, in a file of one's own."""
    rows = [(dialogue(f"say {i}"), f"gladly {i}", f"never {i}") for i in range(300)]
    path = tmp_path / "kind.jsonl"
    path.write_text("\n".join(line(*row) for row in rows))
    words = [
        "+size=smoke", "method=reward", f"more=[{path}]", "reward.steps=60", "texts=true",
    ]  # fmt: skip
    assert train.main(words) == 0
    record = json.loads(next(tmp_path.glob("runs/*/smoke/*/result.json")).read_text())
    assert record["metrics"]["more_accuracy"] > 95
    assert record["notes"]["more_source"] == str(path)


def test_answers_are_written_only_when_they_are_wanted(here: Path, tmp_path: Path) -> None:
    assert train.main(["+size=smoke", *SHORT]) == 0
    assert train.main(["+size=smoke", "texts=true", *SHORT]) == 0
    folders = sorted(tmp_path.glob("runs/*/smoke/*/samples"))
    assert [(each / "answers.txt").is_file() for each in folders] == [False, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("method=rewards", "did you mean reward?"),
        ("answer_tokens=64", "leaves no room for a question"),
        ("more=[nowhere.jsonl]", "there is no file nowhere.jsonl"),
        ("data=commands", "this week wants"),
        ("batch_size=50000", "batch_size"),
        ("base=nowhere", "base=nowhere is neither a folder"),
        ("context=20 answer_tokens=2", "none of the"),
    ],
)
def test_bad_settings_are_refused(
    words: str, message: str, here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words.split()]) == 2
    assert message in capfd.readouterr().err
    assert not list(tmp_path.glob("runs/*/*/*/result.json"))
