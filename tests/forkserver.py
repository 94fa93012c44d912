"""Starts commands in forks of one process that has the heavy libraries loaded.

Importing torch, its compiler and matplotlib costs more than most `smoke` runs. So one process per
test worker loads them once, and every command is a fork of it: a process of its own, with its own
environment, folder and exit code. It loads nothing of the lab. All forks of one server hash strings
by the same seed; so the resume check, where that could matter, resumes in a fork of another one.

    python tests/forkserver.py      a request a line on stdin, an answer a line on stdout
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import queue
import random
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SLOW = 180.0
"""Seconds for an answer that needs no work; the first waits for imports, on a busy machine."""
PRELOAD = (
    "torch torch._dynamo torchvision matplotlib.figure matplotlib.backends.backend_agg hydra "
    "hydra.core.config_store numpy safetensors.torch rich.console sklearn.datasets "
    "sklearn.linear_model sklearn.manifold transformers.models.gpt2.modeling_gpt2 peft pydantic"
).split()


class ForkServer:
    """The other end: `run` hands over a command and waits for its end."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        self._late = 0  # answers that nobody waits for any more
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")  # it died

    def run(
        self, command: list[str], folder: Path, env: dict[str, str], seconds: float
    ) -> tuple[int, str]:
        """Exit code (negative for a signal) and output of `python *command`, run in `folder`.

        Raises TimeoutError, after killing it, when it takes longer than `seconds`.
        """
        return self.begin(command, folder, env).wait(seconds)

    def begin(self, command: list[str], folder: Path, env: dict[str, str]) -> Forked:
        """Start `python *command` in `folder`, and do not wait; others can be started beside it."""
        output = folder / f".output-{time.monotonic_ns()}"
        request = {"command": command, "folder": str(folder), "env": env, "output": str(output)}
        return Forked(self, self.ask(request, SLOW), output)

    def ask(self, request: dict[str, Any], seconds: float) -> int:
        """The answer, a number. Raises TimeoutError when there is none within `seconds`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                self._late += 1
                raise TimeoutError(f"no answer within {seconds:g} s") from None
            assert line, "the fork server died"
            if not self._late:
                return int(line)
            self._late -= 1

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:  # what it had to do is done
            self._process.kill()
            self._process.wait()


@dataclass
class Forked:
    """A command at work in a fork."""

    server: ForkServer
    pid: int
    output: Path
    """The file that it prints into."""

    def wait(self, seconds: float) -> tuple[int, str]:
        """Exit code (negative for a signal) and output.

        Raises TimeoutError, after killing it, when it takes longer than `seconds`.
        """
        try:
            code = self.server.ask({"wait": self.pid}, seconds)
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            raise
        text = self.output.read_text(errors="replace")
        self.output.unlink()
        return code, text


def serve() -> dict[str, Any] | None:
    """Answer requests until stdin ends (None); in a fork, return the request that it is to run."""
    for module in PRELOAD:
        __import__(module)
    gc.freeze()  # the forks' collectors leave alone what they all share
    while line := sys.stdin.readline():
        request: dict[str, Any] = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            return request
        print(pid, flush=True)
    return None


def become(request: dict[str, Any]) -> None:
    """Run the request's command here, as `python *command` would in its folder."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["folder"])
    random.seed()
    with contextlib.suppress(KeyError):
        sys.modules["numpy"].random.seed()
    command = request["command"]
    if command[0] == "-m":
        sys.argv, sys.path[0] = command[1:], request["folder"]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")


def main() -> None:
    request = serve()
    if request is None:
        return
    code: Any = 0
    try:
        become(request)
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
        code = 1
    end(code)


def end(code: Any) -> None:
    """Leave as the interpreter would, without taking apart all that the server had loaded: that
    takes half a second, and shows nothing of the command.
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
