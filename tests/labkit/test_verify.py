"""`lab exercise verify`, on made-up weeks."""

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from labkit.exercises.verify import verify
from tests.labkit.exercise_lab import BUGS, Lab


@pytest.fixture
def toy(tmp_path: Path) -> Lab:
    return Lab(tmp_path.resolve())


def test_verify_passes_tests_that_grade(toy: Lab, capsys: pytest.CaptureFixture[str]):
    assert toy.verify() == 0
    printed = capsys.readouterr().out
    assert printed.count("passes    passes    fails     2 of 2 fail") == 2
    assert "10 copies graded" in printed
    assert verify(root=toy.root) == 0  # all weeks: it finds the one


TESTS_OF_TOY, BUGS_OF_TOY = "tests/WEEK/test_stats.py", "tests/WEEK/bugs.yaml"
MARK = '@pytest.mark.exercise("stats.mean")\n'
SKIP = MARK + "@pytest.mark.skip\n"
ALWAYS_TRUE = MARK + "def test_that_is_always_true():\n    assert mean\n\n\n"
IMPORT = "from WEEK.stats import Running, mean\n"
FIXTURE = "    return [1.0, 2.0, 6.0]"
BUG_2 = "    replace: total / len(x)\n"
FAULTS = {  # what is wrong: file, text, text put in its place, what verify says
    "a test that is always true": (
        TESTS_OF_TOY, MARK, ALWAYS_TRUE + MARK,
        "test_that_is_always_true passes although the body is blank",
    ),
    "a test too weak for a bug": (
        TESTS_OF_TOY, "== 3.0", "> 0", "bug 1 (divides by one more) survives",
    ),
    "a solution that fails": (
        "WEEK/stats.py", "total / len(x)", "total / len(x) + 1", "the solution fails test_mean[x0]",
    ),
    "an exercise without a test": (TESTS_OF_TOY, MARK, "", "it has no test"),
    "tests that are all skipped": (TESTS_OF_TOY, MARK, SKIP, "no test ran"),
    "a marker for no exercise": (
        TESTS_OF_TOY, '"stats.mean"', '"stats.median"', "a test is marked for stats.median",
    ),
    "a bug of no exercise": (
        BUGS_OF_TOY, "stats.mean:", "stats.median:", "there is no function stats.median in WEEK",
    ),
    "a single bug": (
        BUGS_OF_TOY, "  - name: wrong sign\n    replace: x - self.mean\n    with: self.mean - x\n",
        "", "usable bugs: 1; plant 2 or more",
    ),
    "a bug that occurs twice": (
        BUGS_OF_TOY, BUG_2, "    replace: total\n", "occurs 2 times in mean",
    ),
    "a bug that occurs only in the docstring": (
        BUGS_OF_TOY, BUG_2, "    replace: arithmetic\n", "occurs 0 times in mean",
    ),
    "a bug in another function": (
        BUGS_OF_TOY, BUG_2, "    replace: self.count += 1\n", "occurs 0 times in mean",
    ),
    "a bug that changes nothing": (
        BUGS_OF_TOY, "with: total\n", "with: (total / len(x))\n", "changes nothing",
    ),
    "a bug that is no Python": (
        BUGS_OF_TOY, "with: total\n", "with: total /\n", "it is not Python",
    ),
    "a bug that cannot run": (
        BUGS_OF_TOY, "with: total\n", "with: tootal\n", "cannot run: NameError",
    ),
    "a bug with a misspelt key": (
        BUGS_OF_TOY, "with: total\n", "by: total\n",
        "exactly the keys name, replace, with, or name, body",
    ),
    "a bug with a number": (
        BUGS_OF_TOY, "with: total\n", "with: 1\n", "put numbers in quotes",
    ),
    "tests that cannot be loaded": (
        TESTS_OF_TOY, IMPORT, IMPORT + "import no_such_module\n",
        f"solution: {TESTS_OF_TOY} could not be loaded: ModuleNotFoundError",
    ),
    "a bug that breaks the tests' import": (
        TESTS_OF_TOY, IMPORT, IMPORT + "assert mean([0.0, 6.0]) == 3.0\n",
        f"bug 1 (divides by one more): {TESTS_OF_TOY} could not be loaded",
    ),
    "a fixture that does the test's work": (
        "tests/WEEK/conftest.py", FIXTURE,
        f"    from WEEK.stats import Running\n\n    assert Running().update(2.0) == 2.0\n{FIXTURE}",
        "test_running_mean_is_the_mean broke outside the test",
    ),
    "a body that is no Python": (
        BUGS_OF_TOY, BUG_2 + "    with: total\n", "    body: return total +\n", "it is not Python",
    ),
    "a body that is the solution's": (
        BUGS_OF_TOY, BUG_2 + "    with: total\n",
        "    body: |\n      total = sum(x)\n      return total / len(x)\n",
        "this body changes nothing",
    ),
    "a test that needs the other exercise's text": (
        TESTS_OF_TOY, "def test_running_mean_is_the_mean(three):\n",
        "def test_running_mean_is_the_mean(three):\n"
        "    import inspect\n    assert 'total =' in inspect.getsource(mean)\n",
        "the solution among blanks fails test_running_mean_is_the_mean",
    ),
    "a test that grades words": (
        TESTS_OF_TOY, MARK,
        MARK + "def test_no_numbers():\n"
        "    with pytest.raises(ZeroDivisionError, match='division'):\n        mean([])\n\n\n"
        + MARK,
        "test_stats.py:8 grades wording that the docstring does not give: division",
    ),
}  # fmt: skip


