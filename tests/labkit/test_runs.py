"""The newest run that can be resumed is found, whatever the names of folders say."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit import paths
from labkit.errors import UsageError
from labkit.run import folders

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """make_run(name, age) makes a run folder of week `toy` that last wrote `age` seconds ago."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))

    def make(name: str, age: float, result: str | None = None, size: str = "tiny") -> Path:
        folder = tmp_path / "runs" / "toy" / size / name
        (folder / ".hydra").mkdir(parents=True)
        (folder / "model").mkdir()
        for file in (".hydra/config.yaml", "metrics.jsonl", "model/config.json"):
            (folder / file).touch()
        if result is not None:
            (folder / "result.json").write_text(result)
        for file in (*folder.glob("*"), *folder.glob("*/*")):
            os.utime(file, (time.time() - age, time.time() - age))
        return folder

    return make


def finished() -> str:
    return (
        '{"schema": 1, "week": "toy", "size": "tiny", "config": {}, "seed": 0, "metrics": {},'
        ' "ended": "finished", "started": "2026"}'
    )


def test_job_10_of_a_sweep_is_newer_than_job_9(make_run: MakeRun) -> None:
    """Files of one moment, as after a copy, are ordered by name, numbers by their size."""
    made = [make_run(f"20260102-030405-abcdef12-{job}", 0) for job in range(12)]
    now = time.time()
    for file in (file for folder in made for file in folder.rglob("*")):
        os.utime(file, (now, now))
    assert folders.newest_first(made) == made[::-1]
    assert folders.latest("toy") == made[-1]


def test_what_was_written_last_counts_not_the_name(make_run: MakeRun) -> None:
    old = make_run("20991231-235959-00000000", 500)
    new = make_run("20200101-000000-00000000", 400)
    assert folders.latest("toy") == new
    (old / "checkpoint").mkdir()
    (old / "checkpoint" / "step-000000010.safetensors").touch()
    assert folders.latest("toy") == old, "a checkpoint of just now"


def test_a_wrong_clock_hides_nothing(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    future = make_run("20991231-235959-00000000", -1e6)
    with_right_clock = make_run("20260101-000000-00000000", 100)
    assert folders.latest("toy") == with_right_clock
    (with_right_clock / "result.json").write_text(finished())
    assert folders.latest("toy") == future
    assert "in the future" in capsys.readouterr().err


def test_finished_and_running_ones_are_passed_over_and_named(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = make_run("a", 30, result='{"metrics": {}}')  # without `ended`: it tells nothing
    make_run("b", 20, result=finished())
    running = make_run("c", 10)
    with folders.locked(running):
        assert folders.latest("toy") == cut
    said = capsys.readouterr().err
    assert f"latest is {cut}" in said
    assert "tiny/c is still running, tiny/b has finished" in said
    assert folders.latest("toy") == running, "its process is gone"


def test_a_size_is_kept_to_and_nothing_left_is_said(make_run: MakeRun) -> None:
    make_run("a", 30, size="smoke")
    make_run("b", 20, result=finished())
    assert folders.latest("toy", "smoke").name == "a"
    with pytest.raises(UsageError, match="can be resumed: tiny/b has finished"):
        folders.latest("toy", "tiny")
    with pytest.raises(UsageError, match="there is no run of other"):
        folders.latest("other")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("~nosuchuser/runs/x", "~nosuchuser"),
        ("x" * 5000, "name too long"),
        ("a" * 300, "name too long"),
        ("\0", "is not a run folder"),
        ("nowhere", "no .hydra/config.yaml in it"),
    ],
)
def test_a_path_that_is_none_is_refused(
    make_run: MakeRun, where: str, said: str, capfd: pytest.CaptureFixture[str], toy: Any
) -> None:
    assert toy.main([f"resume={where}"]) == 2
    assert said.lower() in capfd.readouterr().err.lower()


@pytest.mark.parametrize("name", ["LAB_HOME", "LAB_DATA", "LAB_WORKSPACE"])
def test_folders_of_nobody_are_refused_by_the_setting_that_names_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "~nosuchuser/lab")
    find = {"LAB_HOME": paths.home, "LAB_DATA": paths.data_folders}.get(name, paths.workspace)
    with pytest.raises(UsageError, match=f"{name}: ~nosuchuser/lab: there is no such user"):
        find()


def test_drawing_from_the_latest_run_orders_alike(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffusion.sample import OTHERWISE, main

    jobs = [make_run(f"20260102-030405-abcdef12-{job}", 12 - job) for job in range(12)]
    (tmp_path / "runs" / "toy").rename(tmp_path / "runs" / "diffusion")
    assert folders.with_model("latest", "diffusion", OTHERWISE).name == jobs[-1].name
    for where in ("~nosuchuser", "x" * 5000):
        assert main([f"run={where}"]) == 2
        assert "error:" in capsys.readouterr().err
