"""What a kept grade rests on."""

from dataclasses import replace
from pathlib import Path

import pytest

from labkit.exercises.gradable import graders_of, job_of
from labkit.exercises.gradecache import grade_cached, keys_of
from labkit.exercises.grader import Job
from labkit.exercises.listing import exercises_of
from tests.labkit.exercise_lab import Lab


@pytest.fixture
def toy(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path.resolve())
    lab.write("earlier/__init__.py", "")
    lab.write("earlier/sums.py", "TOTAL = sum\n")
    lab.edit("toy/stats.py", "from labkit", "from earlier.sums import TOTAL\nfrom labkit")
    lab.write("tests/shared.py", "TWO = 2.0\n")
    lab.edit("tests/toy/test_stats.py", "import pytest\n", "import pytest\nimport tests.shared\n")
    lab.write("tests/toy/test_other.py", "")
    lab.write("another/__init__.py", "")
    return lab


def jobs_of(lab: Lab) -> list[Job]:
    tests, root = graders_of("toy", lab.root), lab.root
    exercises = exercises_of("toy", root)
    return [job_of(e, "toy", root / "toy", tests, root, 9.0, edits={}) for e in exercises]


RESTS_ON = (
    "toy/__init__.py", "toy/stats.py", "toy/words.txt", "earlier/__init__.py", "earlier/sums.py",
    "tests/toy/test_stats.py", "tests/toy/conftest.py", "tests/conftest.py", "tests/shared.py",
    "tests/toy/numbers.csv",
)  # fmt: skip
NOT = ("tests/toy/bugs.yaml", "tests/toy/equivalent.yaml", "tests/toy/test_other.py",
       "another/__init__.py", "README.md")  # fmt: skip


@pytest.mark.parametrize("name", [*RESTS_ON, *NOT])
def test_a_key_changes_with_every_file_that_a_grade_rests_on(toy: Lab, name: str):
    before = keys_of(jobs_of(toy), toy.root)
    file = toy.root / name
    toy.write(name, (file.read_text() if file.exists() else "") + "# changed\n")
    after = keys_of(jobs_of(toy), toy.root)
    assert [a == b for a, b in zip(before, after, strict=True)] == [name in NOT] * 2


def test_a_key_changes_with_the_edit_the_kernels_and_the_libraries(
    toy: Lab, monkeypatch: pytest.MonkeyPatch
):
    job = jobs_of(toy)[0]
    jobs = [job, replace(job, edits={"stats.py": ""}), replace(job, solved={"stats.py": ["mean"]})]
    keys = keys_of([*jobs, replace(job, first=True)], toy.root)
    assert len(set(keys)) == 4
    assert keys_of([job], toy.root) == keys[:1]
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell-of-another-kind")
    assert keys_of([job], toy.root) != keys[:1]
    monkeypatch.undo()
    monkeypatch.setattr("importlib.metadata.distributions", list)
    assert keys_of([job], toy.root) != keys[:1]


def test_a_file_of_grades_that_is_not_one_is_ignored(toy: Lab):
    toy.write(".cache/grades/toy.json", '{"a": [1], "b": null}')
    grades, taken = grade_cached(jobs_of(toy), [], lambda count: None)
    assert ([grade.passed for grade in grades], taken) == ([True, True], 0)
    again, taken = grade_cached(jobs_of(toy), [], lambda count: None)
    assert (again, taken) == (grades, 2)
