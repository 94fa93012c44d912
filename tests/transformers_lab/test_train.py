"""The week as a person runs it, at size smoke."""

from pathlib import Path
from typing import Any

import pytest

from labkit import UsageError
from transformers_lab.train import Config, train

FAST = ("+size=smoke", "epochs_embedded=0.06", "tests=10", "evaluations=2", "log_every=2")


def test_smoke_learns_and_shows_what_it_learned(lab_run: Any) -> None:
    done = lab_run.once("transformers_lab", "+size=smoke")
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    assert metrics["test_perplexity"] < 3.5
    assert metrics["source_gain"] > 0.3
    assert abs(metrics["teacher_gap"]) < 1
    rates = [(row["train/lr"], row["train/lr_muon"]) for row in done.metrics if "train/lr" in row]
    assert max(rates) == pytest.approx((1e-2, 0.02), rel=0.01)
    assert metrics["length_ratio"] == pytest.approx(1, abs=0.1)
    assert done.record["data"]["name"] == "dates"
    files = {p.name for p in (done.dir / "samples").iterdir()}
    assert files == {"loss.png", "learning_rate.png", "alignment.png", "translations.txt"}
    text = (done.dir / "samples" / "translations.txt").read_text()
    assert text.count("ISO 8601") == text.count("model") == 40


def test_resumes_to_the_same_bits(resume_check: Any) -> None:
    """AdamW's state and Muon's, and the draws of dropout."""
    resume_check("transformers_lab", *FAST, "dropout=0.1")


def test_numbers_the_library_and_the_papers_recipe_run_too(lab_run: Any) -> None:
    """Post-norm, AdamW alone and equation 3: its rate at the last step is a function of it."""
    words = ("data=numbers", "tokenizer=library", "+experiment=paper", "beams=2")
    done = lab_run("transformers_lab", *FAST, *words)
    assert done.returncode == 0, done.output
    assert done.record["data"]["name"] == "numbers"
    assert done.record["config"]["norm"] == "post"
    rates = {row["step"]: row["train/lr"] for row in done.metrics if "train/lr" in row}
    steps = done.record["steps"]
    n, warmup = steps, max(2, round(0.1 * steps))
    assert rates[steps - 1] == pytest.approx(32**-0.5 * min(n**-0.5, n * warmup**-1.5))


def test_a_set_of_another_kind_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["test"])
    assert train.main(["+size=smoke", "data=digits"]) == 2
    assert "this week wants a set of sentence pairs" in capfd.readouterr().err


@pytest.mark.parametrize("word", ["shifted=false", "mask=padding", "learn_end=false"])
def test_a_bug_is_not_a_setting(word: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert train.main(["+size=smoke", word]) == 2
    assert f"unknown setting '{word.split('=')[0]}'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 30, "heads": 4}, "must be even and a multiple of heads"),
        ({"layers": 0}, "layers must be > 0, got 0"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1"),
        ({"length_penalty": -0.5}, "length_penalty must be 0 or more"),
        ({"vocabulary": 50}, "vocabulary must be 200 or more"),
        ({"tests": 0}, "tests must be > 0, got 0"),
        ({"beams": 0}, "beams must be from 1 to 64, got 0"),
        ({"beams": 100_000}, "beams must be from 1 to 64, got 100000; try beams=4"),
        ({"schedule": "paper"}, "add optimizer=adamw"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Config(**settings)


def test_muon_takes_the_matrices_of_the_layers_and_adamw_the_rest() -> None:
    from transformers_lab.model import Shape, Transformer
    from transformers_lab.optimizers import build

    model = Transformer(9, Shape(16, 2, 2, 24))
    both = build(model, "muon", 1e-3, 0.02, 0.01)
    taken = {
        name: {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, optimizer in both.items()
    }
    names = {id(p): name for name, p in model.named_parameters()}
    assert taken["muon"] | taken["adamw"] == names.keys()
    assert not taken["muon"] & taken["adamw"]
    # 4 matrices an attention, 2 a feed-forward network: 6 in an encoder layer, 10 in a decoder's.
    assert len(taken["muon"]) == 2 * (6 + 10)
    assert "embedding.weight" in {names[i] for i in taken["adamw"]}
    alone = build(model, "adamw", 1e-3, 0.02, 0.01)
    assert sum(len(group["params"]) for group in alone["adamw"].param_groups) == len(names)
