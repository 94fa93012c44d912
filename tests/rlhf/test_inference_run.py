"""The part as a person runs it, at size smoke."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.inference.train import train
from tests.conftest import Lab


def test_smoke_measures_every_way_to_answer(lab_run: Lab) -> None:
    done = lab_run.once("rlhf.inference", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    chosen = ("majority_accuracy", "verifier_accuracy", "weighted_accuracy", "likelihood_accuracy")
    assert all(metrics[name] <= metrics["pass_accuracy"] for name in chosen)
    assert metrics["pass_accuracy"] > metrics["start_accuracy"]
    assert metrics["trained_accuracy"] > metrics["start_accuracy"]
    names = {p.name for p in (done.dir / "samples").iterdir()}
    assert names == {"inference.png", "inference.txt", "training.png"}
    text = (done.dir / "samples" / "inference.txt").read_text()
    for name in ("greedy", "majority vote", "tree search", "further training"):
        assert name in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("budgets=[]", "budgets=[] must name numbers of beams from 1 to 12"),
        ("budgets=[0]", "budgets must be > 0, got 0"),
        ("budgets=[13]", "budgets=[13] must name numbers of beams from 1 to 12"),
        ("samples=1", "samples must be 2 or more, got 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.setattr("sys.argv", ["test"])
    assert train.main(["+size=smoke", *words.split()]) == 2
    shown = capfd.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err + shown.out


def test_a_model_with_other_tokens_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from pretraining import GPT, Shape, build_tokenizer, export

    export(GPT(Shape(10, 32, 8, 1, 1)), build_tokenizer("char", "x", "abc", 0), tmp_path / "abc")
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["test"])
    (tmp_path / "empty").mkdir()
    assert train.main(["+size=smoke", f"base={tmp_path / 'empty'}"]) == 2
    assert "holds no language model that can be opened" in " ".join(capfd.readouterr().err.split())
    assert train.main(["+size=smoke", f"base={tmp_path / 'abc'}"]) == 2
    shown = " ".join(capfd.readouterr().err.split())
    assert "has 10 tokens, and sums need the 15 of rlhf.verifiable" in shown
