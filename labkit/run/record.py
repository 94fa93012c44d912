"""The record of a run: what it was, on what, and what came out (see labkit.records)."""

from __future__ import annotations

import time
from typing import Any

from labkit import course
from labkit.config import fields, schema
from labkit.machine import device, memory, ranks
from labkit.records import store, versions
from labkit.run.steps import Steps

NOT_KEPT = {"resume", "logger", "checkpoint_seconds"} | schema.WHERE
"""Settings that do not affect the result."""


def made(run: Steps, metrics: dict[str, float], ended: str) -> dict[str, Any]:
    """The record of `run` as it stands now, with its verdict on each band that applies."""
    kind = run.device.type if run.backend == "torch" else "cpu"
    seconds = run.train_seconds
    record: dict[str, Any] = {
        "schema": store.SCHEMA,
        "week": run.week,
        "size": run.size,
        "experiment": run.experiment,
        "config": {key: v for key, v in fields.flat(run.cfg).items() if key not in NOT_KEPT},
        "seed": run.seed,
        "data": run.data_record,
        "metrics": metrics,
        "machine": device.describe(kind),
        "device": kind,
        "precision": run.precision if run.backend == "torch" else "fp32",
        "processes": ranks.world_size(),
        "steps": run.step,
        "train_seconds": round(seconds, 3),
        "steps_per_second": round(run.step / seconds, 3) if seconds else None,
        "wall_seconds": round(time.perf_counter() - run.started, 3),
        "peak_memory_mb": round(memory.process_memory_mb()),
        "versions": versions.versions(),
        "git": versions.git_state(),
        "started": run.started_at,
        "ended": ended,
    }
    if kind == "cuda":
        import torch

        record["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    if run.notes is not None:
        record["notes"] = run.notes
    record["bands"] = course.verdicts(record)
    return record
