"""`lab plan <week> [overrides]`: what a run would take, here and on rented GPUs.

The week's own `train` is run for a few steps in a process of its own, at full size even where there
is no GPU, and leaves nothing behind. Measured there: parameters, peak memory, seconds per step, and
for PyTorch weeks the floating-point operations, bytes moved and kernels of one step.

A step on a GPU is then taken to last as long as the slowest of four things:

    arithmetic   FLOPs / (UTILISATION x peak)
    memory       bytes moved / (BANDWIDTH_SHARE x bandwidth)
    launches     kernels x LAUNCH_SECONDS
    Python       what the step spends here outside PyTorch's kernels (environments, NumPy, the loop)

That is an estimate: right to a factor of two or three, good enough to choose a card by.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import paths
from labkit.course import curriculum
from labkit.errors import ProbeDone, RunFailed, UsageError
from labkit.machine import processor, threads
from labkit.machine.device import process_memory_mb
from labkit.report.progress import duration
from labkit.show import console

if TYPE_CHECKING:
    from labkit.run.run import Run

UTILISATION = 0.35
"""Share of a card's peak that training reaches in dense layers of some size."""
BANDWIDTH_SHARE = 0.7
"""Share of the memory bandwidth that plain element-wise kernels reach."""
LAUNCH_SECONDS = 8e-6
"""Time for the host to launch one kernel from PyTorch without compilation."""
FITS = 0.9
"""Share of a card's memory that a run may fill."""
STATE_BYTES = 12
"""Gradient and Adam's two moments, for each parameter."""

PROBE_SECONDS = 10.0
"""After so long no further step is begun; and a step that takes longer is given up."""
TIMED_STEPS = 20
"""Enough steps to time, if they took a second or more in all."""
START_SECONDS = 180.0
"""What loading the data and a step that cannot be given up may take beyond the probing."""
SHRINK = 16
"""A batch too large to probe here is made smaller by this factor, again and again."""


@dataclass(frozen=True)
class Measured:
    """What a probe saw. Of one step: seconds, FLOPs, bytes, kernels, seconds outside kernels."""

    steps: int
    device: str
    precision: str
    asked_precision: str
    batch_size: int | None
    probed_batch_size: int | None
    parameters: int | None
    setup_memory_mb: float
    peak_memory_mb: float
    seconds: float
    timed: int
    kernels: int
    flops: int
    bytes: int
    host_seconds: float
    uses_torch: bool

    def scaled_to(self, batch_size: int) -> Measured:
        """As with a batch that large: all in proportion but kernels, parameters and Python."""
        factor = batch_size / (self.probed_batch_size or batch_size)
        states = STATE_BYTES * (self.parameters or 0) / 1e6
        activations = max(0.0, self.peak_memory_mb - self.setup_memory_mb - states)
        return dataclasses.replace(
            self,
            batch_size=batch_size,
            peak_memory_mb=self.setup_memory_mb + states + activations * factor,
            seconds=self.seconds * factor,
            flops=round(self.flops * factor),
            bytes=round(self.bytes * factor),
        )


@dataclass(frozen=True)
class GPU:
    """One row of prices.yaml."""

    name: str
    usd_per_hour: float
    memory_gb: float
    bandwidth_gbs: float
    tflops_half: float
    tflops_fp32: float
    bf16: bool

    def step(self, probe: Measured) -> tuple[float, str]:
        """Estimated seconds for one step, and which of the four limits it."""
        half = self.bf16 and probe.asked_precision != "fp32"
        peak = 1e12 * (self.tflops_half if half else self.tflops_fp32)
        limits = {
            "arithmetic": probe.flops / (UTILISATION * peak),
            "memory": probe.bytes / (BANDWIDTH_SHARE * self.bandwidth_gbs * 1e9),
            "launches": probe.kernels * LAUNCH_SECONDS,
            "Python": probe.host_seconds,
        }
        slowest = max(limits, key=lambda name: limits[name])
        return limits[slowest], slowest


@dataclass(frozen=True)
class Prices:
    """The price table and where it is from."""

    date: str
    source: str
    gpus: tuple[GPU, ...]


@cache
def prices() -> Prices:
    """Read prices.yaml."""
    import yaml

    raw = yaml.safe_load(Path(__file__).with_name("prices.yaml").read_text(encoding="utf-8"))
    return Prices(str(raw["date"]), raw["source"], tuple(GPU(**gpu) for gpu in raw["gpus"]))


