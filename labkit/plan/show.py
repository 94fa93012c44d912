"""`lab plan <week> [overrides]`: what a run would take, here and on rented GPUs.

The week's own `train` is run for a few steps in a process of its own, at full size even where there
is no GPU, and keeps no files. Measured there: parameters, peak memory, seconds per step, and
for PyTorch weeks the floating-point operations, bytes moved and kernels of one step.

A step on a GPU is then assumed to last as long as the slowest of four parts:

    arithmetic   FLOPs / (UTILISATION x peak)
    memory       bytes moved / (BANDWIDTH_SHARE x bandwidth)
    launches     kernels x LAUNCH_SECONDS
    Python       what the step spends here outside PyTorch's kernels (environments, NumPy, the loop)

That is an estimate: right to a factor of two or three, good enough to choose a card by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labkit import course
from labkit.machine import processor
from labkit.plan.gpus import BANDWIDTH_SHARE, FITS, LAUNCH_SECONDS, UTILISATION, prices
from labkit.plan.measure import measure
from labkit.plan.measured import Measured
from labkit.plan.probe import PROBE_SECONDS
from labkit.show import console
from labkit.text import duration, rough_duration


def plan(week: str, overrides: Sequence[str] = ()) -> int:
    """Probe, and print the plan. Returns the exit code.

    Raises UsageError for an unknown week or setting.
    """
    name = course.program(week)
    console.say(f"probing {name} for up to {PROBE_SECONDS:.0f} s ...")
    probe = measure(name, overrides)
    report(name, overrides, probe, _advice(name, overrides, probe))
    return 0


def _advice(week: str, overrides: Sequence[str], probe: Measured) -> list[str]:
    """What would make the run shorter than it is on this machine."""
    from labkit.config import fields
    from labkit.run import entry, forecast

    request = entry.entrypoint(week).compose(overrides)
    seconds = probe.steps * probe.seconds
    return forecast.words(
        week, request.size, fields.flat(request.config), None, probe.steps, seconds
    )[1:]


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
        f"on top. Prices of {table.date}: {table.source}; they change, so check before you rent.",
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
            _short(seconds), rough_duration(seconds * probe.steps),
            f"${cost:.2f}" if cost >= 0.01 else "< $0.01", limit,
        )  # fmt: skip
    return table


def _short(seconds: float) -> str:
    """`850 µs`, `12.3 ms` or `1.2 s`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
