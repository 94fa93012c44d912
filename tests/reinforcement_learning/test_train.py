"""The week from its command line: it runs, resumes to the last bit, and refuses in words."""

from __future__ import annotations

import json
from typing import Any

import pytest

ALGORITHMS = [
    ("ppo",),
    ("reinforce",),
    ("dqn", "dqn_steps=2_500"),
    ("q_learning",),
    ("q_learning", "env=FrozenLake-v1"),
]


@pytest.mark.parametrize("words", ALGORITHMS, ids=" ".join)
def test_resume_is_exact(resume_check: Any, words: tuple[str, ...]) -> None:
    resume_check("reinforcement_learning", "+size=smoke", f"algo={words[0]}", *words[1:])


def test_smoke_beats_random_actions_and_leaves_its_pictures(lab_run: Any) -> None:
    run = lab_run("reinforcement_learning", "+size=smoke")
    assert run.returncode == 0, run.output
    assert run.record["metrics"]["return"] > 22.2
    assert run.record["data"]["name"] == "CartPole-v1"
    for name in ("returns.png", "episode.gif"):
        assert (run.dir / "samples" / name).stat().st_size > 2000


def test_frozen_lake_is_held_against_value_iteration(lab_run: Any) -> None:
    words = ("+size=smoke", "algo=q_learning", "env=FrozenLake-v1")
    run = lab_run("reinforcement_learning", *words)
    assert run.returncode == 0, run.output
    metrics = run.record["metrics"]
    assert metrics["optimal_return"] == pytest.approx(0.7402, abs=1e-4)
    assert metrics["optimality"] == metrics["exact_return"] / metrics["optimal_return"] > 0.5
    assert (run.dir / "samples" / "values.png").is_file()


def test_training_stops_at_the_target(lab_run: Any) -> None:
    run = lab_run("reinforcement_learning", "+size=smoke", "evaluations=10", "target_return=300")
    assert run.returncode == 0, run.output
    scores = [row["eval/return"] for row in run.metrics]
    assert scores[-1] >= 300 > max(scores[:-1])
    assert run.record["steps"] == len(scores) < 10
    assert json.dumps(run.record["metrics"]).count("NaN") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gamma=1.5"], "gamma must be between 0 and 1"),
        (["ppo_envs=0"], "ppo_envs must be > 0"),
        (["precision=bf16"], "fp32"),
        (["algo=pp0"], "did you mean ppo"),
        (["env=CartPole-v7"], "CartPole"),
        (["env=Pendulum-v1"], "continuous actions"),
        (["env=FrozenLake-v1"], "algo=q_learning"),
        (["env=Acrobot-v1", "algo=q_learning"], "FrozenLake-v1"),
        (["ppo_steps=100"], "100 steps are less than one round of ppo"),
    ],
)
def test_bad_settings_are_refused_in_words(lab_run: Any, words: list[str], message: str) -> None:
    run = lab_run("reinforcement_learning", "+size=smoke", *words)
    assert run.returncode == 2, run.output
    assert message in run.output
    assert "Traceback" not in run.output
    assert run.dir is None
