"""Runs the tests of one exercise against one copy of a week, each time in a process of its own.

`grade` starts one interpreter (see grading_server.py). It imports the libraries that the tests
need (torch takes seconds) once, and forks a process for every job, as many at a time as there are
cores, so that a job costs what its tests cost. Where fork is missing (Windows) each job starts
afresh.

The verdict reaches this process through two pipes: from the job to the server, and from there to
here. The tested code runs inside pytest, in the job's process, so it could do anything that pytest
can; this is not a sandbox. What is guaranteed: there is no file to write a verdict into; what the
code prints or writes to disk is never read as one; a message counts only with a random number drawn
for that job; and a session that ends before every collected test has run is not a pass.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """Tests of one exercise (in `files`) against the copy of `week` in the folder `package`."""

    root: str
    week: str
    package: str
    exercise: str
    files: list[str]
    seconds: float
    """How long it may take; with `after`, longer where that job took long."""
    edits: dict[str, str] | None = None
    """A file's path in the package: its text. Then a copy with these files is graded."""
    solved: dict[str, list[str]] = field(default_factory=dict)
    """A file's path in the package: functions whose bodies are taken from the lab's solution."""
    first: bool = False
    """End at the first test that fails."""
    after: int | None = None
    """Number of an earlier job in the same call: this one may take up to TIMES as long."""
    retry_of: int | None = None
    """Number of an earlier job in the same call: run only where that one does not pass."""


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
    """What a job saw. `problem`: why there is no grade (tests could not be loaded, or crashed)."""

    outcomes: list[Outcome] = field(default_factory=list)
    problem: str = ""
    hung: str = ""
    """The test that was running when time was up."""
    seconds: float = 0.0
    """What the job took; 0 when it did not end."""

    def having(self, *results: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.result in results]

    @property
    def passed(self) -> bool:
        """Whether tests ran, all ended and none failed."""
        bad = self.having("failed", "error")
        return bool(self.having("passed")) and not (bad or self.problem or self.hung)

    def why(self) -> str:
        """The first reason why it did not pass, in a line; empty when it did."""
        if self.problem:
            return self.problem
        if bad := self.having("failed", "error"):
            return f"{bad[0].test}: {bad[0].message}"
        if self.hung:
            return f"{self.hung} did not end in time"
        return "" if self.having("passed") else "no test ran (all skipped?)"


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
        labkit_home = str(Path(__file__).resolve().parents[2])
        paths = dict.fromkeys([labkit_home, *(job.root for job in jobs)])
        threads = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")
        environment = os.environ | {
            **{f"{name}_NUM_THREADS": "1" for name in threads},
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # what else is installed must not change a grade
            "HYPOTHESIS_STORAGE_DIRECTORY": str(Path(folder, "hypothesis")),
            "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS forbids fork after some imports
        }
        command = [sys.executable, "-m", "labkit.exercises.grading_server", folder]
        pipe = subprocess.PIPE
        grades: dict[int, Grade] = {}
        with subprocess.Popen(
            command, env=environment, cwd=folder, stdout=pipe, text=True, encoding="utf-8"
        ) as server:
            assert server.stdout is not None
            try:
                for line in server.stdout:
                    number, events, log = json.loads(line)
                    grades[number] = read_grade(events, log)
                    done(len(grades))
            except BaseException:
                server.terminate()
                raise
        if server.returncode:
            raise RuntimeError(f"the grader ended with exit code {server.returncode}")
        return [grades[number] for number in range(len(jobs))]


def read_grade(events: list[dict[str, Any]], log: str) -> Grade:
    """Put a job's events together. A job that died or was killed left them unfinished."""
    result, running, ended, collected, timeout = Grade(), "", False, 0, False
    for event in events:
        running = event.get("start", running)
        if "result" in event:
            result.outcomes.append(Outcome(**event))
        ended = ended or "end" in event
        timeout = timeout or "timeout" in event
        collected = event.get("collected", collected)
        result.seconds = event.get("end", result.seconds)
        result.problem = result.problem or event.get("problem", "")
    if timeout:
        result.hung = running or "the tests' import"
    elif not (ended or result.problem):
        result.problem = (
            f"the process died in {running or 'the import of the tests'} ({log or 'no output'})"
        )
    elif not result.problem and len(result.outcomes) < collected and not result.having("failed"):
        ran = len(result.outcomes)
        result.problem = f"the tests ended in {running} after {ran} of {collected}, none failed"
    return result
