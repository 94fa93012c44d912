"""What a week needs of an earlier one is found, or made first, and said; a name is a claim."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit import data, paths
from labkit.errors import Interrupted, RunFailed
from labkit.machine import signals
from labkit.run import artifacts

WORDS = ["-m", "pretraining.train", "+size=tiny", "data=wikitext2", "fallback=pydoc"]


def record(week: str, dataset: str, **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1, "week": week, "size": "tiny", "config": {}, "seed": 0, "experiment": None,
        "metrics": {}, "ended": "finished", "started": "2026-01-01", "data": {"name": dataset},
        **changes,
    }  # fmt: skip


def publish(folder: Path, **changes: Any) -> Path:
    """A folder as a finished run leaves it."""
    folder.mkdir(parents=True)
    dataset = folder.name.split("-")[1]
    text = json.dumps(record(folder.parent.name, dataset, **changes))
    (folder / artifacts.RECORD).write_text(text)
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of artifacts, on a machine without data."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path / "artifacts"


@pytest.fixture
def started(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """started(make) lets commands call `make` instead of running; it returns their list."""

    def begin(make: Callable[[], int | Path | None]) -> list[list[str]]:
        commands: list[list[str]] = []

        def finish(command: list[str]) -> int:
            commands.append(command[1:])
            made = make()
            return made if isinstance(made, int) else 0

        monkeypatch.setattr(signals, "finish", finish)
        return commands

    return begin


def test_missing_artifact_is_made_first_and_said(
    root: Path, started: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = started(lambda: publish(root / "pretraining" / "tiny-pydoc"))
    found = artifacts.obtain("pretraining", "wikitext2", "pydoc")
    assert found == root / "pretraining" / "tiny-pydoc"
    assert commands == [WORDS]
    assert f"python {' '.join(WORDS)}" in capsys.readouterr().err
    assert artifacts.obtain("pretraining", "wikitext2", "pydoc") == found
    assert len(commands) == 1, "what was published on the fallback will do, while there is no data"


def test_an_experiment_has_a_folder_of_its_own_and_is_asked_for(root: Path, started: Any) -> None:
    plain = publish(root / "pretraining" / "tiny-a")
    muon = publish(root / "pretraining" / "tiny-a-muon")
    commands = started(lambda: publish(root / "pretraining" / "tiny-pydoc"))
    assert artifacts.obtain("pretraining", "a") == plain
    assert artifacts.obtain("pretraining", "a", experiment="muon") == muon
    with pytest.raises(RunFailed, match="exit 0"):  # what it publishes is the week as it is
        artifacts.obtain("pretraining", "wikitext2", "pydoc", "muon")
    assert commands[0][-1] == "+experiment=muon"


def test_an_artifact_of_another_size_is_asked_for_in_its_own_words(
    root: Path, started: Any
) -> None:
    tiny = publish(root / "pretraining" / "tiny-a")
    commands = started(lambda: publish(root / "pretraining" / "full-a"))
    assert not artifacts.at_hand("pretraining", "a", size="full")
    found = artifacts.obtain("pretraining", "a", size="full")
    assert found == root / "pretraining" / "full-a"
    assert commands == [["-m", "pretraining.train", "data=a"]], "the full size has no +size="
    assert artifacts.at_hand("pretraining", "a", size="full")
    assert artifacts.obtain("pretraining", "a") == tiny
    assert not artifacts.at_hand("pretraining", "a", "muon")


def test_what_cannot_be_used_is_not_at_hand(root: Path) -> None:
    publish(root / "pytorch_mastery" / "tiny-mnist", metrics={"test_accuracy": 11.0})
    assert not artifacts.at_hand("pytorch_mastery", "mnist")


def test_fallback_will_not_do_where_the_data_is(
    root: Path, started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(root / "pretraining" / "tiny-pydoc")
    folder = root / "pretraining" / "tiny-wikitext2"
    monkeypatch.setattr(data, "here", lambda name: True)
    commands = started(lambda: publish(folder))
    assert artifacts.obtain("pretraining", "wikitext2", "pydoc") == folder
    assert len(commands) == 1


def test_failing_prerequisite_ends_the_run(root: Path, started: Any) -> None:
    started(lambda: 1)
    with pytest.raises(RunFailed, match=r"exit 1.*python -m pretraining.train \+size=tiny"):
        artifacts.obtain("pretraining", "wikitext2")
    started(lambda: 130)
    with pytest.raises(Interrupted, match="stopped while week pretraining"):
        artifacts.obtain("pretraining", "wikitext2")


@pytest.mark.parametrize(
    ("before", "why", "more"),
    [
        (None, "it has no record of the run that made it", []),
        ({"metrics": {"test_accuracy": 11.0}}, "≥ 99.4", ["seed=1"]),
        ({"metrics": {"test_accuracy": 99.5}, "ended": "failed"}, "did not finish", ["seed=1"]),
        ({"metrics": {"test_accuracy": "high"}}, "no record", []),
    ],
)
def test_what_cannot_be_relied_on_is_trained_anew_and_said(
    root: Path,
    started: Any,
    capsys: pytest.CaptureFixture[str],
    before: dict[str, Any] | None,
    why: str,
    more: list[str],
) -> None:
    folder = root / "pytorch_mastery" / "tiny-mnist"
    publish(folder, **(before or {}))
    if before is None:
        (folder / artifacts.RECORD).unlink()

    def train() -> Path:
        (folder / artifacts.RECORD).unlink(missing_ok=True)
        folder.rmdir()
        return publish(folder, metrics={"test_accuracy": 99.5})

    commands = started(train)
    assert artifacts.obtain("pytorch_mastery", "mnist") == folder
    assert commands == [["-m", "pytorch_mastery.train", "+size=tiny", "data=mnist", *more]]
    message = capsys.readouterr().err
    assert why in message
    assert "trained again" in message
    assert artifacts.obtain("pytorch_mastery", "mnist") == folder
    assert len(commands) == 1, "the new one will do"


def test_a_band_missed_twice_ends_the_run(root: Path, started: Any) -> None:
    """Better no distance at all than one by a classifier that cannot read."""
    folder = publish(root / "pytorch_mastery" / "tiny-mnist", metrics={"test_accuracy": 98.0})
    started(lambda: None)
    with pytest.raises(RunFailed, match=r"99\.4 .*was missed: 98"):
        artifacts.obtain("pytorch_mastery", "mnist")
    assert folder.is_dir()


def test_the_prerequisite_is_told_to_stop_and_waited_for(tmp_path: Path) -> None:
    """SIGTERM reaches the one that trains; it may save before both end."""
    import subprocess

    child = (
        "import signal, sys, time\n"
        "def stop(*_): open('stopped', 'w').close(); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "open('ready', 'w').close()\n"
        "while True: time.sleep(0.05)\n"
    )
    parent = (
        "import sys; from pathlib import Path; from labkit import paths\n"
        "from labkit.machine import signals\n"
        f"paths.ROOT = Path({str(tmp_path)!r})\n"
        f"sys.exit(signals.finish([sys.executable, '-c', {child!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    given_up = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
        if time.monotonic() > given_up:
            process.terminate()
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert (tmp_path / "stopped").exists()
