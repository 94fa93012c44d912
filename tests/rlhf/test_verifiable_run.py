"""The loop as a person runs it, at size smoke: it learns, resumes, and refuses what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.verifiable.train import train
from tests.conftest import Lab


def test_smoke_learns_from_rewards_alone(lab_run: Lab) -> None:
    done = lab_run.once("rlhf.verifiable", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["judge_gap"] == pytest.approx(0, abs=1e-3)  # the judge is strict
    assert metrics["sum_accuracy"] > metrics["start_accuracy"]
    first = done.metrics[0]
    assert abs(first["train/loss"]) < 1e-5
    assert first["train/grad_norm"] > 0.01
    assert all(row["train/sampler_gap"] < 1e-3 for row in done.metrics)
    assert "the first loss is" in done.output
    text = (done.dir / "samples" / "answers.txt").read_text()
    assert text.count("\n") == 21
    assert sum(done.record["data"]["splits"].values()) == 90 * 90
    assert done.record["notes"]["start_steps"] >= 10
    assert done.record["notes"]["tokens"]["trained"] > done.record["notes"]["tokens"]["drawn"]


def test_both_models_are_published(lab_run: Lab) -> None:
    import torch

    from rlhf.verifiable.arithmetic import Addition
    from rlhf.verifiable.evaluate import accuracy
    from rlhf.verifiable.weights import FINAL, START, open_model

    done = lab_run.once("rlhf.verifiable", "+size=smoke")
    assert done.record is not None
    folder = done.home / "artifacts" / "rlhf.verifiable" / "smoke-addition"
    task = Addition(2, "units_first", 5)
    with torch.no_grad():
        for name, metric in ((START, "start_accuracy"), (FINAL, "sum_accuracy")):
            reached = 100 * accuracy(open_model(folder / name, 11), task, task.pairs("test"))
            assert reached == pytest.approx(done.record["metrics"][metric], abs=0.3)
    from labkit import UsageError

    with pytest.raises(UsageError, match="a sum with its answer has up to 12"):
        open_model(folder / START, 12)


def test_resumes_to_the_same_bits(resume_check) -> None:
    resume_check(
        "rlhf.verifiable", "+size=smoke", "steps=6", "start.steps=20", "grpo.beta=0.1",
        "grpo.dynamic=true", "grpo.redraws=2",
    )  # fmt: skip


def test_trl_trains_from_the_same_start(lab_run: Lab) -> None:
    done = lab_run("rlhf.verifiable", "+size=smoke", "+experiment=trl", "steps=3", "start.steps=60")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert [row["step"] for row in done.metrics] == [0, 1, 2]
    assert {"train/reward", "train/loss"} <= done.metrics[0].keys()
    assert done.record["metrics"]["judge_gap"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("grpo.group=1", "grpo.group must be 2 or more, got 1"),
        ("grpo.redraws=2", "type grpo.dynamic=true as well"),
        ("grpo.loss=reinforce", "grpo.loss"),
        ("grpo.clip_low=1.5", "grpo.clip_low must be above 0 and up to 1, got 1.5"),
        ("start.accuracy=1", "start.accuracy must be above 0 and below 1, got 1"),
        ("longest=3", "longest=3 has no room for the 3 digits of a sum and END; type longest=4"),
        ("digits=7", "at most 6 digits"),
        ("width=30 heads=4", "width=30 must be an even multiple of heads=4"),
        ("method=trl", "type grpo.iterations=1 grpo.dynamic=false"),
        ("method=trl grpo.iterations=1 grpo.beta=0.1", "type grpo.beta=0"),
        ("judge=lenient", "judge=lenient cannot be imported"),
        ("grpo.prompts=100000", "grpo.prompts=100000 must be from 1 to the"),
        ("data=gsm8k", "data"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    here: Path, words: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words.split()]) == 2
    shown = capfd.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err + shown.out


def nan_judge(written: str, a: int, b: int) -> float:
    return float("nan")


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ("math:fmod", "the judge raised TypeError for the answer"),
        (f"{__name__}:nan_judge", "the judge gave nan for the answer"),
    ],
)
def test_a_judge_that_fails_ends_the_run_in_words(
    here: Path, judge: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", "start.steps=1", f"judge={judge}"]) == 1
    shown = capfd.readouterr()
    assert said in " ".join((shown.err + shown.out).split())
    (record,) = here.glob("runs/*/*/*/result.json")
    assert json.loads(record.read_text())["ended"] == "failed"
