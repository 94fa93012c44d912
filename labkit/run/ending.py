"""What is printed when a run ends: its headline, and what to type next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import course
from labkit.errors import RunFailed
from labkit.text import quoted

if TYPE_CHECKING:
    pass


def headline_of(week: str, metrics: dict[str, float] | None) -> float:
    """The metric that a sweep returns: the first of the curriculum's metrics for the week that was
    reported.

    Raises RunFailed when there is none: a run without its headline number is not a finished run.
    """
    if not metrics:
        raise RunFailed("the run ended without its metrics: run.result({...}) was never called")
    unit = next((unit for unit in course.load().units if unit.module == week), None)
    known = [metric.name for metric in unit.metrics] if unit else list(metrics)
    reported = [name for name in known if name in metrics]
    if not reported:
        raise RunFailed(f"none of the headline metrics of {week} ({', '.join(known)}) was reported")
    return metrics[reported[0]]


def resume_command(week: str, folder: Path | str) -> str:
    """The shell command that resumes a run."""
    where = show_path(folder) if isinstance(folder, Path) else folder
    return f"python -m {week}.train {quoted(f'resume={where}')}"


def show_path(folder: Path) -> str:
    """A path as it is typed from here."""
    return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)


def summary(record: dict[str, Any], folder: Path) -> str:
    """What a person reads at the end of a run."""
    title = f"{record['week']} {record['size']}"
    seconds = record["train_seconds"]
    lines = [f"\n{title}: finished {record['steps']} steps in {seconds:.1f} s of training"]
    lines += [f"  {name:<24} {value:.6g}" for name, value in record["metrics"].items()]
    for band in record["bands"]:
        met = "met" if band["met"] else "NOT met"
        several = f" (one of {band['seeds']} seeds needed)" if band["seeds"] > 1 else ""
        lines.append(f"  band: {band['metric']} {band['text']}: {met}{several}")
    return "\n".join([*lines, f"  files: {show_path(folder)}"])
