"""Settings that leave nothing to compute: refused before the first step, with what to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.run.entry import entrypoint

CASES = [
    ("math_ml", "validation=0.00001", "of the 1437 training examples is 0"),
    ("neural_networks", "validation=0.00001", "of the 1437 training examples is 0"),
    ("neural_networks", "batch_size=1294", "must be from 1 to the 1293 training examples"),
    ("pytorch_mastery", "batch_size=1438", "must be from 1 to the 1437 training examples"),
    ("pytorch_mastery", "batch_size=1", "batch_size must be 2 or more, got 1; try batch_size=256"),
    ("diffusion", "batch_size=1294", "must be from 1 to the 1293 training examples"),
    ("diffusion", "samples=1", "samples must be 2 or more"),
    ("pretraining", "context=1", "try 2"),
    ("pretraining", "micro_batch=0", "micro_batch must be > 0, got 0"),
    ("pretraining", "objective=masked mask_rate=0", "try mask_rate=0.15"),
    ("reinforcement_learning", "ppo.envs=1 ppo.rollout=3", "needs at least two transitions"),
    ("reinforcement_learning", "ppo.envs=4 ppo.rollout=1", "ppo.rollout must be 2 or more"),
    ("reinforcement_learning", "dqn.epsilon=1.1", "dqn.epsilon must be from 0 to 1"),
]


@pytest.mark.parametrize(("week", "words", "said"), CASES)
def test_it_is_refused_and_leaves_no_run(
    week: str,
    words: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.delenv("LAB_DATA", raising=False)
    assert entrypoint(week).main(["+size=smoke", *words.split()]) == 2
    assert said in " ".join("".join(capsys.readouterr()).split())
    assert not list(tmp_path.glob("runs/*/*/*/.hydra"))
    assert not list(tmp_path.glob("results/*/*"))
