"""Grades a learner's files: `lab exercise check`.

Each exercise is graded on its own. Some call others of their week (`extend` calls `append`), and a
learner may begin with any of them, so:

1. What is still blank is filled in from the lab's solution while another exercise is graded
   (labkit.exercises.fill). A right answer passes although nothing else is written yet.
2. An exercise that fails beside the learner's own other answers is graded once more with all
   others from the solution. If it passes then, it is right and the fault is in another one: the
   verdict is "passed", and a note says what fails and where to look. If it fails again, that
   second grade is shown, since no other answer of the learner can have caused it.

The alternative is tests that use no other exercise. Then weeks could not build a function from the
ones before it, or their tests would have to copy the solution.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from labkit import surgery
from labkit.errors import UsageError
from labkit.exercises.gradable import graders_of, job_of, preload_of
from labkit.exercises.grader import Grade, Job, Outcome, grade
from labkit.exercises.listing import NAME, Exercise, choose, exercises_of, python_files, show
from labkit.paths import ROOT, week_folder
from labkit.paths import workspace as default_workspace

CHECK_SECONDS = 120.0
"""How long the tests of one exercise may take."""


def check(
    week: str, only: str | None = None, *, root: Path = ROOT, workspace: Path | None = None
) -> int:
    """Grade the learner's files. Returns 0 when every exercise (or the one chosen) passes, else 1.

    Raises UsageError for an unknown week or exercise, and when the week was not started.
    """
    every = exercises_of(week, root)
    exercises = choose(every, only)
    own = week_folder(workspace or default_workspace(), week)
    if not own.is_dir():
        raise UsageError(f"there is no {show(own, root)} yet; type\n    lab exercise start {week}")
    if error := _unreadable(own):
        file, line, message = error
        print(f"{show(file, root)}:{line}: {message}. Nothing was graded: fix this line first.")
        return 1
    tests = graders_of(week, root)
    state = {
        e.name: _state(own / e.file.relative_to(week_folder(root, week)), e.function) for e in every
    }
    ready = [e for e in exercises if state[e.name] == "written" and e.name in tests]
    empty = [e for e in every if state[e.name] == "not started"]
    jobs = {
        e.name: _solved(
            job_of(e, week, own, tests, root, CHECK_SECONDS), empty, week_folder(root, week)
        )
        for e in ready
    }
    again = {}
    for number, e in enumerate(ready):
        others = [o for o in every if o != e and state[o.name] != "missing"]
        if len(others) > len(empty):  # some are the learner's own
            again[e.name] = _solved(
                replace(jobs[e.name], retry_of=number), others, week_folder(root, week)
            )
    results = grade([*jobs.values(), *again.values()], preload_of(week, root))
    grades = dict(zip(jobs, results, strict=False))
    alone = dict(zip(again, results[len(jobs) :], strict=True))
    passed = 0
    print(f"{week}: your files in {show(own, root)}")
    for e in exercises:
        verdict, notes = _judge(grades.get(e.name), alone.get(e.name), state[e.name])
        passed += verdict == "passed"
        print(f"  {verdict:12} {e.name:{NAME}} {notes[0] or f'about {e.minutes} min'}")
        for note in notes[1:]:
            print(f"  {'':12} {note}")
    print(f"{passed} of {len(exercises)} passed.")
    return 0 if passed == len(exercises) else 1


def _solved(job: Job, others: Iterable[Exercise], week_dir: Path) -> Job:
    """The job with the functions of these other exercises taken from the solution."""
    solved: dict[str, list[str]] = {}
    for e in others:
        solved.setdefault(str(e.file.relative_to(week_dir)), []).append(e.function)
    return replace(job, solved=solved)


def _state(file: Path, function: str) -> str:
    """What became of an exercise in the learner's file: written, not started, or missing."""
    node = surgery.functions(surgery.read(file)).get(function) if file.exists() else None
    return "missing" if node is None else "not started" if surgery.is_blank(node) else "written"


def _judge(own: Grade | None, alone: Grade | None, state: str) -> tuple[str, list[str]]:
    """Verdict on one exercise of a learner, and the lines that explain it.

    `own` is its grade beside the learner's other answers, `alone` beside the solution's.
    """
    if state == "not started":
        return state, [""]
    if state == "missing":
        return "failed", ["the function is no longer in your files"]
    if own is None:
        return "failed", ["no test ran: it has none, which is the lab's fault and not yours"]
    if alone is not None and alone.passed:  # it only ran because the other did not pass
        first = _notes(own)[0]
        note = f"right by itself; with your other functions, look there: {first}"
        return "passed", [_count(alone), note]
    ran = alone is not None and bool(alone.outcomes)
    told = alone if alone is not None and ran and (own.problem or not alone.problem) else own
    notes = _notes(told)
    return "failed" if notes else "passed", [_count(told), *notes]


def _count(grade: Grade) -> str:
    good = len(grade.having("passed"))
    return f"{good} of {good + len(grade.having('failed', 'error')) + bool(grade.hung)} tests"


def _notes(grade: Grade) -> list[str]:
    """What went wrong, one entry per fault, not per parameter; empty for a pass."""
    seen: dict[tuple[str, ...], list[Outcome]] = {}
    for o in grade.having("failed", "error"):
        case = (o.test.partition("[")[0], o.error, o.where)  # one test, with other parameters
        alike = seen.get((o.message,)) or seen.get(case) or []
        alike.append(o)
        seen[(o.message,)] = seen[case] = alike
    notes = []
    for group in {id(group): group for group in seen.values()}.values():
        first, more = group[0], group[1:]
        equal = all(o.message == first.message for o in more)
        end = f"  and {len(more)} more {'with the same message' if equal else 'like it'}"
        notes.append(f"{first.test}: {first.message}  ({first.where}){end if more else ''}")
    if grade.problem:
        notes.append(grade.problem)
    if grade.hung:
        notes.append(f"{grade.hung}: still running after {CHECK_SECONDS:.0f} s; an endless loop?")
    if not (notes or grade.having("passed")):
        notes.append("no test ran: all were skipped, which is the lab's fault and not yours")
    return notes


def _unreadable(folder: Path) -> tuple[Path, int, str] | None:
    """The first file that is not UTF-8 or not Python: file, line and what is wrong."""
    for file in python_files(folder):
        data = file.read_bytes()
        try:
            data.decode("utf-8")
            compile(data, str(file), "exec", dont_inherit=True)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            return file, line, f"byte {data[error.start]:#x} is not UTF-8; save the file as UTF-8"
        except SyntaxError as error:
            return file, error.lineno or 1, f"{type(error).__name__}: {error.msg}"
        except ValueError as error:  # null bytes, before Python 3.12
            return file, 1, str(error)
    return None
