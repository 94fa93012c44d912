"""Steps a second of a week, alone and beside other busy processes, by wait policy and threads.

    python benchmarks/busy.py                                  week 3
    python benchmarks/busy.py diffusion size=tiny data=digits --seconds 20

"as shipped" is OpenMP as PyTorch brings it: threads that wait spin. "passive": they sleep. "ours",
what labkit sets: they spin for some microseconds, then sleep. Wait policy and threads are read when
a process loads OpenMP, so each cell is a process. The busy processes are endless loops in Python.
The machine must be idle otherwise for the first column to mean anything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from labkit.machine import processor, threads
from labkit.plan import probe

SET_HERE = (*threads.OWN, "OMP_NUM_THREADS")
POLICIES: dict[str, dict[str, str]] = {
    "as shipped": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "ours": {},  # filled below
}
threads.choose(POLICIES["ours"])
WARM = 2
"""Steps that are not counted: they load and allocate."""


class Timer:
    """A probe of the step loop that counts steps for some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.done, self.begun = seconds, 0, 0.0

    def begin(self, run: Any, total: int, tracked: Mapping[str, Any]) -> None:
        pass

    def before(self, step: int) -> None:
        if self.done == WARM:
            self.begun = time.perf_counter()

    def after(self, step: int) -> bool:
        self.done += 1
        return self.done > WARM and time.perf_counter() - self.begun > self.seconds

    def rate(self) -> float:
        return (self.done - WARM) / (time.perf_counter() - self.begun)


def cell(week: str, words: Sequence[str], seconds: float) -> None:
    """The process of one cell: prints its steps a second as JSON on the last line."""
    timer = Timer(seconds)
    probe.watch(week, words, timer)
    print(json.dumps(timer.rate()))


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that compute without end."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(args: argparse.Namespace, policy: dict[str, str], count: int) -> float:
    """Steps a second of one cell."""
    kept = {k: v for k, v in os.environ.items() if k not in SET_HERE}
    command = [sys.executable, __file__, "--cell", "--seconds", str(args.seconds)]
    done = subprocess.run(
        [*command, args.week, *args.words],
        env={**kept, **policy, "OMP_NUM_THREADS": str(count), "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("week", nargs="?", default="pytorch_mastery")
    parser.add_argument("words", nargs="*", default=["size=tiny"], help="overrides of the week")
    parser.add_argument("--seconds", type=float, default=6, help="measured time of a cell")
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        cell(args.week, args.words, args.seconds)
        return
    print(
        f"{args.week} {' '.join(args.words)} on {processor.name()}, {processor.instruction_set()}"
    )
    print(f"{'steps a second':<24}{'quiet':>8}{'1 busy':>8}{'2 busy':>8}")
    for cores in sorted({1, processor.physical_cores()}):
        for name, policy in POLICIES.items():
            if cores == 1 and policy:
                continue  # one thread waits for nobody
            row = []
            for others in (0, 1, 2):
                with busy(others):
                    row.append(measure(args, policy, cores))
            label = "1 thread" if cores == 1 else f"{cores} threads, {name}"
            print(f"{label:<24}" + "".join(f"{rate:>8.2f}" for rate in row), flush=True)


if __name__ == "__main__":
    main()
