"""Memory of this process, and how the C library keeps it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def process_memory_mb(which: str = "VmHWM") -> float:
    """Memory of this process in MB (10^6 bytes): VmRSS, now, or VmHWM, at its peak.

    Linux's ru_maxrss cannot be used: a process inherits it from the one that started it. On macOS
    only the peak is known.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024 / 1e6
    if sys.platform == "win32":
        return _windows_memory_mb(which)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _windows_memory_mb(which: str) -> float:
    """The same, asked of Windows: the working set is what VmRSS is on Linux."""
    import psutil  # it comes with accelerate

    sizes: Any = psutil.Process().memory_info()
    return float(sizes.peak_wset if which == "VmHWM" else sizes.wset) / 1e6


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, instead of handing it back and asking for it again each step.

    Tensors above 128 KiB would otherwise be fresh pages every time, which the kernel clears first.
    Elsewhere than on Linux nothing happens.
    """
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, at its greatest value
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-2, 64 << 20)  # M_TOP_PAD
