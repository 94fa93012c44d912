"""One job of the grader, in its own process: pytest on the marked tests, each ending reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit import surgery
from labkit.exercises import fill
from labkit.exercises.grader import Job
from labkit.paths import week_folder

MESSAGE = 200
"""Characters of an assertion's message that are kept."""

Emit = Callable[..., None]

LEAVES = {
    "Skipped": "pytest.skip",
    "XFailed": "pytest.xfail",
    "Exit": "pytest.exit",
    "SystemExit": "sys.exit or exit",
    "KeyboardInterrupt": "KeyboardInterrupt",
}
"""Exceptions that end a test without a verdict, and what raised them."""


def work(folder: Path, number: int, job: Job, pipe: Any, token: str) -> None:
    """Everything printed goes to the job's log; results go through the pipe."""
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setsid"):
        os.setsid()
    log = os.open(folder / f"{number}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)

    me = os.getpid()

    def emit(**event: Any) -> None:
        if os.getpid() == me:  # and not a process that the tests forked
            pipe.send_bytes(json.dumps([token, event]).encode())

    try:
        if job.edits is not None:
            job = _edited(job, folder / f"copy-{number}")
        _pytest(job, emit)
        emit(end=time.monotonic() - begun)
    except BaseException as error:
        emit(problem=_one_line(f"{type(error).__name__}: {error}"))


def _edited(job: Job, folder: Path) -> Job:
    """The job, on a copy of its package in `folder` with the edits made."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    package = shutil.copytree(job.package, folder / job.week, ignore=ignored)
    for name, text in (job.edits or {}).items():
        surgery.write(package / name, text)
    return replace(job, package=str(package))


def _pytest(job: Job, emit: Emit) -> None:
    import pytest

    before = set(sys.modules)
    root, package = Path(job.root), Path(job.package).resolve()
    solution = week_folder(root, job.week).resolve()
    finder = fill.install(job.week, package, solution, job.solved)
    if package != solution:
        _watch(package, solution, root, emit)
    fill.load(job.week, package, finder)
    options = ["--import-mode=importlib", f"--rootdir={root}", "-o", "addopts=", "-q", "--tb=no"]
    options += ["-p", "no:cacheprovider", "-p", "no:xdist", *(["-x"] if job.first else [])]
    if (settings := root / "pyproject.toml").exists():
        options += ["-c", str(settings)]
    plugin = _Plugin(job, emit)
    code = pytest.main([*options, *job.files], plugins=[plugin])
    exits = pytest.ExitCode
    if code not in (exits.OK, exits.TESTS_FAILED, exits.NO_TESTS_COLLECTED):
        emit(problem=f"pytest ended with {code!r}")
    for name in set(sys.modules) - before:
        file = Path(getattr(sys.modules[name], "__file__", None) or package / "built in").resolve()
        ours = f"{name}.".startswith(f"{job.week}.") or file.is_relative_to(solution)
        if ours and not file.is_relative_to(package):
            emit(problem=f"the tests used {file}, which is not the copy under test")


def _watch(package: Path, solution: Path, root: Path, emit: Emit) -> None:
    """Report when code of the copy under test opens one of the solution's files."""
    inside, lab = f"{package}{os.sep}", f"{solution}{os.sep}"
    compiled = f"{sys.pycache_prefix}{lab}"  # what an earlier job has compiled
    told = set[str]()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        path = os.path.realpath(os.fsdecode(arguments[0]))
        ours = path.startswith((lab, compiled)) and path.endswith((".py", ".pyc"))
        if not ours or path in told:
            return
        frame = sys._getframe(1)
        while frame and not os.path.realpath(frame.f_code.co_filename).startswith(inside):
            frame = frame.f_back  # type: ignore[assignment]
        if frame:
            told.add(path)
            line = f"{os.path.relpath(frame.f_code.co_filename, root)}:{frame.f_lineno}"
            what = os.path.basename(path).partition(".")[0]
            emit(problem=f"{line} reads the lab's solution ({what}); only your own work is graded")

    sys.addaudithook(hook)


class _Plugin:
    """Keeps the tests marked with the job's exercise, and reports how each one ended."""

    def __init__(self, job: Job, emit: Emit) -> None:
        self.job, self.emit = job, emit
        self.package = Path(job.package).resolve()
        self.solved = {name for names in job.solved.values() for name in names}

    def pytest_configure(self, config: Any) -> None:
        config.addinivalue_line("markers", "exercise(name): this test grades the exercise `name`")

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        def grades(item: Any) -> bool:
            return any(self.job.exercise in mark.args for mark in item.iter_markers("exercise"))

        items[:] = [item for item in items if grades(item)]
        self.emit(collected=len(items))

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = crash.message if crash else str(report.longrepr).strip().splitlines()[-1]
            text = _one_line(text.removeprefix("E "))
            self.emit(problem=f"{report.nodeid} could not be loaded: {text}")
        elif report.skipped and isinstance(report.longrepr, tuple):
            path, line, reason = report.longrepr
            if self.package in Path(path).resolve().parents:
                where = self._show(Path(path).resolve(), line)
                self.emit(problem=f"{where} calls pytest.skip ({reason}), so no test ran")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.emit(start=nodeid.partition("::")[2])

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        """Observes only (returns None), so pytest makes its own report as well."""
        test = item.nodeid.partition("::")[2]
        if call.excinfo is None:
            if call.when == "call":
                self.emit(test=test, result="passed")
            return
        kind, mine = call.excinfo.typename, any(map(self._mine, call.excinfo.traceback))
        if kind in ("Skipped", "XFailed") and not mine:
            self.emit(test=test, result="skipped")
            return
        message = _one_line(call.excinfo.exconly().removeprefix("AssertionError:"))
        if kind in LEAVES and mine:
            message = f"your code leaves the test by {LEAVES[kind]}, which is not an answer"
        self.emit(
            test=test,
            result="failed" if call.when == "call" else "error",
            error=kind,
            message=message,
            where=self._where(item, call.excinfo),
        )

    def pytest_keyboard_interrupt(self, excinfo: Any) -> None:
        """KeyboardInterrupt or pytest.exit ended all tests."""
        entries = [entry for entry in excinfo.traceback if self._mine(entry)]
        if entries:
            where = self._show(Path(entries[-1].path).resolve(), entries[-1].lineno + 1)
            how = LEAVES[excinfo.typename]
            self.emit(problem=f"{where} leaves the test by {how}, which is not an answer")

    def _mine(self, entry: Any) -> bool:
        """Whether this line of a traceback is in the copy under test, and not filled in there."""
        name = entry.frame.code.raw.co_qualname.partition(".<locals>")[0]
        return self.package in Path(entry.path).resolve().parents and name not in self.solved

    def _where(self, item: Any, excinfo: Any) -> str:
        """The innermost line of the traceback that is the learner's or the test's."""
        for entry in reversed(excinfo.traceback):
            path = Path(entry.path).resolve()
            if path == item.path.resolve() or self._mine(entry):
                return self._show(path, entry.lineno + 1)
        return str(item.nodeid.partition("::")[0])

    def _show(self, path: Path, line: int) -> str:
        inside = path.is_relative_to(self.job.root)
        return f"{path.relative_to(self.job.root) if inside else path}:{line}"


def _one_line(text: str) -> str:
    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    return line if len(line) <= MESSAGE else line[: MESSAGE - 1] + "…"
