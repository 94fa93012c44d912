"""Exercises: blanks made from the solutions, and a checker that is itself checked.

A function marked `@exercise(minutes=15)` is one a learner can write. `start` copies a week into the
workspace without those bodies, `check` runs the week's tests against the learner's files and
nothing else, and `verify` proves that the tests grade: for every exercise the solution passes, the
blank fails and every bug planted in tests/<week>/bugs.yaml fails.
"""

from __future__ import annotations

import ast
import difflib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from labkit import blanks
from labkit.blanks import blank
from labkit.errors import UsageError
from labkit.grader import Grade, Job, grade
from labkit.paths import ROOT
from labkit.paths import workspace as default_workspace

__all__ = ["Exercise", "blank", "check", "exercise", "list_exercises", "start", "verify"]

F = TypeVar("F", bound=Callable[..., Any])

NAME = 35
"""Width of the column of names."""

CHECK_SECONDS, VERIFY_SECONDS = 120.0, 30.0
"""How long the tests of one exercise may take."""

BUGS_PER_EXERCISE = 2
"""An exercise with fewer planted bugs does not show that its tests grade."""

CANNOT_RUN = {"ImportError", "ModuleNotFoundError", "NameError", "SyntaxError", "UnboundLocalError"}
"""Exceptions that say a planted bug does not run at all, rather than that a test caught it."""


def exercise(minutes: int) -> Callable[[F], F]:
    """Mark a function as an exercise of about so many minutes. It is returned itself, unwrapped."""
    if not isinstance(minutes, int):
        raise TypeError("write @exercise(minutes=15): an exercise states its minutes")

    def mark(function: F) -> F:
        function.__exercise__ = minutes  # type: ignore[attr-defined]
        return function

    return mark


@dataclass(frozen=True)
class Exercise:
    """One marked function; `name` is "module.function" or "module.Class.method"."""

    name: str
    minutes: int
    file: Path
    line: int
    summary: str
    function: str
    """The name inside its file."""


def list_exercises(week_dir: Path) -> list[Exercise]:
    """The exercises of a week, in the order of its files, found without importing it."""
    found = []
    for file in _python_files(week_dir):
        for function, node in blanks.exercises(blanks.read(file)).items():
            name = f"{_module(file, week_dir)}.{function}"
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            minutes = blanks.minutes(node) or 0
            found.append(Exercise(name, minutes, file, node.lineno, summary, function))
    return found


def start(
    week: str, force: bool = False, *, root: Path = ROOT, workspace: Path | None = None
) -> int:
    """Copy a week into the workspace with the bodies of its exercises removed.

    A learner's work is never overwritten: with `force` it is moved aside first.
    Raises UsageError for an unknown week, and when workspace/<week> is there without `force`.
    """
    exercises = _exercises(week, root)
    own = (workspace or default_workspace()) / week
    if own.exists() and not force:
        raise UsageError(
            f"{_show(own, root)} is already there, and it is yours: nothing was changed.\n"
            f"To begin anew, type\n    lab exercise start {week} --force\n"
            "which moves your files aside (it deletes nothing) before it makes new ones."
        )
    own.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=own.parent, prefix=f".{week}-") as folder:
        fresh = Path(shutil.copytree(root / week, Path(folder, week), ignore=_IGNORED))
        for file in {e.file for e in exercises}:
            names = [e.function for e in exercises if e.file == file]
            copy = fresh / file.relative_to(root / week)
            blanks.write(copy, blank(blanks.read(copy), names, _module(file, root / week)))
        if own.exists():
            print(f"Your earlier files are now in {_show(_move_aside(own), root)}")
        fresh.rename(own)
    print(f"{_show(own, root)} is yours, with {len(exercises)} functions to write:")
    for e in list_exercises(own):
        print(f"  {e.name:{NAME}} {e.minutes:3} min  {_show(e.file, root)}:{e.line}")
    print(f"Then: lab exercise check {week}")
    return 0


