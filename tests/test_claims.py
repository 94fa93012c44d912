"""What the curriculum claims: recorded results are inside their bands, broken experiments break."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from labkit import course
from labkit.records import machines
from labkit.report import grouping
from labkit.run.entry import entrypoint

ROOT = Path(__file__).resolve().parent.parent
BUILT = [u for u in course.load().units if u.built and not getattr(u, "own", False)]
VARIANTS = ("algo", "autoencoder", "env", "method", "objective", "sampler")
"""Settings that a broken experiment may share with its healthy counterpart."""


@cache
def recorded() -> list[dict[str, Any]]:
    """Records kept in git: the lab's own, not those of the person who runs the tests."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    records = [file for file in files if file.endswith(".json") and "/curves/" not in file]
    return [json.loads((ROOT / file).read_text()) for file in records]


def in_time(record: dict[str, Any]) -> bool:
    """Old records, which name no instruction set, are of a processor with bf16."""
    fast = (machines.instructions(record) or "bf16") in ("bf16", "amx")
    return bool(record["train_seconds"] <= (300 if fast else 600))


@pytest.mark.parametrize(
    ("unit", "band"),
    [
        pytest.param(unit, band, id=f"{unit.package}-{band.data}-{band.metric}{band.text}")
        for unit in BUILT
        for band in unit.bands
        if band.size == "tiny"
    ],
)
def test_records_meet_the_tiny_bands(unit: course.Unit, band: course.Band) -> None:
    ours = [r for r in recorded() if course.package_of(r["week"]) == unit.package]
    records = [r for r in ours if band.applies(r)]
    groups = grouping.group_by_seed([r for r in records if r["ended"] == "finished"])
    verdicts = [band.met_by(group.values(band.metric)) for group in groups]
    assert True in verdicts, f"{verdicts} over {len(records)} records"
    assert False not in verdicts, "a band holds on every kind of processor that was tried"
    slow = {r["train_seconds"]: machines.machine(r) for r in records if not in_time(r)}
    assert not slow, "tiny trains for 5 minutes at most with bf16 in hardware, for 10 without"
    assert all(r["peak_memory_mb"] < 4096 for r in records), "tiny fits into 4 GB"


@pytest.mark.parametrize(
    ("unit", "broken"),
    [
        pytest.param(unit, broken, id=f"{unit.package}-{broken.experiment}")
        for unit in BUILT
        for broken in unit.broken
        if broken.size == "smoke"
    ],
)
def test_broken_experiment_shows_its_symptom(
    lab_run: Any, unit: course.Unit, broken: course.Broken
) -> None:
    """The symptom is there with the experiment, and not without it."""
    program = f"{unit.module}.{broken.part}" if broken.part else unit.module
    ill = lab_run(program, "+size=smoke", f"+experiment={broken.experiment}")
    assert ill.record is not None, ill.output
    assert ill.returncode == 0, ill.output
    assert broken.verdict(ill.record["metrics"][broken.metric]), ill.record["metrics"]
    plain = vars(entrypoint(program).compose(["+size=smoke"]).config)
    its = ill.record["config"]
    variant = [f"{k}={its[k]}" for k in VARIANTS if k in its and its[k] != plain[k]]
    well = lab_run.once(program, "+size=smoke", *variant)
    assert well.record is not None, well.output
    assert not broken.verdict(well.record["metrics"][broken.metric]), well.record["metrics"]


@pytest.mark.parametrize("unit", BUILT, ids=lambda unit: unit.package)
def test_every_built_week_has_two_broken_experiments(unit: course.Unit) -> None:
    folders = [ROOT / "configs" / program for program in unit.programs]
    files = {p.stem for folder in folders for p in folder.glob("experiment/broken_*.yaml")}
    assert len(files) >= 2
    assert files == {broken.experiment for broken in unit.broken}, "each with its symptom on record"
