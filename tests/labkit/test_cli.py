"""The `lab` command: it finds weeks, passes on exit codes, and says what to type."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from labkit import cli, course

ROOT = Path(__file__).resolve().parents[2]


def lab(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "labkit.cli", *words],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lits"], "Did you mean 'list'?"),
        (["run"], "Missing argument 'WEEK'"),
        (["run", "difusion"], "did you mean diffusion?"),
        (["run", "99"], "they run from 1 to 24"),
        (["plan"], "lab plan --help"),
        (["list", "more"], "unexpected extra argument(s) (more)"),
        (["doctor", "more"], "lab doctor --help"),
        (["exercise", "chek", "2"], "Did you mean 'check'?"),
        (["exercise", "start"], "Missing argument 'WEEK'"),
        (["exercise", "check", "2", "--force"], "No such option: --force"),
    ],
)
def test_mistakes_say_what_to_type(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_week_without_a_train_is_not_built(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(type(course.week("capstone")), "built", property(lambda week: False))
    assert cli.main([command, "capstone"]) == 2
    assert "week capstone is not built yet" in capsys.readouterr().err


def test_list_shows_all_weeks() -> None:
    done = lab("list", COLUMNS="200")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert sum(line.split()[0].isdecimal() for line in lines[1:] if line.strip()) == 24
    diffusion = next(line for line in lines if " diffusion " in line)
    assert diffusion.startswith("10 ")
    assert diffusion.rstrip().endswith("ready")


def test_run_is_the_weeks_own_command_and_ends_as_it_ends(lab_run: Any) -> None:
    done = lab("run", "neural", "+size=smoke", "epochs=1", **lab_run.env)
    assert done.returncode == 0, done.stderr
    assert len(lab_run.folders()) == 1
    assert lab("run", "2", "+stepz=3", **lab_run.env).returncode == 2


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("lab exercise hint neu", ["neural_networks"]),
        ("lab run pretraining", ["pretraining", "pretraining.scaling"]),
        ("lab exercise check 2 losses.", ["losses.cross_entropy"]),
        ("lab exercise diff 2 cro", ["cross_entropy"]),
        ("lab exercise diff nowhere x", []),
    ],
)
def test_the_shell_is_offered_weeks_and_exercises(typed: str, offered: list[str]) -> None:
    place = str(len(typed.split()) - 1)
    completing = {"_LAB_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": place}
    assert lab(**completing).stdout.split() == offered


def test_sigterm_to_lab_run_reaches_the_run(lab_run: Any, tmp_path: Path) -> None:
    """It saves, says how to resume and leaves no process; the folder is the caller's."""
    process = lab_run.start("-m", "labkit.cli", "run", "2", "+size=smoke", "epochs=100000")
    while not [f for f in tmp_path.glob("runs/*/*/*/metrics.jsonl") if f.stat().st_size]:
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()[0]
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    (folder,) = lab_run.folders()
    assert json.loads((folder / "result.json").read_text())["ended"] == "interrupted"
    assert f"neural_networks.train resume={folder.relative_to(tmp_path)}" in output


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "No space left on device. Free some space"),
        (errno.EROFS, "Read-only file system. Set LAB_HOME"),
        (errno.EACCES, "Permission denied. Set LAB_HOME"),
    ],
)
def test_a_disk_that_refuses_is_a_message(
    code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(code, os.strerror(code), "/a/file")

    from labkit.report import pages

    monkeypatch.setattr(pages, "refresh", refuse)
    monkeypatch.setattr("labkit.exercises.start.start", refuse)
    for words in (["progress"], ["exercise", "start", "2"]):
        assert cli.main(words) == 1
        message = capsys.readouterr().err
        assert f"/a/file: {said}" in message
        assert "Traceback" not in message


def test_an_error_that_may_be_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from labkit.report import pages

    def broken(*_: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "labkit/typo.yaml")

    monkeypatch.setattr(pages, "refresh", broken)
    with pytest.raises(FileNotFoundError):
        cli.main(["progress"])


def test_heavy_things_stay_out_of_list() -> None:
    code = (
        "import sys; from labkit.cli import main; main(['list']);"
        "print([m for m in ('torch', 'hydra', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
