"""How many threads compute, and how they wait: chosen before a numeric library is loaded.

OpenMP's threads wait for each other by spinning, as the libraries ship it. With one other busy
process the spinning takes the core that the awaited thread needs, and a run becomes several times
slower. With the passive policy waiting threads sleep; a short spin before, about as long as waking
a thread takes, costs nothing then and helps small matrices. `benchmarks/busy.py` measures all
three, quiet and busy.

libgomp reads its variables when it is loaded, so `choose` comes before torch is imported. What is
already set is kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

from labkit.machine import processor

COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables for the number of threads; the libraries look at the first where theirs is not set."""

SPINS = 1000
"""Turns of libgomp's waiting loop before a thread sleeps: some 20 µs. As shipped it is 300,000 or
more, milliseconds; from 20,000 on a busy machine is several times slower."""
OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which a person chooses how threads wait (GNU's OpenMP and LLVM's)."""


def choose(environment: MutableMapping[str, str] = os.environ) -> None:
    """Short spins before sleep, and a thread for each physical core; what is already set is kept.

    Two threads on one core share its arithmetic: they only wait for each other.
    """
    if not set(OWN) & environment.keys():
        environment.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT=str(SPINS))
    environment.setdefault("OMP_NUM_THREADS", str(processor.physical_cores()))


def in_use() -> int:
    """Threads of a matrix product in this process: PyTorch's, or NumPy's where torch is not
    loaded.
    """
    if (torch := sys.modules.get("torch")) is not None:
        return int(torch.get_num_threads())
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info()), default=1)
