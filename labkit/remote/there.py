"""What runs on the rented machine: any Python 3.11 or later, its standard library, and nothing of
the lab.

    python there.py start RUN           begin a run (its job as JSON on stdin); it outlives the line
    python there.py follow RUN OFFSET   its log from a byte on, until it has ended
    python there.py state RUN           how it is, as JSON
    python there.py stop RUN            Ctrl-C for the run, which saves and ends
    python there.py outcome RUN         what it made, as JSON

In FOLDER: env/<python>-<hash>/ (an environment for each set of requirements), data/ and artifacts/
(shared), and runs/<id>/ with tree/ (the lab as it was sent), job.json, log, phase and rc. A process
of the run holds a lock on runs/<id>/lock: while it is held, the run is alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = "LAB-ANSWER "
"""Begins the line of an answer: a login shell may print lines of its own before."""
PROGRESS = b"@progress "


class Stopped(Exception):
    """Someone asked the run to end before it had begun."""


class Supervisor:
    """The process that makes the environment, runs the week and keeps its exit code."""

    def __init__(self, run: Path) -> None:
        self.run, self.tree = run, run / "tree"
        self.base = run.parent.parent
        self.job: dict[str, Any] = json.loads((run / "job.json").read_text(encoding="utf-8"))
        self.child: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def work(self) -> int:
        """The exit code of the run, or of what failed before it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        try:
            self._phase("environment")
            python = self.job["python"] or self._environment()
            if self.job["gpu"] and self._call([python, "-c", SEES_GPU], quiet=True):
                print(NO_CUDA.format(driver=self.job["driver"]), flush=True)
                return 2
            self._phase("running")
            return self._call([python, "-m", f"{self.job['week']}.train", *self.job["words"]])
        except Stopped:
            print("stopped before the run began", flush=True)
            return 130
        except (OSError, subprocess.SubprocessError) as error:
            print(f"error: {error}", flush=True)
            return 1

    def _stop(self, number: int, frame: object) -> None:
        self.stopped = True
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)

    def _phase(self, name: str) -> None:
        if self.stopped:
            raise Stopped
        _write(self.run / "phase", name)

    def _call(self, command: list[str], quiet: bool = False) -> int:
        """Run a command in the tree, with its output in the log. It holds the run's lock, too."""
        environment = {**os.environ, "PYTHONPATH": str(self.tree), "PYTHONUNBUFFERED": "1"}
        environment["LAB_PROGRESS"] = "lines"
        environment.pop("LAB_HOME", None)  # runs and results are then in the tree
        lock = int(environment.pop("LAB_LOCK"))
        if self.job["data"]:
            environment["LAB_DATA"] = self.job["data"]
        output = subprocess.DEVNULL if quiet else None
        self.child = subprocess.Popen(
            command, cwd=self.tree, env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, pass_fds=[lock],
        )  # fmt: skip
        code = self.child.wait()
        self.child = None
        return code if code >= 0 else 128 - code

    def _environment(self) -> str:
        """The Python of the environment, made if it is not there; others wait meanwhile."""
        version = ".".join(platform.python_version_tuple()[:2])
        folder = self.base / "env" / f"{version}-{self.job['environment']}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        python = str(folder / "bin" / "python")
        with open(f"{folder}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (folder / "done").exists():
                return python
            print("making the environment; this takes some minutes, once", flush=True)
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            install += ["-c", "constraints.txt", *self.job["requirements"]]
            for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], install):
                if self._call(command):
                    if self.stopped:
                        raise Stopped
                    raise OSError(f"the environment could not be made: {' '.join(command[:4])} ...")
            (folder / "done").touch()
        return python


SEES_GPU = "import sys, torch; sys.exit(not torch.cuda.is_available())"
NO_CUDA = (
    "error: there is a GPU here (driver {driver}), but this PyTorch cannot use it: the driver is "
    "too old for the CUDA that it was built with. Rent an image with a newer driver, or name a "
    "Python that has a fitting PyTorch: remote.python=/path/to/python"
)


# --- a run ---


def prepare(run: Path) -> dict[str, Any]:
    """Make a run's files from its job on stdin; the answer is the job's `env`, which is on no disk.

    Where SkyPilot has a queue of jobs, `supervise` is started by that.
    """
    job = json.loads(sys.stdin.read())
    variables: dict[str, Any] = job.pop("env")
    tree, base = run / "tree", run.parent.parent
    for name in ("data", "artifacts"):
        (base / name).mkdir(exist_ok=True)
        if not (tree / name).exists():
            (tree / name).symlink_to(base / name)
    job["before"] = sorted(_results(tree))
    (run / "log").touch()
    (run / "lock").touch()
    _write(run / "job.json", json.dumps(job))
    _write(run / "phase", "queued")
    return variables


