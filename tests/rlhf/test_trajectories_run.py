"""The part as a person runs it, at size smoke."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.trajectories.train import train
from tests.conftest import Lab


def test_smoke_learns_what_the_judge_likes(lab_run: Lab) -> None:
    done = lab_run.once("rlhf.trajectories", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["rank_correlation"] > 0.3
    assert metrics["comparisons"] == 200
    assert {p.name for p in (done.dir / "samples").iterdir()} == {
        "returns.png", "reward.png", "episode.gif",
    }  # fmt: skip


@pytest.mark.parametrize("paid", ["hidden"])
def test_other_rewards_need_no_judge(
    paid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["test"])
    assert train.main(["+size=smoke", f"reward={paid}", "ppo.steps=4096", "eval_episodes=2"]) == 0
    (file,) = tmp_path.glob("runs/*/*/*/result.json")
    metrics = json.loads(file.read_text())["metrics"]
    assert "agreement" not in metrics
    assert metrics["comparisons"] == 0


def test_resumes_to_the_same_bits(resume_check) -> None:
    words = ("comparisons=40", "ppo.steps=3072", "ppo.rollout=32", "updates=2", "eval_episodes=4")
    resume_check("rlhf.trajectories", "+size=smoke", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("members=1", "members must be 2 or more, got 1"),
        ("segment=1", "segment must be 2 or more, got 1"),
        ("segment=200", "has no segment of 200; type ppo.rollout=200 or more"),
        ("mistakes=1", "mistakes must be from 0 to below 1, got 1"),
        ("ppo.steps=100", "less than two rounds of PPO"),
        ("precision=bf16", "computes in fp32 only"),
        ("behaviour=right", "behaviour=right is neither left nor rock"),
        ("env=Pendulum-v1", "needed is one choice out of n"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["test"])
    assert train.main(["+size=smoke", *words.split()]) == 2
    shown = capfd.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err + shown.out
