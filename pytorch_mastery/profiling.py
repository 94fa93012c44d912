"""Where a training step spends its time: torch.profiler over a few steps of the CNN.

    python -m pytorch_mastery.profiling --trace trace.json

The table shows each operator's own time (self), without that of the operators it calls. The trace
opens in https://ui.perfetto.dev or in Chrome's about:tracing and shows when each one ran.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.profiler import profile


@dataclass(frozen=True)
class Operator:
    """One line of the table: an operator over all the profiled steps."""

    name: str
    calls: int
    milliseconds: float
    """Self time, on the GPU if there is one."""
    share: float
    """Of the self time of all operators, from 0 to 1."""


def training_step(batch_size: int, width: int, device: str) -> Callable[[], None]:
    """One step of week 3's CNN on random images, as a function that can be called repeatedly."""
    import torch
    import torch.nn.functional as F

    from pytorch_mastery.model import CNN

    torch.manual_seed(0)
    model = CNN(width=width).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.rand(batch_size, 1, 28, 28, device=device)
    y = torch.randint(10, (batch_size,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def profile_steps(step: Callable[[], None], steps: int) -> "profile":
    """Profile `steps` calls, after two that are not counted (allocation, choice of algorithms)."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    for _ in range(2):
        step()
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # kernels run asynchronously: the warm-up must not be counted
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        for _ in range(steps):
            step()
    return recorded


def most_expensive(recorded: "profile", rows: int = 10) -> list[Operator]:
    """The operators with the most self time, the largest first."""
    import torch

    name = f"self_{'device' if torch.cuda.is_available() else 'cpu'}_time_total"
    events = recorded.key_averages()
    total = sum(getattr(e, name) for e in events) or 1.0
    found = [
        Operator(e.key, e.count, getattr(e, name) / 1000, getattr(e, name) / total) for e in events
    ]
    return sorted(found, key=lambda o: -o.milliseconds)[:rows]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pytorch_mastery.profiling", description="Profile a few steps of the CNN."
    )
    parser.add_argument("--steps", type=int, default=5, help="how many are profiled")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--width", type=int, default=24, help="channels of the first convolution")
    parser.add_argument("--trace", type=Path, help="write a Chrome trace (JSON) to this file")
    args = parser.parse_args(argv)
    if min(args.steps, args.batch_size, args.width) < 1:
        parser.error("--steps, --batch-size and --width must be at least 1")
    if args.trace and not args.trace.absolute().parent.is_dir():
        parser.error(f"--trace {args.trace}: there is no folder {args.trace.absolute().parent}")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it logs a missing GPU as an error
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    step = training_step(args.batch_size, args.width, device)
    recorded = profile_steps(step, args.steps)
    print(
        f"{args.steps} steps of {args.batch_size} images on {device}: the most expensive operators"
    )
    print(f"  {'operator':44} {'calls':>6} {'self ms':>9} {'share':>7}")
    for op in most_expensive(recorded):
        print(f"  {op.name[:44]:44} {op.calls:6} {op.milliseconds:9.2f} {op.share:7.1%}")
    if args.trace:
        recorded.export_chrome_trace(str(args.trace))
        print(f"Trace: {args.trace} (open it in https://ui.perfetto.dev)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
