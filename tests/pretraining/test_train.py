"""The week as a person runs it, at size smoke."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pretraining.train import Config, train


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where runs of this process go; what they leave in the process is undone."""
    monkeypatch.setattr("sys.argv", ["test"])
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    return tmp_path


def test_smoke_learns_writes_and_publishes(lab_run: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = lab_run.once("pretraining", "+size=smoke")
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    assert metrics["val_loss"] < 4.5  # all of 512 tokens equally likely: 6.24
    assert abs(metrics["future_gap"]) < 1e-4
    assert metrics["target_offset"] == 1
    rates = [row for row in done.metrics if "train/lr" in row]
    assert all(row["train/lr_muon"] == pytest.approx(4 * row["train/lr"]) for row in rates)
    assert metrics["test_bits_per_byte"] < 4.2
    samples = {p.name for p in (done.dir / "samples").iterdir()}
    assert samples == {"loss.png", *(f"step-{step:06d}.txt" for step in (1, 75, 150))}
    assert (done.dir / "samples" / "step-000150.txt").read_text().count("|") >= 2
    speed = (done.dir / "speed.csv").read_text().splitlines()
    assert speed[0] == "step,tokens_per_second,mfu_percent"
    assert all(float(line.split(",")[1]) > 0 for line in speed[1:])
    folder = Path(done.dir).parents[3] / "artifacts" / "pretraining" / "smoke-pydoc"
    model, tokenizer = (c.from_pretrained(folder) for c in (AutoModelForCausalLM, AutoTokenizer))
    assert model.config.n_positions == 32
    assert len(tokenizer) == model.config.vocab_size == 512
    assert model.config.eos_token_id == tokenizer.eos_token_id


def test_resumes_to_the_same_bits_prompts_and_compute_being_as_asked(
    resume_check: Any, lab_run: Any
) -> None:
    """AdamW's state and Muon's, the draws of dropout, bf16, and samples; the steps by compute."""
    resume_check(
        "pretraining", "+size=smoke", "+experiment=modern", "dropout=0.1", "precision=bf16",
        "vocabulary=300", "eval_tokens=500", "evaluations=1", "teraflops=0.002",
        "prompts=['the value of','a']", "temperature=0",
    )  # fmt: skip
    for folder in lab_run.folders():
        record = json.loads((folder / "result.json").read_text())
        assert 4 <= record["steps"] < 150
        sample = max((folder / "samples").glob("*.txt"))
        beginnings = [part.split("|")[0] for part in sample.read_text().split("\n----\n")]
        assert beginnings == ["the value of", "a"]


def test_masked_tokens_are_learned_better_than_their_frequencies(lab_run: Any) -> None:
    done = lab_run("pretraining", "+size=smoke", "+experiment=mlm", "tokenizer=char", "steps=100")
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    assert metrics["masked_loss"] < metrics["unigram_loss"]
    assert metrics["masked_accuracy"] > metrics["unigram_accuracy"] - 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("width=60", "heads=8"), "must be an even multiple of heads"),
        (("steps=0",), "steps must be > 0"),
        (("warmup=1.5",), "warmup must be from 0 to below 1, got 1.5"),
        (("top_p=0",), "top_p must be above 0 and up to 1"),
        (("teraflops=-1",), "teraflops must be > 0"),
        (("micro_batch=0",), "micro_batch must be > 0"),
        (("clip=-1",), "clip must be 0 or more"),
        (("objective=masked", "mask_rate=0"), "hides no token"),
        (("vocabulary=100",), "type vocabulary=259 or more"),
        (("tokenizer=char", "prompts=['" + 40 * "x" + "']"), "it must have 1 to 31"),
        (("prompts=['']",), "has 0 tokens"),
        (("context=3000000",), "too few for a window of 3000000"),
    ],
)
def test_what_cannot_be_done_is_refused(
    home: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert train.main(["+size=smoke", *words]) == 2
    assert message in capfd.readouterr().err
    assert not list(home.glob("runs/*/*/*/result.json"))


@pytest.mark.usefixtures("home")
def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ("steps=12", "eval_tokens=500", "vocabulary=300", "lr=1e30", "clip=0", "log_every=1")
    assert train.main(["+size=smoke", *words]) == 1
    said = capfd.readouterr()
    assert re.search(r"(train|valid)/loss became (nan|inf) at step \d", said.out + said.err), said


def test_config_is_right_by_default() -> None:
    """What is wrong is a bug of the code, not a setting."""
    assert (Config().bug, Config().objective) == (None, "next")
    assert not {"shift", "lookahead"} & vars(Config()).keys()
