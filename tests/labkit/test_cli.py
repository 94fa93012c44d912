"""The `lab` command: it finds weeks, passes on exit codes, and says what to type."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit import cli

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
        (["lits"], "did you mean list?"),
        (["run"], "lab run needs a week"),
        (["run", "difusion"], "did you mean diffusion?"),
        (["run", "99"], "they run from 1 to 24"),
        (["run", "capstone"], "is not built yet"),
        (["plan"], "lab plan needs a week"),
        (["plan", "capstone"], "is not built yet"),
        (["list", "more"], "takes nothing more"),
        (["doctor", "more"], "takes nothing more"),
        (["exercise"], "start, check or verify"),
        (["exercise", "chek", "2"], "did you mean check?"),
        (["exercise", "start"], "needs a week"),
        (["exercise", "check", "2", "--force"], "unknown option --force"),
    ],
)
def test_mistakes_say_what_to_type(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err


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


def test_heavy_things_stay_out_of_list() -> None:
    code = (
        "import sys; from labkit.cli import main; main(['list']);"
        "print([m for m in ('torch', 'hydra', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
