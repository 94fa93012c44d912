"""`processes=8`: one model trained by several processes, started by PyTorch's own launcher.

The same as `torchrun --standalone --nproc-per-node=8 -m WEEK.train ...`, with the exit codes of a
run, and time for it to save when it is stopped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from labkit.errors import UsageError
from labkit.machine import processor, ranks
from labkit.run.program import Program

SAVING_SECONDS = 600
"""How long processes that were told to stop may take: one step and one checkpoint."""


def wanted(program: Program, processes: int, multirun: bool = False) -> bool:
    """Whether this process is to start others. Raises UsageError when that is not possible."""
    started = ranks.world_size()
    if processes == 1 or started == processes:
        return False
    if started > 1:
        raise UsageError(
            f"processes={processes}, but torchrun started {started}; leave out processes="
        )
    if not program.distributed:
        raise UsageError(
            f"week {program.week} trains in one process; leave out processes={processes}"
        )
    if multirun:
        raise UsageError("a sweep's runs each have one process; leave out -m or processes=")
    return True


def launch(program: Program, processes: int, words: Sequence[str]) -> int:
    """Run the week in that many processes; returns the exit code of the run.

    Raises UsageError when there are fewer GPUs than processes.
    """
    import torch

    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise UsageError(
            f"processes={processes}: there are only {torch.cuda.device_count()} GPUs here, and "
            f"each process needs one; try processes={torch.cuda.device_count()}"
        )
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    cores = max(1, processor.physical_cores() // processes)
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    os.environ["OMP_NUM_THREADS"] = str(min(cores, int(chosen) if chosen.isdecimal() else cores))
    kept = [word for word in words if not word.lstrip("+").startswith("processes=")]
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id="lab", max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", shutdown_timeout=SAVING_SECONDS,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", f"{program.week}.train", *kept)
    except SignalException:
        return 130
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode in (1, 2, 130) else 1
    return 0
