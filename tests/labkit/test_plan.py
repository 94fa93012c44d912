"""`lab plan`: counts against closed forms, estimates against arithmetic, nothing left behind."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from labkit import course
from labkit.errors import ProbeDone, RunFailed, UsageError
from labkit.machine import processor
from labkit.plan import gpus, measure, show
from labkit.plan.counts import Counts, count_parameters, counting
from labkit.plan.measured import Measured
from labkit.plan.probe import TIMED_STEPS, Probe, memory_mb
from labkit.text import rough_duration
from tests.labkit.made_up import BATCH, HIDDEN, IN, OUT, linear_flops


def test_probe_of_a_week_at_full_size(made_up: Path) -> None:
    found = measure.measure("made_up", [])
    assert found.steps == 1000
    assert found.batch_size == BATCH
    assert found.parameters == IN * HIDDEN + HIDDEN + HIDDEN * OUT + OUT
    assert found.flops == linear_flops(BATCH, IN, HIDDEN, OUT)
    assert found.uses_torch
    assert found.timed >= TIMED_STEPS
    assert 0 < found.seconds < 1
    assert 50 < found.setup_memory_mb <= found.peak_memory_mb < 4000


def test_a_probe_leaves_nothing_behind(made_up: Path) -> None:
    assert measure.measure("made_up", ["+size=tiny"]).steps == 7
    left = [path for name in ("home", "scratch") for path in (made_up / name).rglob("*")]
    assert [path for path in left if path.is_file()] == []
    assert not (made_up / "home" / "results").exists()
    assert not (made_up / "home" / "runs").exists()


@pytest.mark.parametrize(("word", "steps"), [("stop_after=3", 1000), ("steps=1", 1)])
def test_a_loop_shorter_than_the_probe_is_measured(made_up: Path, word: str, steps: int) -> None:
    found = measure.measure("made_up", [word])
    assert found.parameters == IN * HIDDEN + HIDDEN + HIDDEN * OUT + OUT
    assert found.steps == steps
    assert not (made_up / "home" / "results").exists()


def test_overrides_are_checked_as_for_a_run(made_up: Path) -> None:
    with pytest.raises(UsageError, match="did you mean batch_size"):
        measure.measure("made_up", ["batchsize=3"])


@pytest.mark.parametrize("bias", [True, False])
def test_flops_of_a_linear_layer(bias: bool) -> None:
    m, n, k = 64, 48, 32
    layer = nn.Linear(k, n, bias=bias)
    x = torch.randn(m, k, requires_grad=True)
    counts = Counts()
    with counting(counts):
        layer(x).sum().backward()
    assert counts.flops == 2 * m * n * k * 3


def test_flops_of_a_convolution() -> None:
    layer = nn.Conv2d(3, 8, 5, padding=2)
    x = torch.randn(4, 3, 16, 16, requires_grad=True)
    counts = Counts()
    with counting(counts):
        layer(x).sum().backward()
    assert counts.flops == 3 * 2 * (4 * 16 * 16) * 8 * (3 * 5 * 5)


def test_flops_of_attention() -> None:
    batch, heads, length, width = 2, 3, 32, 16
    q, k, v = torch.randn(3, batch, heads, length, width, requires_grad=True)
    one = 2 * batch * heads * length * length * width  # one product of scores with vectors
    counts = Counts()
    with counting(counts):
        nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()
    # Forward two; backward five, for the scores are computed again.
    assert counts.flops == 7 * one


def test_kernels_and_bytes_leave_out_views() -> None:
    x = torch.zeros(1000)
    counts = Counts()
    with counting(counts):
        y = x.view(10, 100).t().unsqueeze(0)
        y.add(1.0)
        x.mul_(2.0)
    assert counts.kernels == 2
    assert counts.bytes == (1000 + 1000) * 4 + (1000 + 1000) * 4
    assert counts.flops == 0


def test_parameters_are_those_that_are_trained_each_once() -> None:
    net = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    net[1].weight = net[0].weight
    head, average = nn.Linear(10, 3), nn.Linear(10, 10)
    one, two = torch.optim.SGD(net.parameters(), 1.0), torch.optim.AdamW(head.parameters())
    assert count_parameters({"net": net, "opts": [one, two], "average": average}) == 100 + 33
    head.bias.requires_grad_(False)
    assert count_parameters({"net": net, "head": head}) == 100 + 30
    assert count_parameters({"rng": np.random.default_rng()}) is None


def test_parameters_of_a_numpy_week() -> None:
    params = {"w1": np.zeros((784, 30)), "b1": np.zeros(30)}
    assert count_parameters({"params": params, "velocity": params}) == 784 * 30 + 30
    model = SimpleNamespace(state_dict=lambda: {"layers": [params, params]})
    assert count_parameters({"model": model}) == 2 * (784 * 30 + 30)


def loop(probe: Probe, total: int, body: Callable[[], None]) -> int:
    """What `run.steps` does with a probe; returns the number of steps taken."""
    cfg = SimpleNamespace(precision="auto", batch_size=BATCH)
    run: Any = SimpleNamespace(cfg=cfg, device="cpu", precision="fp32")
    probe.begin(run, total, {})
    for step in range(total):
        probe.before(step)
        body()
        if probe.after(step):
            return step + 1
    return total


class Clock:
    """A clock that only a step's body moves, so that a busy machine changes nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def test_steps_are_timed_without_the_slow_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    waits = iter([0.3, 0.3, *[0.01] * 1000])
    probe = Probe(budget=5.0)
    taken = loop(probe, 1000, lambda: clock.pass_by(next(waits)))
    found = probe.result()
    assert found.timed == taken - 2 >= TIMED_STEPS
    assert found.seconds == pytest.approx(0.01)
    assert not found.uses_torch
    assert found.host_seconds == found.seconds


