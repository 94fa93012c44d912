"""Full sizes: what a rehearsal counts, against closed forms; estimates against arithmetic; and that
the files kept fit the settings of today.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from labkit import cli, course, paths
from labkit.config import fields
from labkit.errors import RunFailed, UsageError
from labkit.plan import full, gpus, rehearse
from labkit.plan.full import Full, How
from labkit.plan.live import Live
from labkit.report import full as shown
from labkit.report.grouping import group_by_seed
from labkit.report.pages import render
from labkit.run.entry import entrypoint
from labkit.state import checkpoint
from tests.labkit.made_up import BATCH, HIDDEN, IN, OUT, linear_flops

ROOT = Path(__file__).resolve().parents[2]
REHEARSED = [
    program
    for unit in course.load().units
    if unit.built
    for program in unit.programs
    if full.path_of(program).is_file()
]


# --- bytes of living tensors ---


def test_a_tensor_counts_from_its_making_to_its_end() -> None:
    live = Live()
    start = live.now
    with live:
        x = torch.zeros(1000)
        y = x + 1
        assert live.now - start == 8000
        del y
        assert live.now - start == 4000
        x.mul_(2)
        z = x.view(10, 100).t()
        assert live.now - start == 4000, "a view has no bytes of its own"
        del x, z
    assert live.now == start
    assert live.peak - start == 8000


def test_what_is_there_before_counts_once() -> None:
    x = torch.zeros(500_000)
    same = x.view(2, -1)
    live = Live()
    before = live.now
    with live:
        same.sum()
        x.add_(1)
    assert live.now == before
    assert before >= 2_000_000
    del x, same
    assert live.now == before - 2_000_000


def test_what_autograd_keeps_for_the_backward_pass_counts() -> None:
    rows, width, depth = 4096, 32, 5
    x = torch.randn(rows, width)
    net = nn.Sequential(
        *(layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh()))
    )
    live = Live()
    with live, torch.no_grad():
        net(x)
    forward = live.peak - live.now
    live = Live()
    with live:
        loss = net(x).sum()
        kept, recorded = live.now, live.forward
        loss.backward()
    one = rows * width * 4
    assert kept <= recorded == live.forward <= min(kept + 2 * one, live.peak)
    assert forward <= 2 * one
    # tanh's outputs, one a layer, are what the backward pass needs (linear keeps the same ones).
    assert depth * one <= live.peak - forward <= kept + 4 * one


# --- a whole batch from two smaller ones ---


def test_the_whole_batch_is_on_the_line_through_two_smaller_ones() -> None:
    def seen(share: float) -> dict[str, Any]:
        return {
            "flops": 7 + 1600 * share, "bytes": 3 + 160 * share, "forward": 50 + 320 * share,
            "memory": max(90, 50 + 320 * share), "kernels": 11, "steps": 99,
        }  # fmt: skip

    points = [(1 / 16, seen(1 / 16)), (1 / 8, seen(1 / 8))]
    assert rehearse.at_full(points) == pytest.approx(seen(1.0))
    four = rehearse.at_full(points, parts=4)
    assert four["memory"] == pytest.approx(50 + 320 / 4), "one micro-batch at a time"
    assert four["kernels"] == 44
    assert four["flops"] == pytest.approx(1607)
    assert rehearse.at_full([(1.0, seen(1.0))]) == seen(1.0)


def test_a_larger_batch_that_took_no_more_is_no_line() -> None:
    what = {"flops": 9.0, "bytes": 1.0, "forward": 1.0, "memory": 1.0, "kernels": 3}
    with pytest.raises(RunFailed, match="no line through them to the whole batch"):
        rehearse.at_full([(0.1, what), (0.2, {**what, "flops": 8.0})])


@pytest.fixture
def rehearsed(made_up: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The made-up week, which can also be imported here."""
    monkeypatch.syspath_prepend(str(made_up / "code"))
    monkeypatch.setattr(paths, "CONFIGS", made_up / "code" / "configs")
    return made_up


