"""The week as a person runs it, at size smoke; both ways of training against each other."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig

from alignment.chat import Example, labels
from alignment.library import train_with_trl
from alignment.lora import trainable
from alignment.model import make_model, make_optimizer
from labkit import LabConfig, Run, UsageError
from labkit.errors import Interrupted
from labkit.state import checkpoint
from tests.conftest import same

SHORT = ("+size=smoke", "steps=8", "tests=8", "evaluations=2")


def test_smoke_learns_measures_and_publishes(lab_run: Any) -> None:
    done = lab_run.once("alignment", "+size=smoke")
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    assert metrics["gain"] > 2
    assert metrics["gain"] == pytest.approx(metrics["base_nll"] - metrics["response_nll"])
    assert metrics["stops"] > 40
    assert metrics["loss_gap"] < 1e-4
    assert metrics["merge_gap"] < 1e-4
    assert metrics["dpo_first_loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert done.record["data"]["name"] == "commands"
    assert {p.name for p in (done.dir / "samples").iterdir()} == {
        "loss.png",
        "valid.png",
        "answers.txt",
    }
    assert "[tuned]" in (done.dir / "samples" / "answers.txt").read_text()
    assert PeftConfig.from_pretrained(str(done.dir / "adapter")).r == 8
    published = done.home / "artifacts" / "alignment" / "smoke-commands"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        p.name for p in published.iterdir()
    }
    from transformers import AutoTokenizer

    template = AutoTokenizer.from_pretrained(published).chat_template
    assert template is not None, "whoever serves it needs the words it was trained with"
    assert "### Response:" in template


def test_compare_resumes_to_the_same_bits(resume_check: Any, lab_run: Any) -> None:
    """Two models and two optimisers, dropout and an update of the head; and what it reports."""
    words = ("steps=16", "dropout=0.1", "targets=[c_attn,lm_head]")
    resume_check("alignment", *SHORT, "+experiment=compare", *words)
    folder = min(path for path in lab_run.folders())  # the run that was not cut
    record = json.loads((folder / "result.json").read_text())
    found = record["metrics"]
    assert found["gain_kept"] == pytest.approx(
        100 * found["gain"] / (found["base_nll"] - found["full_nll"])
    )
    assert found["full_nll"] < found["response_nll"]
    assert found["trained_share"] < 20
    assert found["merge_gap"] < 1e-4
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    logged = {key for line in lines for key in json.loads(line)}
    for key in ("train/loss", "train/lr", "valid/nll"):
        assert {f"{key}_lora", f"{key}_full"} <= logged


def test_the_libraries_loop_goes_on_with_equal_bits(
    make_gpt2: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    """trl's SFTTrainer around peft's LoRA with dropout, stopped by a signal, in this process."""

    def tune(folder: Path, resumed: bool = False, stop: int | None = None) -> Any:
        folder.mkdir(exist_ok=True)
        cfg = LabConfig(device="cpu", precision="fp32", max_steps=6)
        run = Run("alignment", cfg, folder, "smoke", resumed=resumed)
        model = make_model(make_gpt2(), "trl", ["c_attn"], 2, 4.0, 0.3, 0)

        def examples_of(step: int) -> tuple[list[Example], list[list[int]]]:
            if step == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            examples = [Example([1 + step, 2, 3 + i, 4 + step, 0], 2) for i in range(4)]
            return examples, [labels(example) for example in examples]

        optimizer = make_optimizer(model, 1e-2)
        train_with_trl(
            run, model, tokenizer, optimizer, lambda step: 1 - step / 6, examples_of, 6, 4, 1.0
        )
        run.save()
        run.close()
        state = checkpoint.load_latest(folder / "checkpoint")
        assert state is not None
        return state, (folder / "metrics.jsonl").read_text(), trainable(model)

    whole, lines, weights = tune(tmp_path / "whole")
    with pytest.raises(Interrupted):
        tune(tmp_path / "cut", stop=3)
    resumed, again, resumed_weights = tune(tmp_path / "cut", resumed=True)
    assert resumed["step"] == whole["step"] == 6
    assert same(resumed["tracked"], whole["tracked"])
    assert same(resumed["rng"], whole["rng"])
    assert again == lines
    assert all(torch.equal(value, weights[name]) for name, value in resumed_weights.items())


def test_the_libraries_way_gives_the_same_curve(lab_run: Any) -> None:
    """peft's LoRA, trl's padded batches, its loss and its loop, beside ours, packed."""
    ours = lab_run("alignment", *SHORT)
    theirs = lab_run("alignment", *SHORT, "method=trl")
    assert ours.returncode == theirs.returncode == 0, ours.output + theirs.output
    for key in ("train/loss", "train/lr"):
        two = [[line[key] for line in run.metrics if key in line] for run in (ours, theirs)]
        assert len(two[0]) == 8
        assert two[0] == pytest.approx(two[1], rel=2e-4), key
    losses = [line["train/loss"] for line in ours.metrics if "train/loss" in line]
    assert losses[-1] < losses[0] - 0.1, "it did learn"
    for key in ("response_nll", "base_nll", "trained_share"):
        assert ours.record["metrics"][key] == pytest.approx(theirs.record["metrics"][key], rel=2e-4)
    assert PeftConfig.from_pretrained(str(theirs.dir / "adapter")).r == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rank=0",), "rank must be > 0, got 0"),
        (("commands=1",), "commands must be from 0 to below 1"),
        (("targets=[]",), "targets must name a layer"),
        (("targets=[q_proj]",), "no layer called q_proj"),
        (("method=trl", "targets=[lm_head]"), "type targets=[c_attn,c_proj,c_fc], or method=lora"),
        (("method=lroa",), "did you mean lora?"),
        (("isolate=false",), "unknown setting 'isolate'"),
        (("learn_end=false",), "unknown setting 'learn_end'"),
        (("learn_prompt=true",), "unknown setting 'learn_prompt'"),
        (("merge_scale=16",), "unknown setting 'merge_scale'"),
        (("warmup=1.5",), "warmup must be from 0 to 1, got 1.5; try warmup=0.1"),
        (("base=no/such-model",), "neither a folder with a model and its tokenizer nor"),
        (("context=4",), "rows fit into context=4"),
        (("data=pydoc",), "this week wants a set of instructions"),
    ],
)
def test_bad_settings_are_refused(words: tuple[str, ...], message: str, capfd: Any, tmp_path: Any,
                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    from alignment.train import train

    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.setattr("sys.argv", ["test"])
    assert train.main(["+size=smoke", *words]) == 2
    assert message in capfd.readouterr().err
    assert not list(tmp_path.glob("runs/*/*/*/result.json"))


def test_a_share_leaves_a_rest() -> None:
    from alignment.train import Config

    with pytest.raises(UsageError, match="dropout must be from 0 to below 1"):
        Config(dropout=1.0)
