"""`lab capstone new`: a package of one's own, in a clone of the parts that it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labkit import UsageError, cli, project
from tests.conftest import ROOT

BOTH = """
import pytest, sys
from electives.my_idea.train import train
assert train.main(["+size=smoke"]) == 0
sys.exit(pytest.main(["-q", "-p", "no:xdist", "-k", "products", "tests/electives/my_idea"]))
"""
"""Runs the project, then its test of the model."""


def clone(folder: Path) -> Path:
    """labkit, the course's settings and what tests need, without any week."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("labkit", "configs", "capstone/starter"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "tests").mkdir()
    for name in ("__init__.py", "conftest.py", "forkserver.py", "kill_at.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_a_new_project_runs_is_tested_and_is_in_the_table(tmp_path: Path) -> None:
    home = clone(tmp_path / "clone")
    env = {k: v for k, v in os.environ.items() if not k.startswith("LAB_")}
    env |= {"PYTHONPATH": str(home), "LAB_OFFLINE": "1", "NO_COLOR": "1"}

    def python(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=home, env=env, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    said = python("-m", "labkit.cli", "capstone", "new", "my_idea")
    assert "electives/my_idea/train.py" in said
    assert "python -m electives.my_idea.train +size=smoke" in said
    files = [path for path in home.rglob("*my_idea*/**/*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".txt" or b"NAME" in path.read_bytes()]
    python("-c", BOTH)  # in one process, since torch takes seconds to load
    table = (home / "PROGRESS.md").read_text(encoding="utf-8")
    row = next(line for line in table.splitlines() if "[my_idea](electives/my_idea" in line)
    assert "test accuracy" in row
    assert list((home / "results" / "electives.my_idea").glob("smoke-*.json"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "capstone" / "starter", tmp_path / "capstone" / "starter")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "cannot be a package"),
        ("My_Idea", "small letters"),
        ("9lives", "begins with a letter"),
        ("my-idea", "small letters"),
        ("../away", "cannot be a package"),
        ("a" * 41, "up to 40"),
        ("été", "small letters"),
        ("class", "a word of Python itself"),
        ("match", "a word of Python itself"),
        ("diffusion", "a unit 'diffusion' already"),
        ("autograd", "a unit 'autograd' already"),
    ],
)
def test_names_that_no_package_can_have(place: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        project.new(name, place)
    assert message in str(caught.value)
    assert "lab capstone new my_idea" in str(caught.value)
    assert not (place / "electives").exists()


@pytest.mark.parametrize("which", range(3))
def test_an_existing_folder_is_left_as_it_is(place: Path, which: int) -> None:
    folder = project.folders("my_idea", place)[which]
    folder.mkdir(parents=True)
    with pytest.raises(UsageError, match="exists already"):
        project.new("my_idea", place)
    assert not list(folder.iterdir())


def test_all_files_of_the_starter_are_written(place: Path) -> None:
    written = project.new("my_idea", place)
    assert len(written) == len(list((place / project.STARTER).rglob("*.txt")))
    assert {path.parent for path in written} >= set(project.folders("my_idea", place))
    assert "class Config" in (place / "electives" / "my_idea" / "train.py").read_text()


def test_the_command_says_what_is_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["capstone", "new", "import"]) == 2
    said = capfd.readouterr()
    assert "'import' is a word of Python itself" in said.err
    assert "Traceback" not in said.err