class Probe:
    """Watches the first steps of a run: `run.steps` calls `begin` once, then `before` and `after`.

    The first two steps run under PyTorch's counters (the second is the one that counts, free of
    what is only done once); the steps after them are timed as they are.
    """

    def __init__(self, budget: float = PROBE_SECONDS) -> None:
        self._deadline = time.perf_counter() + budget
        self._budget = budget
        self._stack = ExitStack()
        self._counts = Counts()
        self._step = 0
        self._total = 0
        self._run: Run | None = None
        self._tracked: Mapping[str, Any] = {}
        self._setup_memory_mb = 0.0
        self._mark = 0.0
        self._warm: list[float] = []
        self._times: list[float] = []

    def begin(self, run: Run, total: int, tracked: Mapping[str, Any]) -> None:
        """The loop is about to start: everything is built and tracked. The clock starts here."""
        self._run, self._total, self._tracked = run, total, tracked
        self._deadline = time.perf_counter() + self._budget
        self._setup_memory_mb = memory_mb("VmRSS")
        batch_size = getattr(run.cfg, "batch_size", None)
        print(json.dumps({"batch_size": batch_size, "steps": total}), flush=True)

    def before(self, step: int) -> None:
        """A step starts. Raises ProbeDone from within the step when it takes too long."""
        if len(self._warm) < 2 and "torch" in sys.modules:
            self._counts = Counts()
            self._stack.enter_context(counting(self._counts, self._deadline))
        _synchronize()
        self._mark = time.perf_counter()

    def after(self, step: int) -> bool:
        """A step is over; True when enough has been seen."""
        _synchronize()
        now = time.perf_counter()
        self._stack.close()
        (self._warm if len(self._warm) < 2 else self._times).append(now - self._mark)
        enough = len(self._times) >= TIMED_STEPS and sum(self._times) > 1.0
        last = step + 1 >= self._total
        return enough or last or now > self._deadline

    def result(self) -> Measured:
        """What was seen. Raises RunFailed when not even one step was finished."""
        self._stack.close()
        if self._run is None or not self._warm:
            raise RunFailed("not one step could be finished while probing")
        times = self._times or self._warm[-1:]
        seconds = sum(times) / len(times)
        # A first step imports and allocates: it says nothing of Python's part in the later ones.
        host_seconds = max(0.0, seconds - self._counts.seconds) if self._times else 0.0
        peak_memory_mb = memory_mb("VmHWM")
        torch_loaded = "torch" in sys.modules  # asking a run for its device would load it
        config = self._run.cfg
        batch_size = getattr(config, "batch_size", None)
        return Measured(
            steps=self._total,
            device=str(self._run.device) if torch_loaded else "cpu",
            precision=str(self._run.precision) if torch_loaded else "NumPy",
            asked_precision=config.precision,
            batch_size=batch_size,
            probed_batch_size=batch_size,
            parameters=count_parameters(self._tracked),
            setup_memory_mb=self._setup_memory_mb,
            peak_memory_mb=peak_memory_mb,
            seconds=seconds,
            timed=len(times),
            kernels=self._counts.kernels,
            flops=self._counts.flops,
            bytes=self._counts.bytes,
            host_seconds=host_seconds,
            uses_torch=self._counts.kernels > 0,
        )


@dataclass
class Counts:
    """What PyTorch's dispatcher saw: kernels, bytes of their operands, FLOPs, seconds inside."""

    kernels: int = 0
    bytes: int = 0
    flops: int = 0
    seconds: float = 0.0


def counting(counts: Counts, deadline: float = float("inf")) -> ExitStack:
    """A context in which every PyTorch operation is added to `counts`.

    Views are free and not counted; an operand counts whole, read or written. FLOPs are those of
    matrix products, convolutions and attention, forward and backward, two for each multiply-add.
    Raises ProbeDone from inside an operation once `deadline` (time.perf_counter) has passed.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import (
        FlopCounterMode,
        sdpa_backward_flop_count,
        sdpa_flop_count,
    )

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal deadline
            start = time.perf_counter()
            if start > deadline:
                deadline = float("inf")  # once: cleaning up must be able to compute
                raise ProbeDone
            out = func(*args, **(kwargs or {}))
            if not func.is_view:
                counts.kernels += 1
                counts.bytes += _bytes((args, kwargs, out))
                counts.seconds += time.perf_counter() - start
            return out

    aten = torch.ops.aten
    on_cpu = {  # the only attention kernels without a formula in PyTorch's own table
        aten._scaled_dot_product_flash_attention_for_cpu: _of_shapes(sdpa_flop_count, 3),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _of_shapes(
            sdpa_backward_flop_count, 4
        ),
    }
    flops = FlopCounterMode(display=False, custom_mapping=on_cpu)
    stack = ExitStack()
    stack.callback(lambda: setattr(counts, "flops", flops.get_total_flops()))
    stack.enter_context(Counter())
    stack.enter_context(flops)
    return stack


def _of_shapes(formula: Callable[..., int], operands: int) -> Callable[..., int]:
    """A FLOP formula of the first few shapes, in the form that FlopCounterMode calls."""
    return lambda *shapes, **_: formula(*shapes[:operands])


def _bytes(value: Any) -> int:
    """Bytes of all tensors in a nesting of tuples, lists and dicts."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (tuple, list)) else 0


