"""How long a person waits: `--help`, a mistyped option, and the first training step, for each week.

    python benchmarks/startup.py [runs]

Bars: --help under 1 s, start to first step under 4 s. Wall time of whole processes, median of
`runs` (5) with the range; one start before them, which may compile bytecode, is not counted.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from labkit import course

ROOT = Path(__file__).resolve().parent.parent
WEEKS = [unit.module for unit in course.load().units if unit.built]


def first_step(week: str) -> None:
    """In a process of its own: run the week's command until its loop begins, and leave."""
    import runpy

    from labkit.run.run import Run

    original = Run.steps

    def steps(self: Run, total: int) -> Iterator[int]:
        for _ in original(self, total):
            print(time.time(), flush=True)
            os._exit(0)
        yield from ()

    Run.steps = steps  # type: ignore[method-assign]
    sys.argv = [week, "+size=tiny"]
    runpy.run_module(f"{week}.train", run_name="__main__", alter_sys=True)


def seconds(command: list[str], expected: int) -> float:
    """Wall seconds of a command; or until the time it prints, if it prints one."""
    with tempfile.TemporaryDirectory() as home:
        if (ROOT / "artifacts").is_dir():  # what earlier weeks published is there already
            Path(home, "artifacts").symlink_to(ROOT / "artifacts")
        start = time.time()
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env={**os.environ, "LAB_HOME": home},
            capture_output=True, text=True,
        )  # fmt: skip
        end = time.time()
    if done.returncode != expected:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    last = done.stdout.strip().splitlines()[-1:] or [""]
    return (float(last[0]) if last[0].replace(".", "").isdigit() else end) - start


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"{'week':<24}{'--help':>20}{'mistyped option':>20}{'first step':>20}   seconds")
    for week in WEEKS:
        cells = []
        for command, expected in (
            (["-m", f"{week}.train", "--help"], 0),
            (["-m", f"{week}.train", "+stepz=3"], 2),
            ([__file__, "--first-step", week], 0),
        ):
            times = [seconds(command, expected) for _ in range(runs + 1)][1:]
            cells.append(f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})")
        print(f"{week:<24}" + "".join(f"{cell:>20}" for cell in cells))
    times = [seconds(["-m", "labkit.cli", "list"], 0) for _ in range(runs + 1)][1:]
    print(f"{'lab list':<24}{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--first-step"]:
        first_step(sys.argv[2])
    else:
        main()
