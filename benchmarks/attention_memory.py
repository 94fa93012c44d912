"""Peak memory and time of attention: week 5's naive and tiled, and PyTorch's own, by length.

    python benchmarks/attention_memory.py [--longest 8192] [--heads 2] [--dim 64] [--threads 1]

Forward and backward of one causal layer, batch 1, fp32, at lengths 512, 1024, ... Each case is a
process of its own: it makes its inputs, runs a short length to warm up, sets the kernel's mark of
peak memory back (/proc/self/clear_refs; Linux), runs once, and reports how far the mark rose above
what was resident before; then the median time of three more runs. Beside it stands the count of the
tensors' bytes (attention.memory), which no other process and no allocator can disturb.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BACKENDS = ("naive", "tiled", "sdpa")


def case(backend: Any, length: int, heads: int, dim: int, threads: int) -> dict[str, float]:
    """Seconds, MB that the process grew by at its peak, and MB of tensors counted."""
    import torch
    from torch import Tensor

    from attention.heads import attend
    from attention.memory import measure
    from labkit.machine.memory import process_memory_mb

    torch.set_num_threads(threads)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, causal=True, backend=backend)

    def once(length: int) -> float:
        leaves = [torch.randn(1, heads, length, dim, requires_grad=True) for _ in range(3)]
        begun = time.perf_counter()
        run(*leaves).sum().backward()
        return time.perf_counter() - begun

    once(64)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = process_memory_mb("VmRSS")
    once(length)
    grown = process_memory_mb("VmHWM") - before
    seconds = statistics.median(once(length) for _ in range(3))
    counted = measure(run, *(torch.randn(1, heads, length, dim) for _ in range(3))).peak / 1e6
    return {"seconds": seconds, "grown": grown, "counted": counted}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("longest", 8192), ("heads", 2), ("dim", 64), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        backend, length = args.case
        print(json.dumps(case(backend, int(length), args.heads, args.dim, args.threads)))
        return
    print(f"heads {args.heads}, dim {args.dim}, fp32, causal, threads {args.threads}")
    print(f"{'length':>6}  {'':6}{'seconds':>9}{'peak MB':>10}{'counted MB':>12}")
    length = 512
    while length <= args.longest:
        found = {}
        for backend in BACKENDS:
            words = [f"--{n}={getattr(args, n)}" for n in ("heads", "dim", "threads")]
            done = subprocess.run(
                [sys.executable, __file__, *words, "--case", backend, str(length)],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            found[backend] = cells = json.loads(done.stdout)
            print(
                f"{length:6}  {backend:6}{cells['seconds']:9.3f}{cells['grown']:10.1f}"
                f"{cells['counted']:12.1f}",
                flush=True,
            )
        grown, counted = (
            found["naive"][k] / max(found["tiled"][k], 1e-9) for k in ("grown", "counted")
        )
        print(f"{length:6}  naive over tiled: {grown:.1f} times the memory ({counted:.1f} counted)")
        length *= 2


if __name__ == "__main__":
    main()
