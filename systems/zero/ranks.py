"""Several processes on this machine that compute together, led by the one that started them.

    with Cluster(4, build) as cluster:       # build(ring, ...) makes a worker in each process
        cluster.call("step", rows)           # worker.step(...) in each; the results, by rank

They talk to each other through gloo on the loopback interface, and to their leader through pipes.
When the leader ends, however it ends, its pipes close and they end too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from labkit import RunFailed
from systems.zero.ring import Ring

SECONDS = 60
"""How long a process waits for a message of another before it gives up."""


class Cluster:
    """`ranks` processes, each with a worker."""

    def __init__(self, ranks: int, build: Callable[..., Any], *arguments: Any) -> None:
        """`build(ring, *arguments)` is called in each process. Raises RunFailed when one fails."""
        # On Linux a fork has the libraries loaded; elsewhere forks are not safe.
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self.folder = tempfile.TemporaryDirectory(prefix="ranks-")
        meeting = str(Path(self.folder.name) / "meeting")
        pipes = [context.Pipe() for _ in range(ranks)]
        self.pipes = [leader for leader, _ in pipes]
        self.processes = []
        for rank in range(ranks):
            # A forked process has the ends of all pipes: it must close those that are not its own.
            others = [c for r, p in enumerate(pipes) for c in p if (r, c) != (rank, p[1])]
            foreign = others if sys.platform == "linux" else []
            target = (pipes[rank][1], foreign, rank, ranks, meeting, build, arguments)
            process = context.Process(target=follow, args=target, daemon=True)
            process.start()
            self.processes.append(process)
        for _, end in pipes:
            end.close()
        self._answers()

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """worker.method(*arguments) in every process."""
        return self.each(method, [arguments] * len(self.pipes))

    def each(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The same with arguments of their own, by rank. Raises RunFailed when one fails."""
        for pipe, own in zip(self.pipes, arguments, strict=True):
            pipe.send((method, own))
        return self._answers()

    def _answers(self) -> list[Any]:
        found = []
        for rank, pipe in enumerate(self.pipes):
            try:
                good, value = pipe.recv()
            except EOFError:
                good, value = False, "it ended without a word"
            if not good:
                self.close()
                raise RunFailed(f"process {rank} has failed: {value}")
            found.append(value)
        return found

    def state_dict(self) -> dict[str, Any]:
        """The worker's state in each process: what a checkpoint keeps."""
        return {str(rank): state for rank, state in enumerate(self.call("state_dict"))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises RunFailed when the checkpoint is of another number of processes."""
        if len(state) != len(self.pipes):
            raise RunFailed(f"the checkpoint is of {len(state)} processes, not {len(self.pipes)}")
        self.each("load_state_dict", [(state[str(r)],) for r in range(len(self.pipes))])

    def close(self) -> None:
        """End the processes."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
                process.join()
        self.folder.cleanup()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def follow(
    pipe: Connection, foreign: Sequence[Connection], rank: int, ranks: int, meeting: str,
    build: Callable[..., Any], arguments: tuple[Any, ...],
) -> None:  # fmt: skip
    """The life of one process: build the worker, then do what the leader says until it is gone."""
    for connection in foreign:
        connection.close()
    for each in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C reaches all; the leader decides
        signal.signal(each, signal.SIG_IGN)
    try:
        worker: Any = None
        method, own = "", ()
        while True:
            try:
                if worker is None:
                    worker, result = build(_meet(rank, ranks, meeting), *arguments), None
                else:
                    method, own = pipe.recv()
                    result = getattr(worker, method)(*own)
                pipe.send((True, result))
                own, result = (), None  # what was said is not the worker's memory
            except (EOFError, BrokenPipeError, ConnectionResetError):
                break
            except Exception as error:
                last = traceback.format_exc().strip().splitlines()[-3:]
                pipe.send((False, f"{type(error).__name__}: {error} ({' / '.join(last)})"))
                break
    finally:
        os._exit(0)  # without what the leader registered for its own end


def _meet(rank: int, ranks: int, meeting: str) -> Ring:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)  # the processes are the parallelism; a fork has no threads anyway
    loopback = "lo" if sys.platform == "linux" else "lo0"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    dist.init_process_group(
        "gloo", init_method=Path(meeting).as_uri(), rank=rank, world_size=ranks,
        timeout=timedelta(seconds=SECONDS),
    )  # fmt: skip
    return Ring(rank, ranks)
