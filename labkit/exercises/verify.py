"""Checks the tests: `lab exercise verify` shows that the tests of each exercise grade.

For every exercise the solution passes, also when it is all that a learner has written (every other
exercise of the week still blank), the blank fails, every bug planted in tests/<week>/bugs.yaml
fails, and no test asks for words that the exercise's docstring does not give.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from labkit import bugs, surgery
from labkit.exercises import wording
from labkit.exercises.gradable import graders_of, job_of, preload_of, progress
from labkit.exercises.gradecache import grade_cached
from labkit.exercises.grader import Grade, Job
from labkit.exercises.listing import (
    NAME,
    Exercise,
    exercises_of,
    module_of,
    weeks_with_exercises,
)
from labkit.paths import ROOT, week_folder
from labkit.surgery import blank

VERIFY_SECONDS = 30.0
"""How long the tests of one exercise may take."""

BUGS_PER_EXERCISE = 2
"""An exercise needs at least this many planted bugs."""

CANNOT_RUN = {"ImportError", "ModuleNotFoundError", "NameError", "SyntaxError", "UnboundLocalError"}
"""Exceptions that mean that a planted bug does not run at all, not that a test caught it."""

ALONE = "solution among blanks"


@dataclass
class _Variant:
    """One copy of a week that must pass (the solution) or fail (the blank, a planted bug)."""

    exercise: Exercise
    kind: str
    job: Job
    grade: Grade = field(default_factory=Grade)

    def fault(self) -> str:
        """Why the tests did not judge this copy as they should; empty when they did."""
        failed, passed = self.grade.having("failed"), self.grade.having("passed")
        broken = self.grade.having("error")
        if self.grade.problem:
            return f"{self.kind}: {self.grade.problem}"
        if broken:
            return f"{self.kind}: {broken[0].test} broke outside the test: {broken[0].message}"
        if self.kind in ("solution", ALONE):
            if failed:
                return f"the {self.kind} fails {failed[0].test}: {failed[0].message}"
            if self.grade.hung:
                return f"the {self.kind} did not end {self.grade.hung} in {VERIFY_SECONDS:.0f} s"
            return "" if passed else "no test ran (all skipped?)"
        if self.kind == "blank":
            if passed:
                return f"{passed[0].test} passes although the body is blank: it does not grade"
            return "" if failed else "no test ran on the blank"
        if self.grade.hung or any(outcome.error not in CANNOT_RUN for outcome in failed):
            return ""
        if failed:
            return f"{self.kind} cannot run: {failed[0].message}"
        return f"{self.kind} survives: no test failed"


def verify(week: str | None = None, *, fresh: bool = False, root: Path = ROOT) -> int:
    """Check that the tests grade, for one week or for all. Returns 0 when they do, else 1.

    Grades are kept from run to run (labkit.exercises.gradecache) unless `fresh`.
    Raises UsageError for an unknown week.
    """
    begun = time.monotonic()
    weeks = [week] if week else weeks_with_exercises(root)
    faults: dict[str, list[str]] = {}
    variants: list[_Variant] = []
    for name in weeks:
        variants += _variants(name, root, faults)
    preload = dict.fromkeys(line for name in weeks for line in preload_of(name, root))
    jobs = [v.job for v in variants]
    grades, taken = grade_cached(jobs, preload, progress(len(variants)), fresh)
    for variant, result in zip(variants, grades, strict=True):
        variant.grade = result
    # A bug is caught by the first test that fails, unless that one could not run at all.
    again = [v for v in variants if v.job.first and v.fault()]
    whole, _ = grade_cached([replace(v.job, first=False) for v in again], preload, silent, fresh)
    for variant, result in zip(again, whole, strict=True):
        variant.grade = result
    for variant in variants:
        if fault := variant.fault():
            faults[f"{variant.job.week}.{variant.exercise.name}"].append(fault)
    for name in weeks:
        print(f"{name:{NAME + 2}} {'solution':9} {'alone':9} {'blank':9} bugs")
        for e in exercises_of(name, root):
            _print_row(e, [v for v in variants if v.exercise == e], faults[f"{name}.{e.name}"])
        for fault in faults.get(name, []):
            print(f"    FAULT {fault}")
    count = sum(map(len, faults.values()))
    verdict = f"{count} faults" if count else "the tests grade"
    known = f" ({taken} of them from the cache)" if taken else ""
    seconds = time.monotonic() - begun
    print(f"{len(variants)} copies graded in {seconds:.0f} s{known}: {verdict}")
    return 1 if count else 0


def silent(done: int) -> None:
    """Says nothing of how many jobs are done."""


def _print_row(e: Exercise, variants: list[_Variant], faults: list[str]) -> None:
    good = [v for v in variants if not v.fault()]
    kinds = {v.kind for v in good}
    solution, alone = ("passes" if kind in kinds else "FAULT" for kind in ("solution", ALONE))
    empty = "fails" if "blank" in kinds else "FAULT"
    bugs = [v for v in variants if v.kind.startswith("bug")]
    caught = f"{sum(v in good for v in bugs)} of {len(bugs)} fail"
    print(f"  {e.name:{NAME}} {solution:9} {alone:9} {empty:9} {caught}")
    for v in bugs:
        if v.grade.hung:
            print(f"    {v.kind} was only caught by the time limit, in {v.grade.hung}")
    for fault in faults:
        print(f"    FAULT {fault}")


def _variants(week: str, root: Path, faults: dict[str, list[str]]) -> list[_Variant]:
    """The copies of a week to be graded; what is wrong with its bugs goes to `faults`."""
    exercises, tests, planted = (
        exercises_of(week, root),
        graders_of(week, root),
        bugs.of_week(week, root),
    )
    names = {e.name for e in exercises}
    strays = [f"a test is marked for {name}" for name in sorted(tests.keys() - names)]
    faults[week] = [f"{stray}, which is not an exercise" for stray in strays]
    faults[week] += _experiments(week, root, planted, names)
    variants = []
    for e in exercises:
        fault = faults[f"{week}.{e.name}"] = []
        if e.name not in tests:
            fault.append("it has no test")
            continue
        fault += wording.unannounced(e, tests[e.name], root)
        source, file = surgery.read(e.file), str(e.file.relative_to(week_folder(root, week)))
        edits = {"solution": {}, "blank": {file: blank(source, [e.function])}}
        for number, bug in enumerate(planted.get(e.name, [])):
            try:
                name, text = bugs.plant(source, e.function, bug)
                edits[f"bug {number + 1} ({name})"] = {file: text}
            except ValueError as error:
                fault.append(f"bug {number + 1} in bugs.yaml: {error}")
        if len(edits) - 2 < BUGS_PER_EXERCISE:
            fault.append(f"usable bugs: {len(edits) - 2}; plant {BUGS_PER_EXERCISE} or more")
        job = job_of(e, week, week_folder(root, week), tests, root, VERIFY_SECONDS)
        variants += [
            _Variant(e, kind, replace(job, edits=each, first=kind.startswith("bug")))
            for kind, each in edits.items()
        ]
        variants.append(_Variant(e, ALONE, _alone(job, e, exercises, week_folder(root, week))))
    return variants


def _experiments(
    week: str, root: Path, planted: dict[str, list[Any]], exercises: set[str]
) -> list[str]:
    """What is wrong with bugs of functions that are not exercises: an experiment must name each of
    them.
    """
    faults = []
    for function in sorted(planted.keys() - exercises):
        try:
            file, inner = bugs.place(week_folder(root, week), function)
        except ValueError as error:
            faults.append(f"bugs.yaml: {error}")
            continue
        for bug in planted[function]:
            try:
                name, _ = bugs.plant(surgery.read(file), inner, bug)
            except ValueError as error:
                faults.append(f"a bug of {function} in bugs.yaml: {error}")
                continue
            said = f"{function}: {name}"
            if said not in bugs.used_by_experiments(week, root):
                faults.append(f"{said}: it belongs to no exercise and no experiment")
    return faults


def _alone(job: Job, e: Exercise, exercises: list[Exercise], week_dir: Path) -> Job:
    """The solution of one exercise, in a workspace where all the others are blank."""
    others: dict[Path, list[str]] = {}
    for other in exercises:
        if other != e:
            others.setdefault(other.file, []).append(other.function)
    edits = {
        str(file.relative_to(week_dir)): blank(surgery.read(file), names, module_of(file, week_dir))
        for file, names in others.items()
    }
    solved = {str(file.relative_to(week_dir)): names for file, names in others.items()}
    return replace(job, edits=edits, solved=solved)
