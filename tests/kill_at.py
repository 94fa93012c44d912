"""Run a week's command line, but save a checkpoint before step S and die by SIGKILL before step K.

python tests/kill_at.py S K <module or file> [words]
"""

import os
import runpy
import signal
import sys
from collections.abc import Iterator

from labkit.run.run import Run


def main() -> None:
    save_at, kill_at, target = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    sys.argv = sys.argv[3:]
    original = Run.steps

    def steps(self: Run, total: int) -> Iterator[int]:
        for step in original(self, total):
            if step == save_at:
                self.save()
            if step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield step

    Run.steps = steps  # type: ignore[method-assign]
    if target.endswith(".py"):
        runpy.run_path(target, run_name="__main__")
    else:
        runpy.run_module(target, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
