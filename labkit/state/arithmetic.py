"""What affects a run's bits on this machine, and must be the same when it is resumed.

Sums are split among threads, so another number of threads rounds differently: the seventh digit of
a loss, and after a thousand steps the third digit of the result. The number is kept where
possible; otherwise a warning says so.
"""

from __future__ import annotations

import sys
from typing import Any

from labkit.machine import ranks
from labkit.show.console import say, warn


def state() -> dict[str, Any]:
    """Threads and processes that compute here, and the instructions that PyTorch's kernels use."""
    found: dict[str, Any] = {"blas_threads": _blas_threads(), "processes": ranks.world_size()}
    if (torch := sys.modules.get("torch")) is not None:
        found["threads"] = torch.get_num_threads()
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
    return found


def restore(checkpoint: dict[str, Any] | None) -> None:
    """Compute with the threads of a checkpoint (None: nothing is resumed), and say what differs.

    Checkpoints of older versions do not contain it; nothing is done then.
    """
    if checkpoint is None or "machine" not in checkpoint:
        return
    then, here = checkpoint["machine"], state()
    torch = sys.modules.get("torch")
    asked, usual = then.get("threads"), here.get("threads")
    if torch is not None and asked not in (None, usual):
        torch.set_num_threads(asked)
        _say_threads(asked, usual)
    asked, usual = then["blas_threads"], here["blas_threads"]
    if asked not in (None, usual):
        import threadpoolctl

        threadpoolctl.threadpool_limits(asked, user_api="blas")
        if torch is None:
            _say_threads(asked, usual)
    for name, what in (("processes", "processes"), ("instructions", "instruction set")):
        if name in then and name in here and then[name] != here[name]:
            warn(
                f"resumed with another {what} ({here[name]}, before the stop {then[name]}): "
                "the numbers will differ from those of a run that was never stopped"
            )


def _say_threads(asked: int, usual: int | None) -> None:
    say(
        f"computing with {asked} threads, as before the stop, instead of the usual {usual}: "
        "the numbers stay the same"
    )


def _blas_threads() -> int | None:
    """Threads of the BLAS that NumPy has loaded; None where that is unknown."""
    import threadpoolctl

    pools = threadpoolctl.threadpool_info()
    return next((int(pool["num_threads"]) for pool in pools if pool["user_api"] == "blas"), None)
