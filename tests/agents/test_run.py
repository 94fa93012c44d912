"""The week as a person runs it, at size smoke: training, resuming, asking, bad words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents import ask, investigate
from agents.toolformer.train import train as toolformer
from agents.train import train
from tests.conftest import ASK_EACH, Lab


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands carried out in this process read and write there."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["test"])
    return tmp_path


def test_smoke_trains_and_is_examined(
    lab_run: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = lab_run.once("agents", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["valid_calls"] == 100
    assert metrics["invented"] == 0
    assert metrics["injected_calls"] == 0
    assert metrics["contaminated"] < 100
    assert done.metrics[-1]["train/loss"] < 0.5 * done.metrics[0]["train/loss"]
    samples = {p.name for p in (done.dir / "samples").iterdir()}
    assert samples >= {"traces.jsonl", "traces.html", "length.png", "situations.png", "memory.png"}
    traces = [json.loads(line) for line in (done.dir / "samples/traces.jsonl").open()]
    assert len(traces) == 12 + 12 + 2 * 12
    assert all(len(trace["turns"]) <= 6 for trace in traces)
    monkeypatch.setenv("LAB_HOME", str(done.home))
    kept = done.home / "asked.jsonl"
    assert ask.main(["What is 12 plus 30?", "limit=2", f"traces={kept}"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Question: What is 12 plus 30?\nThought: ")
    assert len(kept.read_text().splitlines()) == 1
    assert ask.main(["What is " + "9" * 3000 + " plus 1?"]) == 2
    assert "a question of 3,016 characters" in capsys.readouterr().err


def test_the_model_without_tools_is_the_baseline(lab_run: Lab) -> None:
    done = lab_run(
        "agents", "+size=smoke", "+experiment=direct", "steps=3", "tests=3", "examples=200"
    )
    assert done.returncode == 0, done.output
    assert done.dir is not None
    traces = [json.loads(line) for line in (done.dir / "samples/traces.jsonl").open()]
    assert {turn["tool"] for trace in traces for turn in trace["turns"]} == {"finish"}


def test_resumes_to_the_same_bits(resume_check) -> None:
    resume_check("agents", "+size=smoke", "steps=6", "tests=2", "examples=300", "lengths=[1]")


def test_toolformer_teaches_itself(lab_run: Lab) -> None:
    done = lab_run.once("agents.toolformer", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    assert done.record["notes"]["calls"] == 1600
    assert 0 < done.record["notes"]["kept"] < 1600
    assert (done.dir / "samples" / "completions.txt").read_text().count("wanted:") == 20


def test_toolformer_keeps_its_decisions_when_it_resumes(lab_run: Lab) -> None:
    """Killed in the second part: the choice was made by the base model, which is gone then."""
    words = (
        "+size=smoke",
        "steps=6",
        "tune_steps=5",
        "threshold=-9",
        "tests=5",
        "documents=32",
        "texts=200",
    )
    whole = lab_run("agents.toolformer", *words)
    assert whole.record is not None, whole.output
    cut = lab_run("agents.toolformer", *words, kill=(8, 9))
    assert cut.returncode == -9, cut.output
    done = lab_run("agents.toolformer", f"resume={cut.dir}")
    assert done.returncode == 0, done.output
    assert cut.record is not None
    assert cut.record["metrics"] == whole.record["metrics"]
    assert cut.record["notes"] == whole.record["notes"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("limit=0", "limit must be > 0, got 0; try limit=26"),
        ("width=50 heads=4", "width=50 must be an even multiple of heads=4"),
        ("lengths=[]", "lengths must name at least one length"),
        ("lengths=[0]", "lengths must be > 0, got 0"),
        ("step_tokens=384", "step_tokens=384 leaves no room for a question"),
        ("step_tokens=3", "step_tokens=3 is too short for any step; type step_tokens="),
        ("context=60", "and the context 60; type context="),
        ("examples=8", "batch_size=32"),
        ("method=talk", "method=talk"),
        ("data=mnist", "data=mnist"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    here: Path, word: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *word.split()]) == 2
    output = capfd.readouterr()
    assert message in " ".join(output.err.split())
    assert "Traceback" not in output.err + output.out


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("width=50 heads=4", "width=50 must be an even multiple of heads=4"),
        ("noted=1.5", "noted must be from 0 to 1, got 1.5"),
        ("documents=8", "must be from 1 to the 8 training examples"),
    ],
)
def test_toolformer_refuses_too(
    here: Path, word: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert toolformer.main(["+size=smoke", *word.split()]) == 2
    assert message in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one question, in quotation marks"),
        (["a", "b"], "give one question"),
        (["a?"], "no finished run of agents"),
        (["a?", "run=nowhere"], "run=nowhere is not a finished run"),
        (["a?", "limit=0"], "limit=0: a whole number from 1 to 1,000"),
        (["a?", "url=localhost"], "url=localhost is no address"),
        (["a?", "url=http://127.0.0.1:9/v1", "wiki=x"], "wiki=x is not known"),
        (["questions=none.json", "url=http://127.0.0.1:9/v1"], "cannot be read"),
    ],
)
def test_ask_names_what_it_cannot_take(
    here: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask.main(words) == 2
    assert message in capsys.readouterr().err


def test_many_questions_are_scored(here: Path, played, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.agents.conftest import completion

    file = here / "hotpot.json"
    file.write_text(
        json.dumps([{"question": "a", "answer": "The Mur"}, {"question": "b", "answer": "5"}])
    )
    played.reply = lambda path, body: completion("Thought: x\nAction: finish[Mur]")
    assert ask.main([f"questions={file}", f"url={played.url}", "wiki=pydoc"]) == 0
    assert "2 questions: exact match 50.0 %, F1 50.0 %, 1.0 steps" in capsys.readouterr().out
    file.write_text('{"question": "a"}')
    assert ask.main([f"questions={file}", f"url={played.url}"]) == 2
    assert "rows with question and answer are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one question, in quotation marks"),
        (["Who?", "pages=0"], "pages=0: a whole number from 1 to 50"),
        (["Who?", "notes=maybe"], "type notes=yes or notes=no"),
        (["Who?", "wiki=squad"], "wiki=squad: there is no"),
        (["evaluate=5"], "evaluate needs SQuAD"),
    ],
)
def test_investigate_names_what_it_cannot_take(
    here: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert investigate.main(words) == 2
    assert message in capsys.readouterr().err


def test_investigate_answers_from_the_documentation(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        investigate.main(["What does a lambda expression create?", "wiki=pydoc", "notes=yes"]) == 0
    )
    said = capsys.readouterr().out
    assert "lambda" in said
    assert "read     [1] " in said
    assert "\n[1] " in said or "\n[2] " in said


COMMANDS = (
    "agents.train", "agents.ask", "agents.investigate", "agents.serve_tools", "agents.show",
    "agents.toolformer.train",
)  # fmt: skip


def test_help_loads_nothing_heavy(lab_run: Lab) -> None:
    """All commands in one process: what one of them loads, none of them may."""
    process = lab_run.start("-X", "importtime", "-c", ASK_EACH, *COMMANDS)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.count("usage:") == len(COMMANDS), output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "|" in line}
    assert not {"torch", "matplotlib", "hydra", "mcp"} & imported