def check(
    week: str, only: str | None = None, *, root: Path = ROOT, workspace: Path | None = None
) -> int:
    """Grade the learner's files. Returns 0 when every exercise (or the one chosen) passes, else 1.

    Raises UsageError for an unknown week or exercise, and when the week was not started.
    """
    exercises = _choose(_exercises(week, root), only)
    own = (workspace or default_workspace()) / week
    if not own.is_dir():
        raise UsageError(f"there is no {_show(own, root)} yet; type\n    lab exercise start {week}")
    if error := _syntax_error(own):
        file, line, message = error
        print(f"{_show(file, root)}:{line}: {message}. Nothing was graded: mend this line first.")
        return 1
    tests = _tests(week, root)
    state = {e.name: _state(own / e.file.relative_to(root / week), e.function) for e in exercises}
    ready = [e for e in exercises if state[e.name] == "written" and e.name in tests]
    jobs = [_job(e, week, own, tests, root, CHECK_SECONDS) for e in ready]
    grades = dict(zip([e.name for e in ready], grade(jobs, _preload(week, root)), strict=True))
    passed = 0
    print(f"{week}: your files in {_show(own, root)}")
    for e in exercises:
        verdict, notes = _judge(grades.get(e.name), state[e.name])
        passed += verdict == "passed"
        print(f"  {verdict:12} {e.name:{NAME}} {notes[0] or f'about {e.minutes} min'}")
        for note in notes[1:]:
            print(f"  {'':12} {note}")
    print(f"{passed} of {len(exercises)} passed.")
    return 0 if passed == len(exercises) else 1


def _state(file: Path, function: str) -> str:
    """What became of an exercise in the learner's file: written, not started, or missing."""
    node = blanks.functions(blanks.read(file)).get(function) if file.exists() else None
    return "missing" if node is None else "not started" if blanks.is_blank(node) else "written"


def _judge(grade: Grade | None, state: str) -> tuple[str, list[str]]:
    """Verdict on one exercise of a learner, and the lines that explain it."""
    if state == "not started":
        return state, [""]
    if state == "missing":
        return "failed", ["the function is no longer in your files"]
    if grade is None:
        return "failed", ["no test ran: it has none, which is the lab's fault and not yours"]
    bad, good = grade.having("failed", "error"), grade.having("passed")
    notes = [f"{outcome.test}: {outcome.message}  ({outcome.where})" for outcome in bad]
    if grade.problem:
        notes.append(grade.problem)
    if grade.hung:
        notes.append(f"{grade.hung}: still running after {CHECK_SECONDS:.0f} s; an endless loop?")
    if not (notes or good):
        notes.append("no test ran: all were skipped, which is the lab's fault and not yours")
    total = len(bad) + len(good) + bool(grade.hung)
    return "failed" if notes else "passed", [f"{len(good)} of {total} tests", *notes]


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
        if self.kind == "solution":
            if failed:
                return f"the solution fails {failed[0].test}: {failed[0].message}"
            if self.grade.hung:
                return f"the solution did not end {self.grade.hung} in {VERIFY_SECONDS:.0f} s"
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


def verify(week: str | None = None, *, root: Path = ROOT) -> int:
    """Prove that the tests grade, for one week or for all. Returns 0 when they do, else 1.

    Raises UsageError for an unknown week.
    """
    begun = time.monotonic()
    weeks = [week] if week else _weeks(root)
    faults: dict[str, list[str]] = {}
    variants: list[_Variant] = []
    with tempfile.TemporaryDirectory(prefix="lab-verify-") as folder:
        for name in weeks:
            variants += _variants(name, root, Path(folder), faults)
        preload = dict.fromkeys(line for name in weeks for line in _preload(name, root))
        grades = grade([v.job for v in variants], preload, _progress(len(variants)))
    for variant, result in zip(variants, grades, strict=True):
        variant.grade = result
        if fault := variant.fault():
            faults[f"{variant.job.week}.{variant.exercise.name}"].append(fault)
    for name in weeks:
        print(f"{name:{NAME + 2}} {'solution':9} {'blank':9} bugs")
        for e in _exercises(name, root):
            _print_row(e, [v for v in variants if v.exercise == e], faults[f"{name}.{e.name}"])
        for fault in faults.get(name, []):
            print(f"    FAULT {fault}")
    count = sum(map(len, faults.values()))
    verdict = f"{count} faults" if count else "the tests grade"
    print(f"{len(variants)} copies graded in {time.monotonic() - begun:.0f} s: {verdict}")
    return 1 if count else 0


