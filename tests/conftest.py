"""Fixtures that run weeks as a person does: their command line, in a process and a folder of its
own.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

# Test processes share the cores: with one thread each they do not wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402

from tests.forkserver import Forked, ForkServer  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TOY = str(ROOT / "tests" / "labkit" / "toy" / "week.py")
ASK_EACH = """
import runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, name
"""
"""A programme that asks the modules named behind it for their help, all in one process."""


@dataclass
class Finished:
    """How a command ended, and the run folder it wrote (None when it wrote none)."""

    returncode: int
    output: str
    dir: Path | None

    @property
    def home(self) -> Path:
        """The folder with runs/, results/ and artifacts/."""
        assert self.dir is not None
        return self.dir.parents[3]

    @property
    def record(self) -> dict[str, Any] | None:
        """result.json of the run."""
        file = self.dir / "result.json" if self.dir else None
        return json.loads(file.read_text()) if file and file.is_file() else None

    @property
    def metrics(self) -> list[dict[str, float]]:
        """Lines of metrics.jsonl."""
        assert self.dir is not None
        return [json.loads(line) for line in (self.dir / "metrics.jsonl").read_text().splitlines()]


class Lab:
    """Runs commands with runs, results and artifacts in a temporary folder, without LAB_DATA and
    network.
    """

    def __init__(self, home: Path, shared: Path | None = None) -> None:
        """`shared` is a folder of all test processes, for `once`."""
        self.home, self.shared = home, shared
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("LAB_", "WANDB_"))}
        self.env |= {"LAB_HOME": str(home), "LAB_OFFLINE": "1", "NO_COLOR": "1"}

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        """A process of this Python, stdout and stderr joined in its stdout."""
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.home,
            env={**self.env, "PYTHONPATH": str(ROOT), **env},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def begin(self, *command: str, other: bool = False, **env: str) -> Forked:
        """As `start`, but in a fork with the libraries loaded."""
        environment = {**self.env, "PYTHONPATH": str(ROOT), **env}
        return fork_server(other).begin(list(command), self.home, environment)

    def __call__(
        self,
        week: str,
        *words: str,
        kill: tuple[int, int] | None = None,
        fresh: bool = False,
        other: bool = False,
        **env: str,
    ) -> Finished:
        """`week` is a package name, or a file. kill=(S, K) saves before step S and dies before step
        K. `fresh` starts a new interpreter instead of a fork with the libraries loaded, `other` a
        fork of another process than the other runs, which hashes strings by another seed.
        """
        before = set(self.folders())
        if kill:
            target = week if week.endswith(".py") else f"{week}.train"
            command = [
                str(ROOT / "tests" / "kill_at.py"),
                str(kill[0]),
                str(kill[1]),
                target,
                *words,
            ]
        else:
            command = [week, *words] if week.endswith(".py") else ["-m", f"{week}.train", *words]
        if fresh or not hasattr(os, "fork"):
            process = self.start(*command, **env)
            output, _ = process.communicate(timeout=300)
            code = process.returncode
        else:
            code, output = self.begin(*command, other=other, **env).wait(300)
        new = sorted(set(self.folders()) - before)
        return Finished(code, output, new[-1] if new else None)

    def once(self, week: str, *words: str) -> Finished:
        """As a call, but the run is made once for all tests that ask for it: leave it as it is."""
        assert self.shared is not None
        key = hashlib.sha256("\0".join([week, *words]).encode()).hexdigest()
        folder = self.shared / "once" / key
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            kept = folder / "finished.pickle"
            if not kept.exists():
                kept.write_bytes(pickle.dumps(Lab(folder)(week, *words)))
            finished: Finished = pickle.loads(kept.read_bytes())
        return finished

    def folders(self) -> list[Path]:
        """All run folders so far."""
        return [path.parent for path in self.home.glob("runs/*/*/*/.hydra")]


@cache
def fork_server(other: bool = False) -> ForkServer:
    """One of the two of this test process, started when first needed; it ends with its stdin."""
    server = ForkServer()
    atexit.register(server.close)
    return server


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands carried out in this process read and write a place of their own, without LAB_DATA
    and network.
    """
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["test"])
    return tmp_path


@pytest.fixture
def lab_run(tmp_path: Path, shared: Path) -> Lab:
    return Lab(tmp_path, shared)


def same(a: Any, b: Any) -> bool:
    """Whether two nested states are equal to the last bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "numpy") or isinstance(a, np.ndarray):
        a, b = (
            np.ascontiguousarray(v.float().numpy() if hasattr(v, "numpy") else v) for v in (a, b)
        )
        return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return bool(a == b)


@pytest.fixture
def resume_check(lab_run: Lab) -> Iterator[Callable[..., None]]:
    """resume_check(week, *words): kill -9 at a random step, resume, and compare with an
    uninterrupted run. With saves_itself=True the week saves at steps of its own choice too.
    """

    def check(week: str, *words: str, saves_itself: bool = False) -> None:
        from labkit.state import checkpoint

        whole = lab_run(week, *words)
        assert whole.returncode == 0, whole.output
        assert whole.record is not None
        assert whole.dir is not None
        total = whole.record["steps"]
        kill_at = random.SystemRandom().randint(2, total - 1)
        save_at = random.SystemRandom().randint(1, kill_at - 1)
        print(f"saved before step {save_at}, killed before step {kill_at} of {total}")
        cut = lab_run(week, *words, kill=(save_at, kill_at))
        assert cut.returncode == -9, cut.output
        assert cut.dir is not None
        assert cut.record is None, "a killed run cannot have a result"
        resumed = lab_run(week, f"resume={cut.dir}", other=True)
        assert resumed.returncode == 0, resumed.output
        found = re.search(r"resumed after step (\d+)", resumed.output)
        assert found is not None, resumed.output
        last = kill_at if saves_itself else save_at
        assert save_at <= int(found[1]) <= last, resumed.output
        assert cut.record is not None
        assert cut.record["metrics"] == whole.record["metrics"]
        assert cut.metrics == whole.metrics
        ends = [checkpoint.load_latest(folder / "checkpoint") for folder in (whole.dir, cut.dir)]
        assert ends[0] is not None
        assert ends[1] is not None
        assert ends[0]["step"] == ends[1]["step"] == total
        for part in ("tracked", "rng"):
            assert same(ends[0][part], ends[1][part]), f"{part} differ after resume"

    return check


@pytest.fixture
def planted(request: pytest.FixtureRequest) -> Callable[[str], ModuleType]:
    """planted("module.function: name of the bug") is that module of the test's own week with the
    bug in it, not imported: what broken experiments train on.
    """
    week = request.path.parent.name

    def load(said: str) -> ModuleType:
        from labkit import bugs

        file, text = bugs.planted(week, said)
        module = ModuleType(f"{week}.{file.stem}")
        exec(compile(text, file, "exec"), module.__dict__)
        return module

    return load
