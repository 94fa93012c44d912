"""What a run claims, what was measured, and the verdict: the table of a model card.

Mitchell et al. 2019, *Model Cards for Model Reporting*, section 4. A card is worth as much as its
missing rows: what was not measured stands in it as not measured, and never as met.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from capstone.stages import Claim
from labkit import course, exercise


class Row(NamedTuple):
    """One line of the table."""

    stage: str
    metric: str
    value: float | None
    """None when it was not measured."""
    band: str
    """In words; empty where nothing is claimed."""
    verdict: str
    """met, missed, not measured; empty where nothing is claimed."""


@exercise(minutes=15)
def verdict(value: float | None, at_least: float | None, at_most: float | None) -> str:
    """How a measured value stands to a band.

    "not measured" when the value is None, NaN or infinite, whatever the band. Otherwise "met" when
    it is at least `at_least` and at most `at_most`, both inclusive, where None is no limit; and
    "missed" when it is not. With no limit at all, "".
    """
    if at_least is None and at_most is None:
        return "" if value is not None and math.isfinite(value) else "not measured"
    if value is None or not math.isfinite(value):
        return "not measured"
    low = at_least is None or value >= at_least
    high = at_most is None or value <= at_most
    return "met" if low and high else "missed"


def limits(
    claim: Claim, record: Mapping[str, Any] | None = None
) -> tuple[float | None, float | None]:
    """The claim's own limits, or those of the first band that its week has for the metric.

    Args:
        record: that of the week's run that was measured, where the week itself has run: then the
            band must be about its size, data and settings. Otherwise one of size tiny is taken.
    Returns:
        At least, at most; none when the week has no such band.
    """
    if claim.at_least is not None or claim.at_most is not None or not claim.week:
        return claim.at_least, claim.at_most
    for band in course.week(claim.week).bands:
        fits = band.applies(record) if record else band.size == "tiny"
        if band.metric == claim.metric and fits:
            return band.at_least, band.at_most
    return None, None


def words(at_least: float | None, at_most: float | None) -> str:
    """A band in words."""
    if at_least is not None and at_least == at_most:
        return f"{at_least:g}"
    low = f"≥ {at_least:g}" if at_least is not None else ""
    high = f"≤ {at_most:g}" if at_most is not None else ""
    return " and ".join(filter(None, (low, high)))


def rows(
    claims: Mapping[str, Sequence[Claim]],
    measured: Mapping[str, Mapping[str, float]],
    records: Mapping[str, Mapping[str, Any]],
) -> list[Row]:
    """The table: stage by stage what was measured, and what was claimed and not measured.

    `records`: for stages in which a week has run, that run's record.
    """
    found = []
    for stage, promised in claims.items():
        values = measured.get(stage, {})
        by_metric = {claim.metric: claim for claim in promised}
        for metric in dict.fromkeys((*values, *by_metric)):
            claim = by_metric.get(metric)
            low, high = limits(claim, records.get(stage)) if claim else (None, None)
            value = values.get(metric)
            found.append(Row(stage, metric, value, words(low, high), verdict(value, low, high)))
    return found
