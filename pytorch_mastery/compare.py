"""Two switches that promise speed, measured on this machine: compilation and lower precision.

    python -m pytorch_mastery.compare compile
    python -m pytorch_mastery.compare precision --steps 30

Both train the same CNN twice from the same weights on the same batches. A comparison is useful
only if the results agree, so losses are compared as well as times. The time of the first step is
given separately; the other time is the median over the later steps.
"""

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Measured:
    """One training of a few steps."""

    losses: list[float]
    first_ms: float
    """Time of the first step: compilation, allocation."""
    step_ms: float
    """Median time of the others."""
    weights: "dict[str, Tensor]"


def build(width: int) -> "nn.Module":
    """The CNN, with the same weights each time."""
    import torch

    from pytorch_mastery.model import CNN

    torch.manual_seed(0)
    return CNN(width=width)


def measure(
    model: "nn.Module",
    call: "Callable[[Tensor], Tensor]",
    steps: int,
    batch_size: int,
    device: str = "cpu",
    bf16: bool = False,
) -> Measured:
    """Train `model` through `call` (itself, or itself compiled) for `steps` >= 2 on random images.

    The label is the brightest of ten bands of two rows, so there is something to learn.
    """
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, times = [], []
    for _ in range(steps):
        x = torch.rand(batch_size, 1, 28, 28, generator=generator).to(device)
        y = x[:, 0, :20].reshape(batch_size, 10, -1).mean(dim=2).argmax(dim=1)
        start = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            output = call(x)
        loss = F.cross_entropy(output.float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())  # waits for the GPU, so the time includes the computation
        times.append(1000 * (time.perf_counter() - start))
    weights = {name: p.detach().cpu() for name, p in model.named_parameters()}
    return Measured(losses, times[0], statistics.median(times[1:]), weights)


def compiler() -> str | None:
    """The C++ compiler that torch.compile needs on a CPU, or None."""
    choices = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
    return next((found for name in choices if name and (found := shutil.which(name))), None)


def has_fast_bf16(device: str) -> bool:
    """Whether the hardware multiplies bf16 itself instead of by conversion to fp32."""
    import torch

    from labkit.machine.device import has_native_bf16

    return has_native_bf16(torch.device(device))


def difference(a: Measured, b: Measured) -> float:
    """Largest absolute difference between two parameters of the same name."""
    return max((a.weights[k] - b.weights[k]).abs().max().item() for k in a.weights)


def compare_compile(steps: int, batch_size: int, width: int, device: str) -> int:
    """torch.compile off and on. Returns the exit code: 2 where there is no C++ compiler."""
    if device == "cpu" and compiler() is None:
        print(
            "torch.compile writes C++ for a CPU and found no compiler to build it with.\n"
            "Install one (Debian, Ubuntu: sudo apt install g++; macOS: xcode-select --install),\n"
            "or point the variable CXX at yours."
        )
        return 2
    import torch

    plain = build(width).to(device)
    eager = measure(plain, plain, steps, batch_size, device)
    model = build(width).to(device)
    compiled = measure(model, torch.compile(model), steps, batch_size, device)
    print(f"{'':12} {'first step':>14} {'later steps':>14} {'last loss':>11}")
    for name, m in (("eager", eager), ("compiled", compiled)):
        print(f"{name:12} {m.first_ms:11.1f} ms {m.step_ms:11.2f} ms {m.losses[-1]:11.5f}")
    gap = max(abs(a - b) for a, b in zip(eager.losses, compiled.losses, strict=True))
    print(f"speed, eager over compiled: {eager.step_ms / compiled.step_ms:.2f}")
    print(f"largest difference between two losses: {gap:.1e}")
    saved = eager.step_ms - compiled.step_ms
    if saved > 0:
        print(f"compiling pays back after about {compiled.first_ms / saved:,.0f} steps")
    return 0


def compare_precision(steps: int, batch_size: int, width: int, device: str) -> int:
    """fp32 against bf16 autocast. Returns the exit code 0."""
    runs = {}
    for name, bf16 in (("fp32", False), ("bf16", True)):
        model = build(width).to(device)
        runs[name] = measure(model, model, steps, batch_size, device, bf16)
    if not has_fast_bf16(device):
        print(f"This {device} has no bf16 arithmetic of its own: autocast converts, and is slow.")
    print(f"{'':12} {'a step':>14} {'last loss':>11}   weights")
    for name, m in runs.items():
        kinds = ", ".join(sorted({str(p.dtype) for p in m.weights.values()}))
        print(f"{name:12} {m.step_ms:11.2f} ms {m.losses[-1]:11.5f}   {kinds}")
    print(f"speed, fp32 over bf16: {runs['fp32'].step_ms / runs['bf16'].step_ms:.2f}")
    print(f"largest difference between two parameters: {difference(*runs.values()):.1e}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pytorch_mastery.compare", description="Two switches, measured."
    )
    parser.add_argument("what", choices=["compile", "precision"])
    parser.add_argument("--steps", type=int, default=20, help="of each of the two trainings")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--width", type=int, default=24, help="channels of the first convolution")
    args = parser.parse_args(argv)
    if args.steps < 2 or args.batch_size < 2 or args.width < 1:
        parser.error("--steps and --batch-size must be at least 2, --width at least 1")
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    compare = {"compile": compare_compile, "precision": compare_precision}[args.what]
    return compare(args.steps, args.batch_size, args.width, device)


if __name__ == "__main__":
    raise SystemExit(main())
