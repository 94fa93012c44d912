"""Hints come one by one; the solution is shown when one's own function passes, or on giving up."""

from pathlib import Path

import pytest
import yaml

from labkit import course
from labkit.errors import UsageError
from labkit.exercises.diff import diff
from labkit.exercises.hint import hint, hints_of
from labkit.exercises.listing import list_exercises
from labkit.exercises.start import start
from tests.labkit.exercise_lab import Lab

ROOT = Path(__file__).resolve().parents[2]
HINTS = """\
stats.mean:
  - >-
    What does the mean of one number
    have to be?
  - Add first, then divide.
stats.Running.update:
  - Welford 1962.
"""
WEEKS = [unit.package for unit in course.load().units if unit.built]


@pytest.fixture
def toy(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path.resolve())
    (lab.root / "toy" / "hints.yaml").write_text(HINTS)
    return lab


def hinted(toy: Lab, *words: str, every: bool = False) -> int:
    return hint("toy", *words, every=every, root=toy.root, workspace=toy.own.parent)


def test_hints_come_one_by_one(toy: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert hinted(toy, "mean") == 0
    first = capsys.readouterr().out
    assert "1. What does the mean of one number have to be?" in first
    assert "divide" not in first
    assert "1 more: lab exercise hint toy stats.mean" in first
    hinted(toy, "stats.mean")
    second = capsys.readouterr().out
    assert "1. What does" in second
    assert "2. Add first, then divide." in second
    assert "lab exercise diff toy stats.mean --give-up" in second
    hinted(toy, "mean")
    assert capsys.readouterr().out == second
    hinted(toy)
    table = capsys.readouterr().out
    assert table.splitlines()[0].split()[:2] == ["stats.mean", "2"]
    assert "0 of 1 hints seen" in table


def test_all_hints_at_once(toy: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    hinted(toy, "mean", every=True)
    assert "2. Add first" in capsys.readouterr().out


def test_a_memory_that_cannot_be_read_is_begun_anew(toy: Lab) -> None:
    toy.own.parent.mkdir(exist_ok=True)
    (toy.own.parent / ".hints.json").write_text("[]")
    assert hinted(toy, "mean") == 0


def test_mistakes_are_named(toy: Lab) -> None:
    with pytest.raises(UsageError, match="no exercise 'median'"):
        hinted(toy, "median")
    (toy.root / "toy" / "hints.yaml").write_text("stats.mean: 3\n")
    with pytest.raises(UsageError, match=r"hints\.yaml cannot be read"):
        hinted(toy, "mean")
    (toy.root / "toy" / "hints.yaml").unlink()
    with pytest.raises(UsageError, match="has no hints"):
        hinted(toy, "mean")


def test_hints_are_not_copied_into_the_workspace(toy: Lab) -> None:
    start("toy", root=toy.root, workspace=toy.own.parent)
    assert not (toy.own.parent / "toy" / "hints.yaml").exists()


@pytest.mark.parametrize("week", WEEKS)
def test_every_exercise_has_hints_that_are_not_its_solution(week: str) -> None:
    exercises = {e.name: e for e in list_exercises(ROOT / week)}
    hints = hints_of(week)
    assert list(hints) == list(exercises)
    for name, texts in hints.items():
        source = exercises[name].file.read_text(encoding="utf-8")
        lines = {line.strip() for line in source.splitlines()[exercises[name].line :]}
        assert 1 <= len(texts) <= 3, name
        for text in texts:
            assert 20 <= len(text) <= 400, (name, text)
            told = [line for line in lines if len(line) > 20 and "=" in line and line in text]
            assert not told, (name, told)


def compared(toy: Lab, give_up: bool = False) -> int:
    return diff("toy", "mean", give_up, root=toy.root, workspace=toy.own.parent)


def test_the_solution_is_shown_when_yours_passes(
    toy: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    start("toy", root=toy.root, workspace=toy.own.parent)
    assert compared(toy) == 1
    said = capsys.readouterr().out
    assert "not started" in said
    assert "total = sum(x)" not in said
    file = toy.own.parent / "toy" / "stats.py"
    blank = 'raise NotImplementedError("exercise: stats.mean")'
    file.write_text(file.read_text().replace(blank, "return sum(x) / len(x)"))
    assert compared(toy) == 0
    said = capsys.readouterr().out
    assert "-    return sum(x) / len(x)" in said
    assert "+    total = sum(x)" in said
    assert "The arithmetic mean" not in said


def test_giving_up_shows_it_at_once(toy: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    start("toy", root=toy.root, workspace=toy.own.parent)
    assert compared(toy, give_up=True) == 0
    assert "+    return total / len(x)" in capsys.readouterr().out


def test_the_solution_itself_has_nothing_to_show(
    toy: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    start("toy", root=toy.root, workspace=toy.own.parent)
    solution = (toy.root / "toy" / "stats.py").read_text()
    (toy.own.parent / "toy" / "stats.py").write_text(solution)
    assert compared(toy, give_up=True) == 0
    assert "line for line" in capsys.readouterr().out


def test_what_cannot_be_compared_is_said(toy: Lab) -> None:
    with pytest.raises(UsageError, match="lab exercise start toy"):
        compared(toy)
    start("toy", root=toy.root, workspace=toy.own.parent)
    (toy.own.parent / "toy" / "stats.py").write_text("def other(): pass\n")
    with pytest.raises(UsageError, match="no function mean"):
        compared(toy, give_up=True)


def test_hints_files_are_plain_yaml() -> None:
    for week in WEEKS:
        found = yaml.safe_load((ROOT / week / "hints.yaml").read_text(encoding="utf-8"))
        assert all(isinstance(text, str) for texts in found.values() for text in texts)
