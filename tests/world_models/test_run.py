"""The week from its command line: it runs, resumes to the last bit, and refuses in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Lab
from world_models.train import train

SHORT = (
    "+size=smoke", "vae.steps=6", "rnn.steps=5", "search.generations=4", "looks=0",
    "test_copies=4", "collect.envs=8", "collect.steps=60", "features=v_random",
)  # fmt: skip


def test_smoke_learns_all_three_and_leaves_its_pictures(lab_run: Lab) -> None:
    run = lab_run.once("world_models", "+size=smoke")
    assert run.returncode == 0, run.output
    assert run.record is not None
    assert run.dir is not None
    metrics = run.record["metrics"]
    assert run.record["data"]["name"] == "lab/MiniTrack-v0"
    assert metrics["return_ratio"] == pytest.approx(metrics["return"] / metrics["random_return"])
    assert metrics["real_steps"] <= 8 * 420
    assert "first_nll" in metrics
    assert json.dumps(metrics).count("NaN") == 0
    for name in ("dream.gif", "dream.png", "search.png", "model.png", "return.png"):
        assert (run.dir / "samples" / name).stat().st_size > 2000
    by_phase = {key for row in run.metrics for key in row}
    assert {"train/vae_loss", "train/nll", "search/mean", "eval/return"} <= by_phase
    assert list((run.home / "rollouts").glob("lab-MiniTrack-v0-smooth-8x420-seed0"))


def test_resumes_to_the_same_bits(resume_check: Any) -> None:
    """In any of the phases, with an untrained watcher and CMA-ES in the middle of its search."""
    resume_check("world_models", *SHORT)


def pictures(home: Path) -> set[str]:
    return {file.name for file in home.glob("runs/*/*/*/samples/*")}


def record(home: Path) -> dict[str, Any]:
    (file,) = home.glob("runs/*/*/*/result.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_ppo_is_measured_in_the_same_way(here: Path) -> None:
    ppo = ("+experiment=ppo", "ppo.steps=256", "ppo.envs=4", "ppo.rollout=16")
    assert train.main([*SHORT, *ppo, "looks=1", "target_return=-1000"]) == 0
    found = record(here)
    assert found["steps"] == 10, "6 of V, and 4 rounds: the one look is after the last of them"
    assert {"return", "return_ratio", "random_return"} <= found["metrics"].keys()
    assert found["metrics"]["real_steps"] == pytest.approx(8 * 60 + 256, abs=16)
    assert pictures(here) == {"value.png", "return.png"}


@pytest.mark.parametrize(("sees", "steps"), [("latents", 6 + 3), ("frames", 3)])
def test_dreamer_is_measured_in_the_same_way(here: Path, sees: str, steps: int) -> None:
    dreamer = (f"dreamer.sees={sees}", "dreamer.rounds=3", "dreamer.envs=2", "dreamer.batch=4")
    assert train.main([*SHORT, "+experiment=dreamer", *dreamer, "looks=1"]) == 0
    found = record(here)
    assert found["steps"] == steps, "V learns only where it sees for the model"
    assert {"return", "return_ratio", "random_return"} <= found["metrics"].keys()
    assert found["metrics"]["real_steps"] == pytest.approx(8 * 60 + 2 * 2 * 24, abs=16)
    assert pictures(here) == {"model.png", "imagined.png", "return.png"}


def test_the_search_on_the_track_counts_its_real_steps(here: Path) -> None:
    short = ("dream=false", "features=v", "search.generations=1", "search.population=4")
    assert train.main([*SHORT, *short, "search.episodes=1"]) == 0
    metrics = record(here)["metrics"]
    assert metrics["real_steps"] > 8 * 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=CartPole-v1"], "try env=lab/MiniTrack-v0 or env=CarRacing-v3"),
        (["env=CarRacing-v3", "dream=false"], "type env=lab/MiniTrack-v0"),
        (["env=CarRacing-v3", "method=ppo"], "method=ppo needs thousands of real steps"),
        (["features=m"], "features"),
        (["rnn.length=300"], "try rnn.length=200"),
        (["search.population=3"], "search.population must be 4 or more"),
        (["search.temperature=0"], "search.temperature must be > 0"),
        (["collect.envs=2"], "collect.envs must be 4 or more"),
        (["collect.exploration=brown"], "exploration"),
        (["method=ppo", "ppo.steps=100"], "less than one round of PPO"),
        (["vae.batch=9999999"], "vae.batch=9999999 must be from 1 to"),
    ],
)
def test_bad_settings_are_refused_in_words(
    here: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert train.main(["+size=smoke", "collect.envs=4", "collect.steps=200", *words]) == 2
    output = capfd.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err + output.out
    assert not list(here.glob("runs/*/*/*/result.json"))


def test_carracing_without_box2d_is_refused_in_words(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gymnasium

    def lacks(*args: Any, **words: Any) -> None:
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gymnasium, "make", lacks)
    assert train.main(["+size=smoke", "env=CarRacing-v3"]) == 2
    assert "pip install 'gymnasium[box2d]'" in capfd.readouterr().err
