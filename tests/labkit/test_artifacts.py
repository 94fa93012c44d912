"""What a week needs of an earlier one is found, or made first, and said."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit import LabConfig, Run, artifacts, data, paths
from labkit.errors import RunFailed


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were started; each publishes on pydoc, as a machine without data would."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command[1:])
        (tmp_path / "artifacts" / "pretraining" / "tiny-pydoc").mkdir(parents=True)
        return SimpleNamespace(returncode=0)

    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_missing_artifact_is_made_first_and_said(
    started: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = artifacts.obtain("pretraining", "wikitext2", "pydoc")
    assert found == tmp_path / "artifacts" / "pretraining" / "tiny-pydoc"
    words = ["-m", "pretraining.train", "+size=tiny", "data=wikitext2", "fallback=pydoc"]
    assert started == [words]
    assert f"python {' '.join(words)}" in capsys.readouterr().err
    assert artifacts.obtain("pretraining", "wikitext2", "pydoc") == found
    assert len(started) == 1, "what was published on the fallback will do, while there is no data"


def test_an_experiment_has_a_folder_of_its_own_and_is_asked_for(
    started: list[list[str]], tmp_path: Path
) -> None:
    folders = [tmp_path / "artifacts" / "pretraining" / f"tiny-{name}" for name in ("a", "a-muon")]
    for folder in folders:
        folder.mkdir(parents=True)
    assert artifacts.obtain("pretraining", "a") == folders[0]
    assert artifacts.obtain("pretraining", "a", experiment="muon") == folders[1]
    with pytest.raises(RunFailed, match="exit 0"):  # what it publishes is the week as it is
        artifacts.obtain("pretraining", "wikitext2", "pydoc", "muon")
    assert started[0][-1] == "+experiment=muon"


def test_fallback_will_not_do_where_the_data_is(
    started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "artifacts" / "pretraining" / "tiny-wikitext2"
    (folder.parent / "tiny-pydoc").mkdir(parents=True)
    monkeypatch.setattr(data, "here", lambda name: True)
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: folder.mkdir() or SimpleNamespace(returncode=0)
    )
    assert artifacts.obtain("pretraining", "wikitext2", "pydoc") == folder


def test_failing_prerequisite_ends_the_run(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(RunFailed, match=r"exit 1.*python -m pretraining.train \+size=tiny"):
        artifacts.obtain("pretraining", "wikitext2")


def test_variants_publish_under_their_own_name_and_broken_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    for experiment in (None, "modern", "broken_mask"):
        folder = tmp_path / f"run-{experiment}"
        folder.mkdir()
        run = Run("pretraining", LabConfig(), folder, "tiny", experiment)
        run.generated("letters", {"test": 1}, "0")
        run.publish(lambda folder: (folder / "weights").touch())
        run.close()
    root = tmp_path / "artifacts" / "pretraining"
    assert sorted(p.name for p in root.iterdir()) == ["tiny-letters", "tiny-letters-modern"]
    assert (root / "tiny-letters-modern" / "weights").is_file()
