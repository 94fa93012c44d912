"""Runs the tests of one exercise against one copy of a week, each time in a process of its own.

`grade` starts one interpreter. It imports the libraries that the tests need (torch takes seconds)
once, and forks a process for every job, as many at a time as there are cores, so that a job costs
what its tests cost. Where fork is missing (Windows) each job starts afresh. The copy under test is
put into `sys.modules` under the week's name before pytest starts, so no search path can bring in
another copy; that is checked again at the end.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from labkit import blanks

MESSAGE = 200
"""Characters of an assertion's message that are kept."""


@dataclass(frozen=True)
class Job:
    """Tests of one exercise (in `files`) against the copy of `week` in the folder `package`.

    With `edits` (a file's path in the package: its text) a copy with these files is graded.
    """

    root: str
    week: str
    package: str
    exercise: str
    files: list[str]
    seconds: float
    edits: dict[str, str] | None = None
    first: bool = False
    """End at the first test that fails."""


@dataclass(frozen=True)
class Outcome:
    """How one test ended: passed, failed, skipped, or error (in a fixture, not in the test)."""

    test: str
    result: str
    error: str = ""
    message: str = ""
    where: str = ""


@dataclass
class Grade:
    """What a job saw. `problem` says why it is no grade: tests could not be loaded, or crashed."""

    outcomes: list[Outcome] = field(default_factory=list)
    problem: str = ""
    hung: str = ""
    """The test that was running when time was up."""
    seconds: float = 0.0
    """What the job took; 0 when it did not end."""

    def having(self, *results: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.result in results]


def grade(
    jobs: Sequence[Job],
    preload: Iterable[str] = (),
    done: Callable[[int], None] = lambda count: None,
) -> list[Grade]:
    """Run all jobs. `preload` are import statements to run once; `done` sees the progress."""
    if not jobs:
        return []
    with tempfile.TemporaryDirectory(prefix="lab-grade-") as folder:
        plan = {"preload": list(preload), "jobs": [asdict(job) for job in jobs]}
        Path(folder, "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        labkit_home = str(Path(__file__).resolve().parent.parent)
        paths = dict.fromkeys([labkit_home, *(job.root for job in jobs)])
        threads = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")
        environment = os.environ | {
            **{f"{name}_NUM_THREADS": "1" for name in threads},
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # what else is installed must not change a grade
            "HYPOTHESIS_STORAGE_DIRECTORY": str(Path(folder, "hypothesis")),
            "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS forbids fork after some imports
        }
        # Not `-m`: labkit imports this module, and running it twice over would warn.
        code = "import sys, pathlib, labkit.grader as g; g.serve(pathlib.Path(sys.argv[1]))"
        command = [sys.executable, "-c", code, folder]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=environment, cwd=folder, stdout=pipe) as server:
            assert server.stdout is not None
            try:
                for count, _ in enumerate(server.stdout, start=1):
                    done(count)
            except BaseException:
                server.terminate()
                raise
        if server.returncode:
            raise RuntimeError(f"the grader ended with exit code {server.returncode}")
        return [_read(Path(folder), number, job) for number, job in enumerate(jobs)]


def _read(folder: Path, number: int, job: Job) -> Grade:
    """Put a job's events together. A job that died or was killed left them unfinished."""
    result, running, ended = Grade(), "", False
    events = folder / f"{number}.jsonl"
    for line in events.read_text(encoding="utf-8").splitlines() if events.exists() else []:
        event = json.loads(line)
        running = event.get("start", running)
        if "result" in event:
            result.outcomes.append(Outcome(**event))
        ended = ended or "end" in event
        result.seconds = event.get("end", result.seconds)
        result.problem = result.problem or event.get("problem", "")
        if "timeout" in event:
            result.hung = running or "the tests' import"
    if not (ended or result.hung or result.problem):
        log = (folder / f"{number}.log").read_text(encoding="utf-8", errors="replace").strip()
        last = log.splitlines()[-1] if log else "no output"
        result.problem = f"the process died in {running or 'the import of the tests'} ({last})"
    return result


# The rest runs in the grader's own interpreter.


def serve(folder: Path) -> None:
    """Run the plan in `folder`: a forked process per job, as many at a time as there are cores."""
    import multiprocessing
    from multiprocessing.connection import wait

    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    forks = "fork" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("fork" if forks else "spawn")
    for statement in ["import pytest", *plan["preload"]] if forks else []:
        with contextlib.suppress(Exception):  # if it matters, the tests will say so
            exec(statement, {})
    if forks:
        _warm(folder)
    gc.freeze()  # the forks' collectors leave alone what they all share
    sys.pycache_prefix = str(folder / "bytecode")  # the tests' own, for all jobs; nothing is left
    waiting = list(enumerate(Job(**job) for job in plan["jobs"]))[::-1]
    running: dict[int, tuple[Any, int, float]] = {}  # sentinel: process, number, deadline
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        while waiting or running:
            while waiting and len(running) < min(4, os.cpu_count() or 1):
                number, job = waiting.pop()
                process = context.Process(target=_work, args=(folder, number, job))
                process.start()
                running[process.sentinel] = process, number, time.monotonic() + job.seconds
            nearest = min(deadline for _, _, deadline in running.values())
            ended = set(wait(list(running), timeout=max(0.0, nearest - time.monotonic())))
            for sentinel, (process, number, deadline) in list(running.items()):
                if sentinel not in ended and time.monotonic() < deadline:
                    continue
                if sentinel not in ended:
                    _kill(process)
                    _emit(folder, number, timeout=True)
                process.join()
                del running[sentinel]
                shutil.rmtree(_copy(folder, number), ignore_errors=True)
                print(number, flush=True)
    finally:  # interrupted: leave nothing behind
        for process, _, _ in running.values():
            _kill(process)


