"""The week as a person runs it, at size smoke."""

import re
from pathlib import Path
from typing import Any

import pytest

from labkit import UsageError

QUICK = ("steps=12", "eval_tokens=500", "vocabulary=300")


def test_smoke_learns_writes_and_publishes(lab_run: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = lab_run("pretraining", "+size=smoke")
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    assert metrics["val_loss"] < 4.5  # all of 512 tokens equally likely: 6.24
    assert abs(metrics["future_gap"]) < 1e-4
    assert metrics["target_offset"] == 1
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


@pytest.mark.parametrize(
    "words",
    [
        ("optimizer=adamw",),
        ("+experiment=modern",),
        ("+experiment=mlm", "dropout=0.1", "precision=bf16"),
    ],
)
def test_resumes_to_the_same_bits(resume_check: Any, words: tuple[str, ...]) -> None:
    resume_check("pretraining", "+size=smoke", *QUICK, *words)


def test_gradient_accumulation_changes_nothing(lab_run: Any) -> None:
    """16 windows at once, and in parts of 16, 5, 5, 5, 1: the same curve to rounding."""
    curves = []
    for micro_batch in ("null", "5"):
        words = (*QUICK, f"micro_batch={micro_batch}", "log_every=1")
        done = lab_run("pretraining", "+size=smoke", *words)
        assert done.returncode == 0, done.output
        curves.append([row["train/loss"] for row in done.metrics if "train/loss" in row])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert curves[0] != curves[1]


def test_masked_tokens_are_learned_better_than_their_frequencies(lab_run: Any) -> None:
    done = lab_run("pretraining", "+size=smoke", "+experiment=mlm", "tokenizer=char", "steps=100")
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    assert metrics["masked_loss"] < metrics["unigram_loss"]
    assert metrics["masked_accuracy"] > metrics["unigram_accuracy"] - 1


def test_prompts_and_compute_are_as_asked(lab_run: Any) -> None:
    done = lab_run(
        "pretraining", "+size=smoke", "teraflops=0.01", "vocabulary=300", "evaluations=1",
        "prompts=['the value of','a']", "temperature=0",
    )  # fmt: skip
    assert done.returncode == 0, done.output
    assert done.record["steps"] < 150
    sample = max((done.dir / "samples").glob("*.txt"))
    beginnings = [part.split("|")[0] for part in sample.read_text().split("\n----\n")]
    assert beginnings == ["the value of", "a"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("width=60", "heads=8"), "must be an even multiple of heads"),
        (("steps=0",), "steps must be > 0"),
        (("warmup=1.5",), "warmup is a share"),
        (("top_p=0",), "top_p above 0"),
        (("teraflops=-1",), "teraflops must be > 0"),
        (("vocabulary=100",), "type vocabulary=259 or more"),
        (("tokenizer=char", "prompts=['" + 40 * "x" + "']"), "it must have 1 to 31"),
        (("prompts=['']",), "has 0 tokens"),
        (("context=3000000",), "too few for a window of 3000000"),
    ],
)
def test_what_cannot_be_done_is_refused(lab_run: Any, words: tuple[str, ...], message: str) -> None:
    done = lab_run("pretraining", "+size=smoke", *words)
    assert done.returncode == 2, done.output
    assert message in done.output
    assert done.dir is None or not (done.dir / "result.json").exists()


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(lab_run: Any) -> None:
    done = lab_run("pretraining", "+size=smoke", *QUICK, "lr=1e30", "clip=0", "log_every=1")
    assert done.returncode == 1, done.output
    assert re.search(r"(train|valid)/loss became (nan|inf) at step \d", done.output), done.output


def test_config_is_right_by_default() -> None:
    from pretraining.train import Config

    cfg = Config()
    assert (cfg.shift, cfg.lookahead, cfg.objective) == (1, 0, "next")
    with pytest.raises(UsageError, match="lookahead must be 0 or more"):
        Config(lookahead=-1)