def count_parameters(tracked: Mapping[str, Any]) -> int | None:
    """Numbers that training changes: what the tracked optimizers hold, else the tracked modules.

    In NumPy weeks, the arrays tracked under the name `model` or `params`. None when there is
    nothing of the kind.
    """
    things = list(_leaves(tracked.values()))
    groups = [group for thing in things for group in getattr(thing, "param_groups", [])]
    held = [parameter for group in groups for parameter in group["params"]]
    held = held or [
        parameter
        for thing in things
        if callable(getattr(thing, "parameters", None))
        for parameter in thing.parameters()
        if parameter.requires_grad
    ]
    if held:
        return sum({id(parameter): int(parameter.numel()) for parameter in held}.values())
    from labkit.state.checkpoint import get_state

    named = [get_state(tracked[name]) for name in ("model", "params") if name in tracked]
    return sum(int(getattr(leaf, "size", 1)) for leaf in _leaves(named)) if named else None


def _leaves(things: Iterable[Any]) -> Iterable[Any]:
    """What nested lists, tuples and dicts hold."""
    for thing in things:
        if isinstance(thing, dict):
            yield from _leaves(thing.values())
        elif isinstance(thing, (list, tuple)):
            yield from _leaves(thing)
        else:
            yield thing


def _synchronize() -> None:
    """Wait until the accelerator has done what it was given."""
    if (torch := sys.modules.get("torch")) is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def memory_mb(which: str) -> float:
    """Memory in MB: of the accelerator where one is used, else of this process.

    `which` is VmRSS (now) or VmHWM (at its peak), in Linux's words.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        now, peak = torch.cuda.memory_reserved, torch.cuda.max_memory_reserved
        return float(peak() if which == "VmHWM" else now()) / 1e6
    return process_memory_mb(which)


def measure(week: str, overrides: Sequence[str]) -> Measured:
    """Probe in a process of its own; with smaller batches where the full one is too much for here.

    Raises UsageError for what the week itself refuses, and RunFailed when nothing could be probed.
    """
    words = [word for word in overrides if not word.lstrip("+").startswith("batch_size=")]
    asked = list(overrides)
    full_batch: int | None = None
    while True:
        lines, errors, code = _probe_process(week, asked)
        began = next((line for line in lines if "batch_size" in line and "steps" in line), {})
        if lines and "seconds" in lines[-1]:
            probe = Measured(**lines[-1])
            return probe.scaled_to(full_batch) if full_batch else probe
        if code == 2:
            raise UsageError(errors)
        batch = began.get("batch_size")
        full_batch = full_batch or batch
        if not isinstance(batch, int) or batch <= 1 or not _too_much(code, errors):
            raise RunFailed(errors or "not one step could be finished while probing")
        asked = [*words, f"batch_size={max(1, batch // SHRINK)}"]
        console.say(f"a batch of {batch} is too much to probe here; trying {asked[-1]}")


TOO_SLOW = 75
"""Exit code of a probe that could not finish one step (EX_TEMPFAIL)."""


def _too_much(code: int, errors: str) -> bool:
    """Whether a probe ended for want of time or memory: given up, killed, or refused memory."""
    refused = ("MemoryError", "out of memory", "can't allocate memory")
    return code == TOO_SLOW or code < 0 or any(words in errors for words in refused)


def _probe_process(week: str, words: Sequence[str]) -> tuple[list[dict[str, Any]], str, int]:
    """JSON lines, error text and exit code of `python -m labkit.plan --probe`."""
    command = [sys.executable, "-m", "labkit.plan", "--probe", week, *words]
    try:
        done = subprocess.run(
            command,
            cwd=paths.ROOT,
            # Compiled graphs would hide their operations from the counters.
            env={**os.environ, "TORCHDYNAMO_DISABLE": "1", "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        out, err, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        out, err, code = _text(error.stdout), _text(error.stderr), TOO_SLOW
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if code == 0:
        sys.stderr.write(err)  # such as a warning that another dataset stands in
    return lines, err.strip().removeprefix("error: "), code


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def plan(week: str, overrides: Sequence[str] = ()) -> int:
    """Probe, and print the plan. Returns the exit code.

    Raises UsageError for an unknown week or setting.
    """
    unit = curriculum.week(week)
    if not unit.built:
        built = ", ".join(u.package for u in curriculum.load().units if u.built)
        raise UsageError(f"{unit.package} is not built yet; built: {built}")
    console.say(f"probing {unit.package} for up to {PROBE_SECONDS:.0f} s ...")
    probe = measure(unit.package, overrides)
    report(unit.package, overrides, probe, _advice(unit.module, overrides, probe))
    return 0


def _advice(week: str, overrides: Sequence[str], probe: Measured) -> list[str]:
    """What would make the run shorter than it is on this machine."""
    from labkit.run import entry, forecast

    request = entry.entrypoint(week).compose(overrides)
    seconds = probe.steps * probe.seconds
    return forecast.words(week, request.size, vars(request.config), None, probe.steps, seconds)[1:]


def report(
    week: str, overrides: Sequence[str], probe: Measured, advice: Sequence[str] = ()
) -> None:
    """Print what was measured, the estimates and what they rest on."""
    from rich.console import Console

    out = Console(highlight=False)
    batch = f" of batch {probe.batch_size:,}" if probe.batch_size else ""
    out.print(f"[bold]{' '.join([week, *overrides])}[/]: {probe.steps:,} steps{batch}\n")
    if probe.batch_size != probe.probed_batch_size:
        out.print(f"[yellow]Probed with batch {probe.probed_batch_size} and scaled up.[/]\n")
    out.print(_measured_table(probe))
    for line in advice:
        out.print(line)
    if not probe.uses_torch:
        out.print("\nThis run computes in NumPy, on the CPU: a rented GPU would not speed it up.")
        return
    out.print(_gpu_table(probe))
    table = prices()
    out.print(
        f"An estimate, to a factor of two or three: the slowest of arithmetic at "
        f"{UTILISATION:.0%} of peak (bf16 where the card has it and precision allows), memory at "
        f"{BANDWIDTH_SHARE:.0%} of bandwidth, {LAUNCH_SECONDS * 1e6:.0f} µs for each kernel, and "
        f"Python as fast as here. The training loop only: setting up, evaluation and sampling come "
        f"on top. Prices of {table.date}: {table.source}; they move, so look before you rent.",
        soft_wrap=False,
    )


def _measured_table(probe: Measured) -> Any:
    """What the probe saw, as a rich table."""
    from rich.table import Table

    table = Table.grid(padding=(0, 3))
    parameters = "not known" if probe.parameters is None else f"{probe.parameters:,}"
    table.add_row("parameters", parameters)
    table.add_row("peak memory", f"{probe.peak_memory_mb / 1000:.2f} GB")
    table.add_row("per step", f"{_short(probe.seconds)} ({probe.timed} timed)")
    if probe.uses_torch:
        table.add_row("", f"{probe.flops:.3g} FLOPs, {probe.kernels:,} kernels")
    kind = f" {processor.instruction_set()}" if probe.device == "cpu" else ""
    here = f"{duration(probe.steps * probe.seconds)} ({probe.device}{kind}, {probe.precision})"
    table.add_row("time here", here)
    return table


def _gpu_table(probe: Measured) -> Any:
    """Estimates for every card of the price table, as a rich table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    columns = ("Rented", "USD/h", "Memory", "Fits", "Per step", "Time", "Cost", "Limited by")
    table = Table(*columns, box=SIMPLE_HEAD)
    for gpu in prices().gpus:
        seconds, limit = gpu.step(probe)
        cost = seconds * probe.steps / 3600 * gpu.usd_per_hour
        fits = "yes" if probe.peak_memory_mb <= FITS * gpu.memory_gb * 1000 else "no"
        table.add_row(
            gpu.name, f"{gpu.usd_per_hour:.2f}", f"{gpu.memory_gb:g} GB", fits,
            _short(seconds), _rough(seconds * probe.steps),
            f"${cost:.2f}" if cost >= 0.01 else "< $0.01", limit,
        )  # fmt: skip
    return table


def _rough(seconds: float) -> str:
    """`57 s`, `20 min`, `3.6 h` or `9.2 days`: no more digits than an estimate bears."""
    for size, name in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return (
                f"{seconds / size:.2g} {name}"
                if seconds < 10 * size
                else f"{seconds / size:.0f} {name}"
            )
    return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"


def _short(seconds: float) -> str:
    """`850 µs`, `12.3 ms` or `1.2 s`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _child(week: str, overrides: Sequence[str]) -> int:
    """The probing process: prints what it measured as JSON on its last line."""
    from labkit.run import entry

    probe = Probe()
    try:
        entry.probe(week, list(overrides), probe)
    except ProbeDone:
        pass
    except UsageError as error:
        console.fail(str(error))
        return 2
    except RunFailed:
        return 1  # the run itself has said why
    try:
        measured = probe.result()
    except RunFailed as error:
        console.fail(str(error))
        return TOO_SLOW
    print(json.dumps(dataclasses.asdict(measured)), flush=True)
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] != "--probe":
        sys.exit("usage: python -m labkit.plan --probe <week> [overrides]\nFor people: lab plan")
    threads.choose()
    sys.exit(_child(sys.argv[2], sys.argv[3:]))
