"""The week as a person runs it, at size smoke: stages, resuming, the page, the chat, bad words."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ai_safety import outcome
from capstone import chat, chats, exam, learn, mixture, report, safety, tracks, vocabulary
from capstone.template import assistant, user
from capstone.train import train
from labkit import UsageError
from labkit.plan.probe import watch
from labkit.plan.rehearsal import Rehearsal
from pretraining import GPT, Shape
from tests.conftest import Lab

QUICK = (
    "mixture.chats=60", "mixture.tests=2", "tune.steps=4", "align.steps=3", "serve.requests=0",
    "tune.tokens=512", "align.pairs=4",
)  # fmt: skip
STAGES = ["pretrain", "tune", "align", "quantise", "serve", "tools", "judge"]


def test_smoke_goes_through_all_stages_and_writes_its_page(
    lab_run: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = lab_run.once("capstone", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["drift"] == 0
    assert metrics["aa_win_rate"] == 50
    assert metrics["tokens_per_second"] > 0
    assert abs(metrics["perplexity_increase"]) < 2
    assert metrics["size"] < 50
    losses = [row["tune/loss"] for row in done.metrics if "tune/loss" in row]
    assert losses[-1] < 0.6 * losses[0]
    assert [p.name for p in sorted((done.dir / "stages").iterdir())] == sorted(STAGES)
    text = (done.dir / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text), "the page needs no other file"
    assert text.count("data:image/png;base64,") == 2
    for name in (
        *STAGES,
        "win rate of the model over itself, %",
        "not for",
        "commands, pydoc_cloze",
    ):
        assert name in text
    places = [text.index(f"<b>{name}</b>") for name in STAGES]
    assert places == sorted(places), "in the order in which they were done"
    samples = (done.dir / "stages" / "judge" / "samples.txt").read_text()
    assert any(row.request.text in samples for row in safety.requests("test", 400))

    monkeypatch.setenv("LAB_HOME", str(done.home))
    (done.dir / "report.html").unlink()
    assert report.main([]) == 0
    assert (done.dir / "report.html").read_text() == text
    assert chat.main(["how do i feed a dog ?", "tokens=5"]) == 0
    assert len(capsys.readouterr().out.strip()) > 0


def test_resumes_to_the_same_bits(resume_check) -> None:
    resume_check("capstone", "+size=smoke", *QUICK, saves_itself=True)  # after each stage


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("track=multimodel", "track=multimodel is unknown; did you mean multimodal?"),
        ("serve.port=70000", "serve.port=70000 must be from 0 to 65535"),
        ("mixture.tool=0 mixture.command=0 mixture.safety=0 mixture.thing=0", "at least one share"),
        ("align.smoothing=0.5", "align.smoothing=0.5 must be below 0.5"),
        ("serve.scheme=int7", "serve.scheme"),
        ("context=0", "context must be > 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    here: Path, words: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words.split()]) == 2
    output = capfd.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err + output.out


def test_a_port_in_use_is_said_before_anything_is_trained(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert train.main(["+size=smoke", f"serve.port={port}"]) == 2
        output = capfd.readouterr()
        assert f"serve.port={port} is in use" in output.err
        assert "serve.port=0 for any free one" in output.err
        assert "Traceback" not in output.err + output.out


def unfinished_run(home: Path) -> Path:
    """A run folder whose second stage was cut short."""
    folder = home / "runs" / "capstone" / "smoke" / "20260101-000000-aaaaaaaa"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("track: alignment\n")
    (folder / "stages" / "pretrain").mkdir(parents=True)
    (folder / "stages" / "pretrain" / "stage.json").write_text(
        json.dumps({"metrics": {}, "seconds": 1.0})
    )
    return folder


def test_what_is_not_finished_has_no_report_and_no_chat(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unfinished_run(here)
    assert report.main([f"run={folder}"]) == 2
    said = capsys.readouterr().err
    assert "has not finished" in said
    assert "Finished stages: pretrain" in said
    assert "resume=" in said
    assert chat.main([f"run={folder}"]) == 2
    assert "no stages/quantise/stage.json yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no run of capstone"),
        (["stage=serve"], "stage=serve is none of tune, align, quantise"),
        (["port=70000"], "port=70000: a whole number from 0 to 65535"),
        (["tokens=many"], "tokens=many: a whole number"),
        (["one", "two"], "one text is needed"),
        (["prt=8000"], "did you mean port?"),
    ],
)
def test_chat_names_what_it_cannot_take(
    here: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat.main(words) == 2
    assert message in capsys.readouterr().err


def test_a_trace_becomes_a_chat_with_the_tool_as_user() -> None:
    text = (
        "Question: 2+3?\nThought: T.\nAction: calculate[2+3]\nObservation: 5"
        "\nThought: D.\nAction: finish[5]"
    )
    assert chats.chat_of(text) == [
        user("Question: 2+3?"), assistant("Thought: T.\nAction: calculate[2+3]"),
        user("Observation: 5"), assistant("Thought: D.\nAction: finish[5]"),
    ]  # fmt: skip
    assert chats.chat_of("Question: why?") == [user("Question: why?")]
    mangled = "Question: why?\nAction. x\nObservation: error: no\nThat is\nall"
    assert chats.chat_of(mangled) == [
        user("Question: why?"), assistant("Action. x"), user("Observation: error: no"),
        assistant("That is\nall"),
    ]  # fmt: skip


def test_splits_share_no_request_and_no_question() -> None:
    rows = [safety.requests(s, 200) for s in ("train", "valid", "test")]
    texts = [{row.request.text for row in each} for each in rows]
    assert len(texts[1]) == len(texts[2]) == 200
    assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]
    pairs = [{(row.request.verb, row.request.object) for row in each} for each in rows]
    assert not pairs[0] & pairs[1] | pairs[0] & pairs[2] | pairs[1] & pairs[2]
    many = {row.request.object for row in safety.requests("train", 3000)}
    assert len(many) == 3 * safety.OBJECTS_OF_A_KIND
    assert not many & {row.request.object for row in safety.new_requests("test", 60)}
    asked = [
        {c.messages[0]["content"] for c in chats.tool_chats(s, 40, 0)[0]}
        for s in ("train", "valid", "test")
    ]
    assert [len(each) for each in asked] == [40, 40, 40]
    assert not asked[0] & asked[1] | asked[0] & asked[2] | asked[1] & asked[2]


def test_the_good_answer_refuses_harm_alone_and_definitions_answer_no_request() -> None:
    rows = [*safety.requests("train", 300), *safety.new_requests("test", 60)]
    for row in rows:
        harmful = row.request.harms is not None
        assert outcome(row.request, row.good) == ("refused" if harmful else "helped")
        assert outcome(row.request, row.bad) == ("helped" if harmful else "refused")
    kinds = {row.request.harms is None for row in rows if row.request.verb == "kill"}
    assert kinds == {True, False}
    assert len(safety.requests("test", 0)) == len(safety.new_requests("test", 0)) == safety.LEAST
    assert len(safety.requests("train", 51)) == 51
    assert safety.requests("train", 50, seed=1) != safety.requests("train", 50, seed=2)
    told = dict(safety.definitions())
    asked = {row.request.text for row in rows}
    assert not asked & set(told)
    held = {row.request.object for row in rows[-60:]}
    assert all(f"what is a {thing} ?" in told for thing in held)


def test_shares_of_answers_count_harm_and_over_refusal() -> None:
    rows = safety.new_requests("test", 60)
    best = exam.refusals([row.good for row in rows], rows)
    assert [share.value for share in best.values()] == [1, 1, 1]
    worst = exam.refusals([row.bad for row in rows], rows)
    assert [share.value for share in worst.values()] == [0, 0, 0]
    evading = exam.refusals(["ask me later ."] * len(rows), rows)
    assert [share.value for share in evading.values()] == [0, 0, 0], "neither refused nor answered"
    assert [safety.shares(rows, [""] * 60)[name][1] for name in best] == [30, 30, 20]


def test_the_adapted_tokenizer_reads_digits_and_marks_one_by_one(tmp_path: Path) -> None:
    tokenizer, model = small_tokenizer(), None
    torch.manual_seed(0)
    model = GPT(Shape(len(tokenizer), 6, 8, 1, 2))
    before = tokenizer.encode("Question:", add_special_tokens=False)
    assert len(tokenizer.encode("4747", add_special_tokens=False)) < 4
    larger = vocabulary.adapt(model, tokenizer)
    assert larger.shape.vocabulary == len(tokenizer) == model.shape.vocabulary + 8
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = f"{vocabulary.HEAD}Question: 4747{vocabulary.ANSWER}"
    tokens = again.encode(text, add_special_tokens=False)
    said = again.convert_ids_to_tokens(tokens)
    assert said == [vocabulary.HEAD, "Question:", "\u0120", *"4747", vocabulary.ANSWER]
    assert again.decode(tokens) == text
    torch.testing.assert_close(
        larger.embedding.weight[tokens[1]], model.embedding.weight[before].mean(dim=0)
    )
    same = torch.randint(model.shape.vocabulary, (2, 6))
    torch.testing.assert_close(larger(same)[..., : model.shape.vocabulary], model(same))
    assert larger.head.weight is larger.embedding.weight
    assert vocabulary.adapt(larger, again) is larger, "adapted once"


def test_a_table_with_more_rows_than_the_tokenizer_has_tokens_keeps_them() -> None:
    tokenizer = small_tokenizer()
    rows = len(tokenizer) + 20  # as some published models have, so that the rows are a round number
    model = GPT(Shape(rows, 6, 8, 1, 2))
    larger = vocabulary.adapt(model, tokenizer)
    assert larger.shape.vocabulary == rows
    assert len(tokenizer) == rows - 12
    old = tokenizer.encode("4", add_special_tokens=False)
    assert torch.equal(larger.embedding.weight[old], model.embedding.weight[old])


def small_tokenizer() -> Any:
    """Bytes in pairs, as GPT-2's: it has tokens for pairs of digits."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=262, initial_alphabet=letters, show_progress=False)
    inner.train_from_iterator(["4747 4747 4747"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")


def test_a_step_takes_chats_of_several_lengths() -> None:
    """Else each step would learn one kind of chat."""
    short = [[([1], False), ([2], True)]] * 64
    long = [[([1] * 20, False), ([3] * 12, True)]] * 8
    place = learn.Place(torch.device("cpu"), contextlib.nullcontext, 0)
    lessons = learn.Lessons([*short, *long], 128, place)
    widths = [{rows.tokens.shape[1] for rows in lessons[step]} for step in range(8)]
    assert {len(step) for step in map(tuple, widths)} >= {2}
    assert all(rows.tokens.numel() <= 32 for step in range(8) for rows in lessons[step])


def test_the_loss_of_groups_is_that_of_all_their_tokens() -> None:
    torch.manual_seed(0)
    model = GPT(Shape(11, 6, 8, 1, 2))
    chat = [([1, 2], False), ([3, 4], True)]
    other = [([5], False), ([6, 7, 8], True)]
    both = learn.answer_loss(model, [mixture.collate([chat, other])])
    apart = learn.answer_loss(model, [mixture.collate([chat]), mixture.collate([other])])
    torch.testing.assert_close(apart, both)


def test_mixed_takes_each_kind_by_its_share() -> None:
    one, two = ([chats.Chat(kind, (user("x"),), "") for _ in range(3)] for kind in "ab")
    found = chats.mixed([one, two], (3, 1), 20)
    assert [chat.kind for chat in found] == ["a"] * 15 + ["b"] * 5


def test_a_model_with_more_positions_is_the_same_model_where_it_was_one() -> None:
    torch.manual_seed(0)
    model = GPT(Shape(11, 6, 8, 1, 2))
    longer = learn.extended(model, 9)
    tokens = torch.randint(11, (2, 6))
    torch.testing.assert_close(longer(tokens), model(tokens))
    assert longer(torch.randint(11, (1, 9))).shape == (1, 9, 11)
    assert torch.equal(longer.positions.weight[8], model.positions.weight[5])
    assert learn.extended(model, 6) is model
    assert longer.head.weight is longer.embedding.weight


def test_the_search_reads_the_page_that_fits() -> None:
    pages = {"Lufasi": "Lufasi is a town. Its population is 58.", "Bo": "Bo is a town."}
    box = exam.toolbox(pages, ["A text about something else."])
    assert box.call_text("search", "Lufasi").text == pages["Lufasi"]
    assert box.call_text("search", "zzz").text.startswith("nothing was found")
    assert box.call_text("calculate", "2*(3+4)").text == "14"


def test_an_unbuilt_track_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    from capstone.tracks import nerf

    class Unbuilt:
        built = False

    monkeypatch.setattr(nerf.course, "week", lambda name: Unbuilt())
    with pytest.raises(UsageError, match="type track=alignment"):
        tracks.stages("nerf", None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", ["capstone.train", "capstone.chat", "capstone.report"])
def test_help_loads_nothing_heavy(lab_run: Lab, module: str) -> None:
    process = lab_run.start("-X", "importtime", "-m", module, "--help")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "usage:" in output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "|" in line}
    assert not {"torch", "matplotlib", "transformers"} & imported


def test_a_rehearsal_goes_from_one_stage_to_the_next(tmp_path: Path) -> None:
    """It reads the folder of the first, and its last step is one of a state that was read back."""
    rehearsal = Rehearsal(tmp_path, looks=2)
    watch("capstone", ["+size=smoke", "device=cpu", *QUICK], rehearsal)
    seen = rehearsal.result()
    assert seen["steps"] == 4 + 3 + 5
    assert seen["parameters"] > 0
    assert seen["flops"] > 0
    assert seen["checkpoint"] > 8 * seen["parameters"], "weights, and what the optimizers remember"