def _print_row(e: Exercise, variants: list[_Variant], faults: list[str]) -> None:
    good = [v for v in variants if not v.fault()]
    solution = "passes" if any(v.kind == "solution" for v in good) else "FAULT"
    empty = "fails" if any(v.kind == "blank" for v in good) else "FAULT"
    bugs = [v for v in variants if v.kind.startswith("bug")]
    caught = f"{sum(v in good for v in bugs)} of {len(bugs)} fail"
    print(f"  {e.name:{NAME}} {solution:9} {empty:9} {caught}")
    for v in bugs:
        if v.grade.hung:
            print(f"    {v.kind} was only caught by the time limit, in {v.grade.hung}")
    for fault in faults:
        print(f"    FAULT {fault}")


def _variants(week: str, root: Path, folder: Path, faults: dict[str, list[str]]) -> list[_Variant]:
    """Write the copies of a week to be graded; what is wrong with its bugs goes to `faults`."""
    exercises, tests, bugs = _exercises(week, root), _tests(week, root), _bugs(week, root)
    names = {e.name for e in exercises}
    strays = [f"a test is marked for {name}" for name in sorted(tests.keys() - names)]
    strays += [f"bugs.yaml names {name}" for name in sorted(bugs.keys() - names)]
    faults[week] = [f"{stray}, which is no exercise" for stray in strays]
    variants = []
    for e in exercises:
        fault = faults[f"{week}.{e.name}"] = []
        if e.name not in tests:
            fault.append("it has no test")
            continue
        source = blanks.read(e.file)
        sources = {"solution": source, "blank": blank(source, [e.function])}
        for number, bug in enumerate(bugs.get(e.name, [])):
            try:
                name, text = _planted(source, e.function, bug)
                sources[f"bug {number + 1} ({name})"] = text
            except ValueError as error:
                fault.append(f"bug {number + 1} in bugs.yaml: {error}")
        if len(sources) - 2 < BUGS_PER_EXERCISE:
            fault.append(f"usable bugs: {len(sources) - 2}; plant {BUGS_PER_EXERCISE} or more")
        for number, (kind, text) in enumerate(sources.items()):
            package = folder / e.name / str(number) / week
            shutil.copytree(root / week, package, ignore=_IGNORED)
            blanks.write(package / e.file.relative_to(root / week), text)
            variants.append(_Variant(e, kind, _job(e, week, package, tests, root, VERIFY_SECONDS)))
    return variants


def _bugs(week: str, root: Path) -> dict[str, list[Any]]:
    import yaml

    file = root / "tests" / week / "bugs.yaml"
    bugs = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    bugs = bugs or {}
    if not isinstance(bugs, dict) or not all(isinstance(each, list) for each in bugs.values()):
        raise UsageError(f"{_show(file, root)} must map each exercise to a list of bugs")
    return bugs


def _planted(source: str, function: str, bug: Any) -> tuple[str, str]:
    """Name of one entry of bugs.yaml, and the source with that bug in it. Raises ValueError."""
    if not isinstance(bug, dict) or set(bug) not in ({"name", "replace", "with"}, {"name", "body"}):
        raise ValueError("it must have exactly the keys name, replace, with, or name, body")
    if not all(isinstance(value, str) for value in bug.values()):
        raise ValueError("its values must be text: put numbers in quotes")
    if "body" in bug:
        return bug["name"], blanks.replace_body(source, function, bug["body"])
    return bug["name"], blanks.mutate(source, function, bug["replace"], bug["with"])


def _job(
    e: Exercise, week: str, package: Path, tests: dict[str, list[str]], root: Path, seconds: float
) -> Job:
    return Job(str(root.resolve()), week, str(package), e.name, tests[e.name], seconds)


