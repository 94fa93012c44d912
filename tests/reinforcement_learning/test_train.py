"""The week from its command line: it runs, resumes to the last bit, and refuses in words."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit import Run
from labkit.state import checkpoint
from reinforcement_learning.train import train
from tests.conftest import Lab, same

SHORT = ("+size=smoke", "evaluations=4", "eval_episodes=3")
ALGORITHMS = [
    ("algo=ppo", "ppo.steps=8_192"),
    ("algo=reinforce", "reinforce.updates=6"),
    ("algo=dqn", "dqn.steps=2_500"),
    ("algo=q_learning", "q.steps=2_000"),
    ("algo=q_learning", "q.steps=2_000", "env=FrozenLake-v1"),
]


def test_resume_is_exact(resume_check: Any) -> None:
    """DQN has one of everything: networks, a memory, generators of both libraries."""
    resume_check("reinforcement_learning", *SHORT, "algo=dqn", "dqn.steps=2_500")


@pytest.fixture
def run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, Path | None]]:
    """run_here(*words) carries out a command line in this process: exit code and run folder."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.setattr("sys.argv", ["test"])

    def run(*words: str) -> tuple[int, Path | None]:
        before = set(tmp_path.glob("runs/*/*/*/.hydra"))
        code = train.main(words)
        new = set(tmp_path.glob("runs/*/*/*/.hydra")) - before
        return code, new.pop().parent if new else None

    return run


@pytest.mark.parametrize("words", ALGORITHMS, ids=" ".join)
def test_every_algorithm_goes_on_with_equal_bits(
    run_here: Callable[..., tuple[int, Path]],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    """Stopped by a signal after its second step and resumed, all in this process."""
    code, whole = run_here(*SHORT, *words)
    assert code == 0
    steps = Run.steps

    def stopped(self: Run, total: int) -> Iterator[int]:
        for step in steps(self, total):
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield step

    with monkeypatch.context() as patch:
        patch.setattr(Run, "steps", stopped)
        code, cut = run_here(*SHORT, *words)
    assert code == 130
    assert run_here(f"resume={cut}") == (0, None)
    states, records = [], []
    for folder in (whole, cut):
        state = checkpoint.load_latest(folder / "checkpoint")
        assert state is not None
        states.append({part: state[part] for part in ("step", "tracked", "rng")})
        records.append(json.loads((folder / "result.json").read_text()))
    assert states[0]["step"] > 3, "there was something left to do"
    assert same(states[0], states[1])
    assert records[0]["metrics"] == records[1]["metrics"]
    lines = [(folder / "metrics.jsonl").read_text() for folder in (whole, cut)]
    assert lines[0] == lines[1]


def test_smoke_beats_random_actions_stops_at_its_target_and_leaves_its_pictures(
    lab_run: Lab,
) -> None:
    run = lab_run("reinforcement_learning", "+size=smoke", "evaluations=10", "target_return=300")
    assert run.returncode == 0, run.output
    assert run.record is not None
    assert run.dir is not None
    assert run.record["metrics"]["return"] > 22.2
    assert run.record["data"]["name"] == "CartPole-v1"
    for name in ("returns.png", "episode.gif"):
        assert (run.dir / "samples" / name).stat().st_size > 2000
    scores = [row["eval/return"] for row in run.metrics]
    assert scores[-1] >= 300 > max(scores[:-1])
    assert run.record["steps"] == len(scores) < 10
    assert json.dumps(run.record["metrics"]).count("NaN") == 0


def test_frozen_lake_is_held_against_value_iteration(lab_run: Any) -> None:
    words = ("+size=smoke", "algo=q_learning", "env=FrozenLake-v1")
    run = lab_run("reinforcement_learning", *words)
    assert run.returncode == 0, run.output
    metrics = run.record["metrics"]
    assert metrics["optimal_return"] == pytest.approx(0.7402, abs=1e-4)
    assert metrics["optimality"] == metrics["exact_return"] / metrics["optimal_return"] > 0.5
    assert (run.dir / "samples" / "values.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gamma=1.5"], "gamma must be above 0 and below 1"),
        (["ppo.envs=0"], "ppo.envs must be > 0"),
        (["ppo_envs=4"], "it is called ppo.envs now"),
        (["precision=bf16"], "fp32"),
        (["algo=pp0"], "did you mean ppo"),
        (["env=CartPole-v7"], "CartPole"),
        (["env=Pendulum-v1"], "continuous actions"),
        (["env=FrozenLake-v1"], "algo=q_learning"),
        (["env=Acrobot-v1", "algo=q_learning"], "FrozenLake-v1"),
        (["ppo.steps=100"], "100 steps are less than one round of ppo"),
    ],
)
def test_bad_settings_are_refused_in_words(
    run_here: Callable[..., tuple[int, Path | None]],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    code, _ = run_here("+size=smoke", *words)
    output = capfd.readouterr()
    assert code == 2
    assert message in output.err
    assert "Traceback" not in output.err + output.out
    assert not list(tmp_path.glob("runs/*/*/*/result.json"))