def test_probing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert loop(Probe(budget=0.5), 10**9, lambda: clock.pass_by(0.2)) == 3


def test_a_step_too_long_is_given_up_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def slow() -> None:
        x = torch.ones(10)
        while True:
            clock.pass_by(0.1)
            x = x + 1

    probe = Probe(budget=0.35)
    start = clock.now
    with pytest.raises(ProbeDone):
        loop(probe, 10, slow)
    assert clock.now - start == pytest.approx(0.4)
    assert torch.ones(2).sum().item() == 2.0  # nothing raises any more
    with pytest.raises(RunFailed, match="not one step"):
        probe.result()


MEASURED = Measured(
    steps=3600, device="cpu", precision="fp32", asked_precision="auto", batch_size=4,
    probed_batch_size=4, parameters=10**6, setup_memory_mb=500.0, peak_memory_mb=612.0, seconds=2.0,
    timed=5, kernels=100, flops=10**9, bytes=10**6, host_seconds=0.0, uses_torch=True,
)  # fmt: skip


def test_a_batch_too_large_to_probe_is_scaled_up_from_a_smaller_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []

    def process(week: str, words: list[str]) -> tuple[list[dict[str, Any]], str, int]:
        asked.append(list(words))
        batch = 1024 if len(asked) == 1 else int(words[-1].removeprefix("batch_size="))
        began: dict[str, Any] = {"batch_size": batch, "steps": 3600}
        if batch > 4:
            return [began], "killed", -9 if len(asked) == 1 else measure.TOO_SLOW
        return [began, dataclasses.asdict(MEASURED)], "", 0

    monkeypatch.setattr(measure, "_probe_process", process)
    found = measure.measure("made_up", ["+size=tiny", "batch_size=1024"])
    assert asked[1:] == [["+size=tiny", "batch_size=64"], ["+size=tiny", "batch_size=4"]]
    assert (found.batch_size, found.probed_batch_size) == (1024, 4)
    assert found.seconds == 2.0 * 256
    assert found.flops == 256 * 10**9
    assert found.kernels == 100
    # 612 MB = 500 to set up, 12 for the states of 10^6 parameters, 100 that grow with the batch.
    assert found.peak_memory_mb == pytest.approx(500 + 12 + 100 * 256)


def test_a_failure_that_no_smaller_batch_would_mend_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = {"batch_size": 64, "steps": 10}
    monkeypatch.setattr(measure, "_probe_process", lambda *_: ([began], "ValueError: shapes", 1))
    with pytest.raises(RunFailed, match="ValueError: shapes"):
        measure.measure("made_up", [])


def gpu(name: str) -> gpus.GPU:
    return next(gpu for gpu in gpus.prices().gpus if gpu.name == name)