@pytest.fixture
def verdicts(shared: Path) -> Callable[[str], str]:
    """What one call of verify, made once for all test processes, says of a week for each fault."""
    root = (shared / "faults").resolve()
    root.mkdir(exist_ok=True)
    weeks = {fault: f"week{number}" for number, fault in enumerate(FAULTS)}
    with FileLock(root.with_suffix(".lock")):
        kept = root / "printed.txt"
        if not kept.exists():
            for fault, week in weeks.items():
                file, old, new, _ = (text.replace("WEEK", week) for text in FAULTS[fault])
                Lab(root, week).edit(file, old, new)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                assert verify(root=root) == 1
            kept.write_text(printed.getvalue())
        text = kept.read_text()
    sections = re.split(r"^(week\d+) .*\n", text, flags=re.MULTILINE)
    said = dict(zip(sections[1::2], sections[2::2], strict=True))
    return lambda fault: said[weeks[fault]].replace(weeks[fault], "WEEK")


@pytest.mark.parametrize("fault", FAULTS)
def test_verify_finds_graders_that_do_not_grade(verdicts: Callable[[str], str], fault: str):
    assert "FAULT" in verdicts(fault)
    assert FAULTS[fault][3] in verdicts(fault)


def test_verify_reports_a_bug_caught_only_by_the_time_limit_and_does_not_keep_that(
    toy: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("labkit.exercises.verify.VERIFY_SECONDS", 3.0)
    toy.edit("tests/toy/bugs.yaml", "with: total\n", 'with: "[*iter(int, 1)]"\n')
    assert toy.verify() == 0
    assert "bug 2 (forgets to divide) was only caught by the time limit" in capsys.readouterr().out
    toy.verify()
    assert "(9 of them from the cache)" in capsys.readouterr().out
    toy.verify(fresh=True)
    assert "known" not in capsys.readouterr().out


def test_a_bug_that_is_no_exercises_belongs_to_an_experiment(
    toy: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    bugs = (
        BUGS
        + "stats.Running.__init__:\n  - name: one too many\n    replace: 0, 0\n    with: 1, 0\n"
    )
    toy.write("tests/toy/bugs.yaml", bugs)
    assert toy.verify() == 1
    said = "stats.Running.__init__: one too many"
    assert f"{said}: it belongs to no exercise and no experiment" in capsys.readouterr().out
    toy.write("configs/toy/experiment/broken_x.yaml", f'# @package _global_\nbug: "{said}"\n')
    assert toy.verify() == 0
    toy.write("tests/toy/bugs.yaml", bugs.replace("replace: 0, 0", "replace: 7, 7"))
    assert toy.verify() == 1
    assert "'7, 7' occurs 0 times" in capsys.readouterr().out
