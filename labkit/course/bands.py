"""What a record says about the bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.course.reader import packages, week


def package_of(week: str) -> str:
    """The unit that a record's `week` belongs to: `pretraining.scaling` is part of `pretraining`,
    `electives.autograd` is `autograd`.
    """
    return week.removeprefix("electives.").partition(".")[0]


def verdicts(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a result record says about the bands: one entry for each band that applies to it.

    A band over several seeds is judged by this run's value alone here; progress.py joins the seeds.
    """
    package = package_of(record["week"])
    if package not in packages() or str(record.get("experiment")).startswith("broken_"):
        return []
    unit, metrics = week(package), record["metrics"]
    return [
        {
            "metric": band.metric,
            "text": unit.goal(band),
            "seeds": band.seeds,
            "value": metrics[band.metric],
            "met": band.verdict(metrics[band.metric]),
        }
        for band in unit.bands
        if band.applies(record) and band.metric in metrics
    ]
