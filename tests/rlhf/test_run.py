"""The week as a person runs it, at size smoke: every method, resuming, the plot, bad words."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from labkit import UsageError
from pretraining import load
from rlhf import frontier
from rlhf.start import load_reward
from rlhf.train import Config, train
from tests.conftest import Lab

SHORT = ("steps=8", "pairs=600", "sft.steps=30", "tests=32", "looked_at=16", "evaluations=1")


def test_smoke_learns_and_is_measured(lab_run: Lab, here: Path) -> None:
    done = lab_run.once("rlhf", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["gold_gain"] > 0.1
    assert metrics["win_rate"] > 52
    assert 0 < metrics["kl"] < 10
    assert metrics["accuracy"] > 60
    assert done.metrics[1]["train/loss"] == pytest.approx(0.6931, abs=1e-3)
    kept = json.loads((done.dir / "frontier.json").read_text())
    assert kept["method"] == "dpo"
    assert kept["points"][0]["kl"] < 0.02 < kept["points"][-1]["kl"]
    assert {p.name for p in (done.dir / "samples").iterdir()} == {
        "answers.txt", "frontier.png", "loss.png",
    }  # fmt: skip
    assert "policy" in (done.dir / "samples" / "answers.txt").read_text()
    assert load(done.dir / "policy").shape == load(done.dir / "start").shape
    published = done.home / "artifacts" / "rlhf" / "smoke-replies"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        p.name for p in published.iterdir()
    }


def test_kto_runs(here: Path, tmp_path: Path) -> None:
    """The one method with rows of its own; test_family.py has the others."""
    assert train.main(["+size=smoke", "method=kto", *SHORT]) == 0
    record = json.loads(next(tmp_path.glob("runs/rlhf/smoke/*/result.json")).read_text())
    assert record["metrics"]["kl"] > 0
    assert {"gold_gain", "win_rate", "accuracy"} <= record["metrics"].keys()


def test_the_reward_model_and_best_of_n(lab_run: Lab, here: Path) -> None:
    done = lab_run("rlhf", "+size=smoke", "+experiment=reward", "best_of_prompts=4")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["accuracy"] > 55
    assert metrics["kl"] <= metrics["kl_bound"] == pytest.approx(3.1745, abs=1e-3)
    assert load_reward(done.dir / "reward").deviation.item() > 0
    names = {p.name for p in (done.dir / "samples").iterdir()}
    assert {"calibration.png", "best_of_n.png"} <= names


def test_ppo_resumes_to_the_same_bits(resume_check: Any, lab_run: Lab) -> None:
    """Policy, value head and the looks; the start and the reward model are read again."""
    words = ("ppo.steps=5", "ppo.rollout=16", "reward.steps=10", *SHORT[1:])
    resume_check("rlhf", "+size=smoke", "method=ppo", *words)
    folder = min(path for path in lab_run.folders())
    found = json.loads((folder / "result.json").read_text())["metrics"]
    assert {"proxy_gain", "overoptimisation", "gold_gain", "kl"} <= found.keys()


def test_trl_gives_the_same_curve(lab_run: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """trl's trainer, collator and loss beside ours; and both in one plot."""
    ours = lab_run("rlhf", "+size=smoke", *SHORT)
    theirs = lab_run("rlhf", "+size=smoke", "method=trl", *SHORT)
    assert ours.returncode == theirs.returncode == 0, ours.output + theirs.output
    for key in ("train/loss", "train/lr"):
        two = [[line[key] for line in run.metrics if key in line] for run in (ours, theirs)]
        assert len(two[0]) == 8
        assert two[0] == pytest.approx(two[1], rel=1e-3), key
    assert ours.record is not None
    assert theirs.record is not None
    for key in ("gold", "kl", "accuracy"):
        pair = [run.record["metrics"][key] for run in (ours, theirs)]
        assert pair[0] == pytest.approx(pair[1], rel=0.02, abs=0.02)
    monkeypatch.setenv("LAB_HOME", str(ours.home))
    out = ours.home / "all.png"
    assert frontier.main(["size=smoke", f"out={out}"]) == 0
    assert Image.open(out).width > 100
    found = frontier.newest(ours.home / "runs" / "rlhf" / "smoke", "replies")
    assert found.keys() == {"dpo", "trl"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("method=dop", "did you mean dpo?"),
        ("dpo.beta=0", "dpo.beta must be > 0"),
        ("dpo.smoothing=0.5", "dpo.smoothing must be from 0 to below 0.5"),
        ("method=trl dpo.smoothing=0.1", "trl's sigmoid loss ignores dpo.smoothing"),
        ("method=trl weight_decay=0.1", "type weight_decay=0"),
        ("width=50", "width must be an even multiple of heads"),
        ("ppo.minibatches=65", "ppo.rollout must be at least ppo.minibatches"),
        ("context=8 answer_tokens=4", "does not fit into context=8"),
        ("context=6 answer_tokens=1 long_rows=drop", "rows fits into context=6"),
        ("answer_tokens=32", "leaves no room for a prompt in context=32"),
        ("batch_size=3001", "must be from 1 to the 3000 training examples"),
        ("data=commands", "this week wants a set of preferences"),
        ("data=polite", "Put a copy into"),
        ("base=no/such-model", "neither a folder with a model and its tokenizer nor"),
    ],
)
def test_bad_settings_are_refused(
    words: str, message: str, here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words.split()]) == 2
    assert message in capfd.readouterr().err
    assert not list(tmp_path.glob("runs/*/*/*/result.json"))


def test_a_base_without_the_words_is_refused(
    here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A tokenizer of other words: its end of text would stand for every word of the task."""
    from pretraining import GPT, Shape, export
    from rlhf.start import word_tokenizer

    tokenizer = word_tokenizer(["words of another language"])
    export(GPT(Shape(len(tokenizer), 32, 16, 1, 1)), tokenizer, tmp_path / "base")
    assert train.main(["+size=smoke", f"base={tmp_path / 'base'}"]) == 2
    assert "no tokens for text 0 of the data" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no finished run of rlhf on data=replies"),
        (["sice=tiny"], "did you mean size?"),
        (["tiny"], "settings are written key=value"),
    ],
)
def test_the_plot_says_what_it_lacks(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frontier.main(words) == 2
    assert message in capsys.readouterr().err


def test_the_chosen_settings() -> None:
    trl, cfg = Config(method="trl"), Config(method="ppo")
    assert trl.chosen is trl.dpo
    assert cfg.chosen is cfg.ppo
    assert cfg.total == cfg.ppo.steps
    assert Config(method="kto", steps=7).total == 7
    with pytest.raises(UsageError, match="heads"):
        Config(width=50)


@pytest.mark.parametrize("module", ["rlhf.train", "rlhf.frontier"])
def test_help_loads_nothing_heavy(lab_run: Lab, module: str) -> None:
    process = lab_run.start("-X", "importtime", "-m", module, "--help")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "usage:" in output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "|" in line}
    assert not {"torch", "matplotlib", "hydra"} & imported
