"""`lab exercise mutants`: tries every mutant of the weeks' exercises and prints what survives."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from labkit import blanks
from labkit.errors import UsageError
from labkit.exercise import (
    NAME,
    Exercise,
    _choose,
    _exercises,
    _job,
    _preload,
    _progress,
    _show,
    _tests,
    _weeks,
)
from labkit.grader import Grade, Job, grade
from labkit.mutants import Entry, Mutant, choose, excused, generate, wrong_entry
from labkit.paths import ROOT

ENOUGH = 99.0
"""Percent of the mutants that are not equivalent which the tests must kill."""

SECONDS, TIMES = 5.0, 5.0
"""A mutant may take so many times what the solution takes, and at least so many seconds."""

SOLUTION_SECONDS = 60.0


@dataclass
class _Report:
    """The mutants of one exercise, sorted by what became of them."""

    exercise: Exercise
    file: str
    mutants: list[Mutant]
    equivalent: list[Mutant] = field(default_factory=list)
    grades: dict[str, Grade] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """What the tests take on the solution."""

    @property
    def tried(self) -> list[Mutant]:
        return [] if self.faults else [m for m in self.mutants if m not in self.equivalent]

    def killed(self, mutant: Mutant) -> bool:
        result = self.grades[mutant.id]
        return bool(result.hung or result.problem or result.having("failed", "error"))

    def show(self, mutant: Mutant) -> str:
        return f"{mutant.id} {self.file}:{mutant.line}  {mutant.operator}:  {mutant.diff}"


def mutants(
    weeks: Iterable[str] = (),
    only: str | None = None,
    *,
    listed: bool = False,
    root: Path = ROOT,
) -> int:
    """Try the mutants of some weeks (of all when none is named), or of the exercise `only`.

    Returns 0 when at least 99 % of those that are not equivalent are killed in each week, else 1.
    Raises UsageError for an unknown week or exercise and for a malformed equivalent.yaml.
    """
    code = 0
    for week in list(weeks) or _weeks(root):
        reports = _prepare(week, only, root)
        if listed:
            for report in reports:
                print(*(report.show(mutant) for mutant in report.mutants), sep="\n")
        else:
            code |= _try(week, reports, root)
    return code


def _prepare(week: str, only: str | None, root: Path) -> list[_Report]:
    entries = _equivalent(week, root)
    reports: list[_Report] = []
    exercises = _exercises(week, root)
    strays = entries.keys() - {e.name for e in exercises}
    for e in _choose(exercises, only):
        every = generate(blanks.read(e.file), e.function, e.name)
        mine = entries.get(e.name, [])
        report = _Report(e, _show(e.file, root), choose(every))
        report.equivalent = [m for m in report.mutants if excused(m, mine)]
        for entry in mine:
            if not any(excused(m, [entry]) for m in every):
                report.faults.append(f"equivalent.yaml excuses what is no mutant: {entry}")
        report.faults += [
            f"equivalent.yaml names {name}, which is no exercise" for name in strays if not reports
        ]
        reports.append(report)
    return reports


def _try(week: str, reports: list[_Report], root: Path) -> int:
    begun, tests, preload = time.monotonic(), _tests(week, root), _preload(week, root)
    _solutions(week, [r for r in reports if not r.faults], tests, preload, root)
    jobs: list[tuple[_Report, Mutant, Job]] = []
    for report in reports:
        e, seconds = report.exercise, max(SECONDS, TIMES * report.seconds)
        for mutant in report.tried:
            job = _job(e, week, root / week, tests, root, seconds)
            edits = {str(e.file.relative_to(root / week)): mutant.source}
            jobs.append((report, mutant, replace(job, edits=edits, first=True)))
    results = grade([job for _, _, job in jobs], preload, _progress(len(jobs)))
    for (report, mutant, _), result in zip(jobs, results, strict=True):
        report.grades[mutant.id] = result
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
        + f" ({time.monotonic() - begun:.0f} s)"
    )
    return 1 if faults or percent < ENOUGH else 0


def _solutions(
    week: str, reports: list[_Report], tests: dict[str, Any], preload: list[str], root: Path
) -> None:
    """Time the solution of each exercise, whose tests must pass for a failure to mean anything."""
    timed = [r for r in reports if r.exercise.name in tests]
    for report in reports:
        if report not in timed:
            report.faults.append("it has no test")
    jobs = [_job(r.exercise, week, root / week, tests, root, SOLUTION_SECONDS) for r in timed]
    for report, result in zip(timed, grade(jobs, preload), strict=True):
        report.seconds = result.seconds
        bad = result.having("failed", "error")
        if bad or result.hung or result.problem or not result.having("passed"):
            what = result.problem or result.hung or (bad[0].test if bad else "no test ran")
            report.faults.append(f"the solution does not pass: {what}")


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

    file = root / "tests" / week / "equivalent.yaml"
    entries = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None
    entries = entries or {}
    if not isinstance(entries, dict) or not all(isinstance(e, list) for e in entries.values()):
        raise UsageError(f"{_show(file, root)} must map each exercise to a list of mutants")
    for name, listed in entries.items():
        for entry in listed:
            if problem := wrong_entry(entry):
                raise UsageError(f"{_show(file, root)}: {name}: {entry}: {problem}")
    return entries