@pytest.mark.parametrize(
    ("name", "changes", "seconds", "limit"),
    [
        ("A100 80GB", {"flops": 312e12}, 1 / 0.35, "arithmetic"),
        ("A100 80GB", {"flops": 19.5e12, "asked_precision": "fp32"}, 1 / 0.35, "arithmetic"),
        ("T4", {"flops": 8.1e12}, 1 / 0.35, "arithmetic"),  # no bf16, so fp32
        ("H100 SXM", {"bytes": 3350e9}, 1 / 0.7, "memory"),
        ("RTX 4090", {"kernels": 10_000}, 0.08, "launches"),
        ("RTX 4090", {"host_seconds": 0.5}, 0.5, "Python"),
    ],
)
def test_a_step_lasts_as_long_as_its_slowest_part(
    name: str, changes: dict[str, Any], seconds: float, limit: str
) -> None:
    probe = dataclasses.replace(MEASURED, kernels=1, flops=1, bytes=1)
    found = gpu(name).step(dataclasses.replace(probe, **changes))
    assert found == (pytest.approx(seconds), limit)


def test_the_price_table_is_dated_and_holds_the_four_cards() -> None:
    table = gpus.prices()
    assert time.strptime(table.date, "%Y-%m")
    assert table.source
    # The makers' data sheets: memory in GB and memory bandwidth in GB/s.
    sheets = {(gpu.name.split()[0], gpu.memory_gb, gpu.bandwidth_gbs) for gpu in table.gpus}
    assert sheets == {("T4", 16, 320), ("RTX", 24, 1008), ("A100", 80, 2039), ("H100", 80, 3350)}
    assert all(0.05 < gpu.usd_per_hour < 20 for gpu in table.gpus)
    assert all(gpu.tflops_half > gpu.tflops_fp32 for gpu in table.gpus)


def test_the_report_states_time_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    # One second a step on the A100, for an hour.
    probe = dataclasses.replace(MEASURED, flops=round(0.35 * 312e12), seconds=20.0)
    show.report("made_up", ["+size=tiny"], probe, ["shorter: steps=9"])
    said = " ".join(capsys.readouterr().out.split())
    assert "made_up +size=tiny: 3,600 steps of batch 4" in said
    assert "parameters 1,000,000" in said
    assert f"time here 20 h (cpu {processor.instruction_set()}, fp32) shorter: steps=9" in said
    price = gpu("A100 80GB").usd_per_hour
    assert f"A100 80GB {price:.2f} 80 GB yes 1 s 60 min ${price:.2f} arithmetic" in said
    assert "estimate" in said
    assert gpus.prices().date in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "< 1 s"), (57.0, "57 s"), (119.0, "119 s"), (1234.0, "21 min"), (13_000.0, "3.6 h"),
        (61_200.0, "17 h"), (800_000.0, "9.3 days"), (8_640_000.0, "100 days"),
    ],
)  # fmt: skip
def test_estimates_claim_no_more_digits_than_they_have(seconds: float, text: str) -> None:
    assert rough_duration(seconds) == text


def test_the_report_of_a_numpy_week_offers_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    show.report("made_up", [], dataclasses.replace(MEASURED, uses_torch=False))
    said = " ".join(capsys.readouterr().out.split())
    assert "computes in NumPy" in said
    assert "H100" not in said


def test_what_does_not_fit_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show.report("made_up", [], dataclasses.replace(MEASURED, peak_memory_mb=20_000.0))
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    fits = {row.split()[0]: " yes " in row for row in rows if " GB " in row and "." in row}
    assert (fits["T4"], fits["RTX"], fits["A100"]) == (False, True, True)


def test_a_week_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean diffusion"):
        show.plan("difusion")
    unbuilt = next((u.package for u in course.load().units if not u.built), None)
    if unbuilt:
        with pytest.raises(UsageError, match="not built yet"):
            show.plan(unbuilt)


def test_memory_is_that_of_this_process_alone() -> None:
    before = memory_mb("VmHWM")
    block = np.ones(60_000_000 // 8)
    assert memory_mb("VmRSS") > 60
    assert memory_mb("VmHWM") >= before
    assert memory_mb("VmHWM") >= block.nbytes / 1e6
    assert json.dumps(before)