def _warm(folder: Path) -> None:
    """Run pytest on nothing, which loads all of it."""
    import pytest

    empty = folder / "empty"
    empty.mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={empty}", str(empty)])


def _kill(process: Any) -> None:
    """Kill a job and, where it has a process group of its own, whatever it started."""
    with contextlib.suppress(ProcessLookupError, AttributeError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _emit(folder: Path, number: int, **event: Any) -> None:
    with (folder / f"{number}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


def _work(folder: Path, number: int, job: Job) -> None:
    """One job, in its own process: everything printed goes to its log."""
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setsid"):
        os.setsid()
    log = os.open(folder / f"{number}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        if job.edits is not None:
            job = _edited(job, _copy(folder, number))
        _pytest(job, lambda **event: _emit(folder, number, **event))
        _emit(folder, number, end=time.monotonic() - begun)
    except Exception as error:
        _emit(folder, number, problem=_one_line(f"{type(error).__name__}: {error}"))


def _copy(folder: Path, number: int) -> Path:
    return folder / f"copy-{number}"


def _edited(job: Job, folder: Path) -> Job:
    """The job, on a copy of its package in `folder` with the edits made."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    package = shutil.copytree(job.package, folder / job.week, ignore=ignored)
    for name, text in (job.edits or {}).items():
        blanks.write(package / name, text)
    return replace(job, package=str(package))


def _pytest(job: Job, emit: Callable[..., None]) -> None:
    import pytest

    before = set(sys.modules)
    _install(job)
    root = Path(job.root)
    options = ["--import-mode=importlib", f"--rootdir={root}", "-o", "addopts=", "-q", "--tb=no"]
    options += ["-p", "no:cacheprovider", "-p", "no:xdist"]
    if job.first:
        options.append("-x")
    if (settings := root / "pyproject.toml").exists():
        options += ["-c", str(settings)]
    code = pytest.main([*options, *job.files], plugins=[_Plugin(job, emit)])
    exits = pytest.ExitCode
    if code not in (exits.OK, exits.TESTS_FAILED, exits.NO_TESTS_COLLECTED):
        emit(problem=f"pytest ended with {code!r}")
    package, solution = Path(job.package).resolve(), root / job.week
    for name in set(sys.modules) - before:
        file = Path(getattr(sys.modules[name], "__file__", None) or package / "built in").resolve()
        ours = f"{name}.".startswith(f"{job.week}.") or file.is_relative_to(solution)
        if ours and not file.is_relative_to(package):
            emit(problem=f"the tests used {file}, which is not the copy under test")


def _install(job: Job) -> None:
    """Import the copy under test as the week's package, wherever it lies."""
    from importlib.util import module_from_spec, spec_from_file_location

    assert job.week not in sys.modules, f"{job.week} was already imported"
    init = Path(job.package, "__init__.py")
    spec = spec_from_file_location(job.week, init, submodule_search_locations=[job.package])
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[job.week] = module_from_spec(spec)
    spec.loader.exec_module(module)


class _Plugin:
    """Keeps the tests marked with the job's exercise, and reports how each one ended."""

    def __init__(self, job: Job, emit: Callable[..., None]) -> None:
        self.job, self.emit = job, emit

    def pytest_configure(self, config: Any) -> None:
        config.addinivalue_line("markers", "exercise(name): this test grades the exercise `name`")

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        def grades(item: Any) -> bool:
            return any(self.job.exercise in mark.args for mark in item.iter_markers("exercise"))

        items[:] = [item for item in items if grades(item)]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = crash.message if crash else str(report.longrepr).strip().splitlines()[-1]
            text = _one_line(text.removeprefix("E "))
            self.emit(problem=f"{report.nodeid} could not be loaded: {text}")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.emit(start=nodeid.partition("::")[2])

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        """Observes only (returns None), so pytest makes its own report as well."""
        import pytest

        test = item.nodeid.partition("::")[2]
        if call.excinfo is None:
            if call.when == "call":
                self.emit(test=test, result="passed")
        elif call.excinfo.errisinstance((pytest.skip.Exception, pytest.xfail.Exception)):
            self.emit(test=test, result="skipped")
        else:
            self.emit(
                test=test,
                result="failed" if call.when == "call" else "error",
                error=call.excinfo.typename,
                message=_one_line(call.excinfo.exconly().removeprefix("AssertionError:")),
                where=self._where(item, call.excinfo),
            )

    def _where(self, item: Any, excinfo: Any) -> str:
        """The innermost line of the traceback that is the learner's or the test's."""
        package = Path(self.job.package).resolve()
        for entry in reversed(excinfo.traceback):
            path = Path(entry.path).resolve()
            if path == item.path.resolve() or package in path.parents:
                inside = path.is_relative_to(self.job.root)
                return f"{path.relative_to(self.job.root) if inside else path}:{entry.lineno + 1}"
        return str(item.nodeid.partition("::")[0])


def _one_line(text: str) -> str:
    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    return line if len(line) <= MESSAGE else line[: MESSAGE - 1] + "…"