def start(run: Path) -> dict[str, Any]:
    """Begin a run in a session of its own, so that it outlives the line."""
    variables = prepare(run)
    log = os.open(run / "log", os.O_WRONLY | os.O_APPEND)
    lock = _take(run)
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, "supervise", str(run)],
        env={**os.environ, **variables, "LAB_LOCK": str(lock)}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[lock],
    )  # fmt: skip
    return {"pid": process.pid}


def supervise(run: Path) -> int:
    """What `start` begins, or a job of SkyPilot: the run, and its exit code in a file."""
    if "LAB_LOCK" not in os.environ:
        os.environ["LAB_LOCK"] = str(_take(run))
    _write(run / "pid", str(os.getpid()))
    code = Supervisor(run).work()
    _write(run / "rc", str(code))
    return code


def _take(run: Path) -> int:
    """The lock of a run, held: an open file that its processes inherit."""
    lock = os.open(run / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def follow(run: Path, offset: int) -> None:
    """The log from a byte on, as it grows, until the run has ended or the line is gone."""
    parent = os.getppid()
    with (run / "log").open("rb") as log:
        log.seek(offset)
        while os.getppid() == parent:
            ended = state(run)["state"] not in ALIVE
            while block := log.read(1 << 16):
                sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            if ended:
                return
            time.sleep(0.2)


ALIVE = ("queued", "environment", "running")


def state(run: Path) -> dict[str, Any]:
    """`state` is one of ALIVE, `ended` (with `rc`) or `lost`: it left no exit code."""
    held = _held(run)
    rc, phase = _read(run / "rc"), _read(run / "phase") or "queued"
    waits = held or (phase == "queued" and not rc)
    how = phase if waits else "ended" if rc else "lost"
    log = run / "log"
    return {
        "id": run.name,
        "state": how,
        "rc": int(rc) if rc and not held else None,
        "log_bytes": log.stat().st_size if log.is_file() else 0,
        "progress": _progress(log),
    }


def _progress(log: Path) -> dict[str, Any] | None:
    """The last line of progress in the end of the log."""
    if not log.is_file():
        return None
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = [line for line in file.read().splitlines() if line.startswith(PROGRESS)]
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            found: dict[str, Any] = json.loads(line.removeprefix(PROGRESS))
            return found
    return None


def stop(run: Path) -> dict[str, Any]:
    """Ctrl-C for the run, if it is alive."""
    if (pid := _read(run / "pid")) and _held(run):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGINT)
    return state(run)


def outcome(run: Path) -> dict[str, Any]:
    """What a run made, as paths below its tree: run folders, records, artifacts."""
    tree = run / "tree"
    job = json.loads((run / "job.json").read_text(encoding="utf-8"))
    begun = (run / "job.json").stat().st_mtime
    records = [p for p in tree.glob("artifacts/*/*/record.json") if p.stat().st_mtime >= begun]
    configs = tree.glob("runs/**/.hydra/config.yaml")
    return {
        "runs": sorted(str(path.parents[1].relative_to(tree)) for path in configs),
        "results": sorted(_results(tree) - set(job["before"])),
        "artifacts": sorted(
            str(path.parent.relative_to(tree))
            for path in records
            if not path.parent.name.startswith(".")  # on its way
        ),
    }


def _results(tree: Path) -> set[str]:
    """All records in results/, with the curves beside them."""
    return {str(path.relative_to(tree)) for path in tree.glob("results/**/*.json")}


def _held(run: Path) -> bool:
    """Whether a process of the run is alive."""
    try:
        lock = os.open(run / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def main(verb: str, where: str, *rest: str) -> int:
    """One verb; its answer is a line of JSON after MARK."""
    if verb == "supervise":
        return supervise(Path(where))
    if verb == "follow":
        follow(Path(where), int(rest[0]))
        return 0
    verbs: dict[str, Callable[[Path], dict[str, Any]]] = {
        "prepare": prepare, "start": start, "state": state, "stop": stop, "outcome": outcome,
    }  # fmt: skip
    print(MARK + json.dumps(verbs[verb](Path(where))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
