"""`lab exercise mutants`: tries every mutant of the weeks' exercises and prints what survives."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from labkit import surgery
from labkit.errors import UsageError
from labkit.exercises.gradable import graders_of, job_of, preload_of, progress
from labkit.exercises.gradecache import grade_cached
from labkit.exercises.grader import Grade
from labkit.exercises.listing import (
    NAME,
    Exercise,
    choose,
    exercises_of,
    show,
    weeks_with_exercises,
)
from labkit.exercises.mutants.make import Entry, Mutant, excused, generate, sample, wrong_entry
from labkit.paths import ROOT, week_folder

ENOUGH = 99.0
"""Percent of the mutants that are not equivalent which the tests must kill."""

SECONDS, SOLUTION_SECONDS = 5.0, 60.0
"""What a mutant may take where the solution is fast (else 5 times as long), and the solution."""


@dataclass
class _Report:
    """The mutants of one exercise, sorted by what became of them."""

    exercise: Exercise
    file: str
    mutants: list[Mutant]
    equivalent: list[Mutant] = field(default_factory=list)
    grades: dict[str, Grade] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def tried(self) -> list[Mutant]:
        return [] if self.faults else [m for m in self.mutants if m not in self.equivalent]

    def killed(self, mutant: Mutant) -> bool:
        return not self.grades[mutant.id].passed

    def show(self, mutant: Mutant) -> str:
        return f"{mutant.id} {self.file}:{mutant.line}  {mutant.operator}:  {mutant.diff}"


def mutants(
    weeks: Iterable[str] = (),
    only: str | None = None,
    *,
    listed: bool = False,
    fresh: bool = False,
    root: Path = ROOT,
) -> int:
    """Try the mutants of some weeks (of all when none is named), or of the exercise `only`.

    Grades are kept from run to run (labkit.exercises.gradecache) unless `fresh`.
    Returns 0 when at least 99 % of those that are not equivalent are killed in each week, else 1.
    Raises UsageError for an unknown week or exercise and for a malformed equivalent.yaml.
    """
    code = 0
    for week in list(weeks) or weeks_with_exercises(root):
        reports = _prepare(week, only, root)
        if listed:
            for report in reports:
                print(*(report.show(mutant) for mutant in report.mutants), sep="\n")
        else:
            code |= _try(week, reports, root, fresh)
    return code


def _prepare(week: str, only: str | None, root: Path) -> list[_Report]:
    entries = _equivalent(week, root)
    reports: list[_Report] = []
    exercises = exercises_of(week, root)
    strays = entries.keys() - {e.name for e in exercises}
    for e in choose(exercises, only):
        every = generate(surgery.read(e.file), e.function, e.name)
        mine = entries.get(e.name, [])
        report = _Report(e, show(e.file, root), sample(every))
        report.equivalent = [m for m in report.mutants if excused(m, mine)]
        for entry in mine:
            if not any(excused(m, [entry]) for m in every):
                report.faults.append(f"equivalent.yaml lists what is not a mutant: {entry}")
        report.faults += [
            f"equivalent.yaml names {name}, which is not an exercise"
            for name in strays
            if not reports
        ]
        reports.append(report)
    return reports


def _try(week: str, reports: list[_Report], root: Path, fresh: bool) -> int:
    begun, tests = time.monotonic(), graders_of(week, root)
    able = [r for r in reports if not r.faults and r.exercise.name in tests]
    for report in reports:
        if report.exercise.name not in tests:
            report.faults.append("it has no test")
    jobs = [
        job_of(r.exercise, week, week_folder(root, week), tests, root, SOLUTION_SECONDS, edits={})
        for r in able
    ]
    mutants: list[tuple[_Report, Mutant]] = []
    for number, report in enumerate(able):
        file = str(report.exercise.file.relative_to(week_folder(root, week)))
        for mutant in report.tried:
            edits = {file: mutant.source}
            job = replace(jobs[number], edits=edits, seconds=SECONDS, first=True, after=number)
            jobs.append(job)
            mutants.append((report, mutant))
    results, taken = grade_cached(jobs, preload_of(week, root), progress(len(jobs)), fresh)
    for (report, mutant), result in zip(mutants, results[len(able) :], strict=True):
        report.grades[mutant.id] = result
    for report, result in zip(able, results, strict=False):
        if not result.passed:  # a failure of its mutants then means nothing
            report.faults.append(f"the solution does not pass: {result.why()}")
    print(f"{week:{NAME + 2}} killed   of   equivalent")
    for report in reports:
        _print(report)
    killed = sum(r.killed(m) for r in reports for m in r.tried)
    total = sum(len(r.tried) for r in reports)
    percent = 100.0 * killed / total if total else 0.0
    faults = sum(len(r.faults) for r in reports)
    print(
        f"{week}: {killed} of {total} mutants killed, {percent:.1f} %"
        + (f", {faults} faults" if faults else "")
        + f" ({time.monotonic() - begun:.0f} s"
        + (f", {taken} from the cache)" if taken else ")")
    )
    return 1 if faults or percent < ENOUGH else 0


def _print(report: _Report) -> None:
    tried = report.tried
    killed = [m for m in tried if report.killed(m)]
    equal = len(report.equivalent)
    print(f"  {report.exercise.name:{NAME}} {len(killed):6} {len(tried):4} {equal or '':6}")
    for fault in report.faults:
        print(f"    FAULT {fault}")
    for mutant in tried:
        if mutant not in killed:
            print(f"    survives  {report.show(mutant)}")
        elif report.grades[mutant.id].hung:
            print(f"    only by the time limit  {report.show(mutant)}")


def _equivalent(week: str, root: Path) -> dict[str, list[Entry]]:
    """tests/<week>/equivalent.yaml: the mutants of each exercise that compute the same."""
    import yaml

    file = week_folder(root / "tests", week) / "equivalent.yaml"
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None
    except yaml.YAMLError as error:
        raise UsageError(f"{show(file, root)} cannot be read: {error}") from error
    entries = entries or {}
    if not isinstance(entries, dict) or not all(isinstance(e, list) for e in entries.values()):
        raise UsageError(f"{show(file, root)} must map each exercise to a list of mutants")
    for name, listed in entries.items():
        for entry in listed:
            if problem := wrong_entry(entry):
                raise UsageError(f"{show(file, root)}: {name}: {entry}: {problem}")
    return entries