def test_a_rehearsal_of_a_whole_batch_and_of_parts_of_it(
    rehearsed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(course, "program", lambda key: str(key))
    assert cli.main(["plan", "made_up", "--rehearse"]) == 0
    whole = full.read("made_up")
    assert whole is not None
    assert (whole.steps, whole.how, whole.gpu, whole.data) == (1000, How(), True, ())
    parameters = IN * HIDDEN + HIDDEN + HIDDEN * OUT + OUT
    assert whole.parameters == parameters
    assert whole.flops == pytest.approx(linear_flops(BATCH, IN, HIDDEN, OUT), rel=1e-3)
    # Of SGD without momentum the checkpoint holds the weights: the net's, and the average's.
    assert whole.checkpoint_mb * 1e6 >= 4 * (parameters + IN * OUT + OUT)
    activations = 4 * BATCH * (IN + 2 * HIDDEN + OUT)
    assert whole.memory_mb * 1e6 >= 4 * 2 * parameters + activations
    assert whole.memory_mb < 1
    assert cli.main(["plan", "made_up", "--rehearse", "--scale", "batch_size", "--of", "4"]) == 0
    scaled = full.read("made_up")
    assert scaled is not None
    assert scaled.how == How(("batch_size",), 4)
    for name in ("flops", "bytes"):
        assert getattr(scaled, name) == pytest.approx(getattr(whole, name), rel=0.03), name
    # Without what the backward pass needs for a moment, for which SPARE is.
    assert scaled.memory_mb <= whole.memory_mb <= full.SPARE * scaled.memory_mb
    assert scaled.kernels == whole.kernels
    assert "read back" in capsys.readouterr().err
    left = [path for name in ("home", "scratch") for path in (rehearsed / name).rglob("*")]
    assert [path for path in left if path.is_file()] == []


def test_parts_are_parts_of_what_the_command_says(
    rehearsed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the full size takes all there is, a rehearsal has to say how much that is."""
    seen = {"steps": 1, "parameters": 1, "kernels": 1, "checkpoint": 1, "memory": 1, "data": []}
    ran: list[list[str]] = []

    def process(program: str, looks: int, words: list[str]) -> dict[str, Any]:
        ran.append(words)
        size = int(words[-1].removeprefix("batch_size="))
        return seen | dict.fromkeys(("flops", "bytes", "forward"), 5.0 + size)

    monkeypatch.setattr(rehearse, "_process", process)
    found = rehearse.measure("made_up", How(("batch_size",), 4, words=("batch_size=400",)))
    assert [words[-1] for words in ran] == ["batch_size=100", "batch_size=200"]
    assert found.flops == 405
    assert found.config["batch_size"] == BATCH, "the estimate is of the full size as it stands"


def test_a_full_size_that_does_not_run_is_told(
    rehearsed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(course, "program", lambda key: str(key))
    assert cli.main(["plan", "made_up", "--rehearse", "batch_size=0"]) != 0
    assert not full.path_of("made_up").is_file()
    assert cli.main(["plan", "made_up", "--rehearse", "+size=tiny"]) == 2
    assert "leave size= out" in capsys.readouterr().err
    assert cli.main(["plan", "made_up", "--rehearse", "--scale", "batchsize"]) == 2
    assert "batchsize" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_read_back_fails_the_rehearsal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from labkit.plan.rehearsal import Rehearsal

    run: Any = SimpleNamespace(
        backend="torch", data_record=None, precision="fp32", _log=SimpleNamespace(flush=lambda: 0)
    )
    net = nn.Linear(3, 1)
    before = net.weight.tolist()
    rehearsal = Rehearsal(tmp_path, 4)
    rehearsal.begin(run, 100, {"net": net})
    assert list(rehearsal.chosen(0, 100)) == [1, 12, 37, 62, 87]
    for step in (1, 12, 37, 62):
        rehearsal.before(step)
        assert not rehearsal.after(step)
    rehearsal.before(87)
    assert rehearsal.after(87)
    assert net.weight.tolist() == before
    assert rehearsal.result()["checkpoint"] > 4 * 4
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(checkpoint, "load", lambda file: {"tracked": {"net": {}}})
    with pytest.raises(RunFailed, match="does not fit"):
        rehearsal.before(87)


@pytest.mark.parametrize(("total", "steps"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2])])
def test_short_runs_are_rehearsed_whole(tmp_path: Path, total: int, steps: list[int]) -> None:
    from labkit.plan.rehearsal import Rehearsal

    assert list(Rehearsal(tmp_path, 4).chosen(0, total)) == steps


# --- hours and dollars ---

FULL = Full(
    config={"precision": "auto", "lr": 1.0}, gpu=True, how=How(), steps=3600, parameters=10**6,
    flops=0.35 * 312e12, bytes=1.0, kernels=1.0, memory_mb=40_000.0, checkpoint_mb=12.0,
    data=("mnist",),
)  # fmt: skip


def gpu(name: str) -> gpus.GPU:
    return next(gpu for gpu in gpus.prices().gpus if gpu.name.startswith(name))


def test_time_cost_and_fit() -> None:
    a100 = gpu("A100")
    assert FULL.seconds(a100) == pytest.approx(3600)
    assert FULL.cost(a100) == pytest.approx(a100.usd_per_hour)
    assert FULL.card_mb == full.CONTEXT_MB + full.SPARE * 40_000
    assert not FULL.fits(gpu("RTX"))
    assert FULL.fits(a100)
    fitting = [gpu("A100"), gpu("H100")]
    assert FULL.cheapest() == min(fitting, key=FULL.cost)
    assert dataclasses.replace(FULL, memory_mb=10**6).cheapest() is None


def test_facts_are_kept_and_a_changed_setting_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "CONFIGS", tmp_path)
    assert full.read("week") is None
    how = How(("batch_size",), 8, 2, ("collect.envs=1",))
    full.write("week", dataclasses.replace(FULL, how=how))
    assert full.read("week") == dataclasses.replace(FULL, how=how)
    assert FULL.stale({"precision": "auto", "lr": 1.0, "seed": 3}) == []
    assert FULL.stale({"precision": "fp32", "lr": 1.0, "width": 3}) == ["precision", "width"]
    full.path_of("week").write_text("{")
    with pytest.raises(UsageError, match="lab plan week --rehearse"):
        full.read("week")


def unit(module: str = "diffusion") -> course.Unit:
    return course.load().find(module)


def show(monkeypatch: pytest.MonkeyPatch, its: Full | None) -> tuple[str, str]:
    monkeypatch.setattr(full, "read", lambda program: its if program == "diffusion" else None)
    return shown.full_table(unit()), shown.full_cell(unit(), [])


def test_the_sheet_tells_hours_and_dollars(monkeypatch: pytest.MonkeyPatch) -> None:
    table, cell = show(monkeypatch, FULL)
    row = next(line for line in table.splitlines() if "python -m diffusion.train" in line)
    price = gpu("A100").usd_per_hour
    assert f"60 min, ${price:.2f}" in row
    assert row.count("does not fit") == 2
    assert "mnist" in row
    assert "3,600" in row
    assert "50.6 GB" in row
    assert gpus.prices().date in table
    best = FULL.cheapest()
    assert best is not None
    assert cell.startswith("planned: ")
    assert f"${FULL.cost(best):.2f} ({best.name})" in cell


def test_a_week_that_needs_no_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    table, cell = show(monkeypatch, dataclasses.replace(FULL, gpu=False))
    assert "no GPU" in table
    assert "H100" not in table
    assert cell == "planned: needs no GPU"


def test_a_week_that_was_not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    table, cell = show(monkeypatch, None)
    assert "lab plan diffusion --rehearse" in table
    assert cell == ""


def test_what_was_measured_takes_the_place_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full, "read", lambda program: FULL)
    file = next((ROOT / "results" / "diffusion").glob("tiny-*.json"))
    record = json.loads(file.read_text(encoding="utf-8")) | {"experiment": None, "size": "full"}
    groups = group_by_seed([record])
    assert groups
    cell = shown.full_cell(unit(), groups)
    assert "full" in cell
    assert "planned" not in cell
    tiny = group_by_seed([record | {"size": "tiny"}])
    assert shown.full_cell(unit(), tiny).startswith("planned: ")


# --- the files that are kept ---


@pytest.mark.parametrize("program", REHEARSED)
def test_a_rehearsal_is_of_the_settings_of_today(program: str) -> None:
    its = full.read(program)
    assert its is not None
    now = fields.flat(entrypoint(program).program.config())
    words = f"type: lab plan {program} --rehearse; lab progress --sheets"
    assert its.stale(json.loads(json.dumps(now))) == [], words
    assert its.gpu is entrypoint(program).program.needs_gpu
    if its.gpu:
        assert its.cheapest() is not None, "it fits on a card of the price table"
        assert its.flops > 0


def test_every_sheet_tells_what_the_full_size_needs() -> None:
    generated, _ = render(ROOT)
    for each in (unit for unit in course.load().units if unit.built):
        text = generated[ROOT / each.path / "README.md"]
        if "<!-- full:begin -->" not in text:
            continue
        for program in (name for name in each.programs if name in REHEARSED):
            assert f"`python -m {program}.train`" in text