def _tests(week: str, root: Path) -> dict[str, list[str]]:
    """Test files that grade each exercise: those with `@pytest.mark.exercise("<name>")` in them."""
    files: dict[str, list[str]] = {}
    for file in _python_files(root / "tests" / week):
        for node in ast.walk(ast.parse(blanks.read(file))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.exercise"):
                try:
                    (name,) = map(ast.literal_eval, node.args)
                except ValueError:
                    hint = 'write the name out: mark.exercise("module.function")'
                    raise UsageError(f"{_show(file, root)}:{node.lineno}: {hint}") from None
                if str(file) not in files.setdefault(name, []):
                    files[name].append(str(file))
    return files


def _preload(week: str, root: Path) -> list[str]:
    """Library imports of the week's modules (at their top) and of its exercise tests (anywhere)."""
    modules = [ast.parse(blanks.read(file)) for file in _python_files(root / week)]
    nodes: list[ast.AST] = [node for module in modules for node in module.body]
    graders = {Path(file) for files in _tests(week, root).values() for file in files}
    for file in [*sorted(graders), root / "tests" / "conftest.py"]:
        nodes += ast.walk(ast.parse(blanks.read(file))) if file.exists() else []
    statements = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        tops = {name.partition(".")[0] for name in names}
        if not any((root / top).is_dir() for top in tops - {"labkit"}):  # never a week itself
            statements.append(ast.unparse(node))
    if any(line.startswith(("import torch", "from torch")) for line in statements):
        statements.append("import torch._dynamo")  # optimisers import it at first use: seconds
    return list(dict.fromkeys(statements))


def _weeks(root: Path) -> list[str]:
    folders = [init.parent for init in sorted(root.glob("*/__init__.py"))]
    return [f.name for f in folders if f.name not in ("labkit", "tests") and list_exercises(f)]


def _exercises(week: str, root: Path) -> list[Exercise]:
    if week not in (weeks := _weeks(root)):
        near = difflib.get_close_matches(week, weeks, n=1)
        hint = f"did you mean {near[0]}?" if near else f"weeks with exercises: {', '.join(weeks)}"
        raise UsageError(f"there are no exercises for {week!r}; {hint}")
    return list_exercises(root / week)


def _choose(exercises: list[Exercise], only: str | None) -> list[Exercise]:
    """The exercise called `only`: its full name, or the end of it where one alone ends so."""
    chosen = [e for e in exercises if only in (None, e.name)]
    chosen = chosen or [e for e in exercises if e.name.endswith(f".{only}")]
    if not chosen or (only is not None and len(chosen) > 1):
        names = ", ".join(e.name for e in chosen or exercises)
        what = "several exercises are" if chosen else "there is no exercise"
        raise UsageError(f"{what} {only!r}; choose from {names}")
    return chosen


def _syntax_error(folder: Path) -> tuple[Path, int, str] | None:
    for file in _python_files(folder):
        try:
            compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
        except SyntaxError as error:
            return file, error.lineno or 1, f"{type(error).__name__}: {error.msg}"
        except ValueError as error:  # null bytes, before Python 3.12
            return file, 1, str(error)
    return None


def _move_aside(own: Path) -> Path:
    """Rename the learner's folder to <week>.bak-<time>, a name not yet taken."""
    base = own.with_name(f"{own.name}.bak-{time.strftime('%Y%m%d-%H%M%S')}")
    names = (base, *(base.with_name(f"{base.name}-{i}") for i in range(2, 100)))
    return own.rename(next(name for name in names if not name.exists()))


_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


def _python_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


def _module(file: Path, week_dir: Path) -> str:
    return ".".join(file.relative_to(week_dir).with_suffix("").parts)


def _show(path: Path, root: Path) -> str:
    return os.path.relpath(path, root) if path.is_relative_to(root) else str(path)


def _progress(total: int) -> Callable[[int], None]:
    """Counts finished jobs on a terminal; says nothing elsewhere."""

    def done(count: int) -> None:
        if sys.stderr.isatty():
            end = "\r" if count < total else "\r\033[K"
            print(f"{count} of {total} copies graded", end=end, file=sys.stderr, flush=True)

    return done
