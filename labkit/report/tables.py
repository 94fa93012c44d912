"""The tables: progress of the course, results of a week, weeks of the README."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit import course
from labkit.course import Band, Metric, Unit
from labkit.records.machines import Record
from labkit.report.full import full_cell
from labkit.report.grouping import (
    Group,
    _measured,
    _result,
    _size_rank,
    best,
    group_by_seed,
    status,
)
from labkit.report.markdown import link, table
from labkit.report.notes import COLUMNS, STATE, note_key
from labkit.text import duration

ELECTIVE_COLUMNS = ("Elective", "Subject", "Coding Task", "Rests on", *STATE)

RESULT_COLUMNS = (
    "Size", "Data", "Variant", "Metric", "Seeds", "Result", "Band", "Training", "Machine",
)  # fmt: skip

LINE = "<br>"
"""A new line inside a cell."""

WEEK_COLUMNS = ("Week", "Focus", "Task", "Command", "Best tiny result")

PREAMBLE = """\
# Progress

Made from the records in `results/` by `python -m labkit.progress`, which every finished run calls.
Only the Notes column is yours: what you type there stays.

"""


def progress_table(root: Path, records: dict[str, list[Record]], notes: dict[str, str]) -> str:
    """The whole of PROGRESS.md."""
    whole = course.load()
    groups = {unit.package: group_by_seed(records.get(unit.package, [])) for unit in whole.units}
    states = [status(week, groups[week.package]) for week in whole.weeks]
    met = {size: states.count(f"{size} band met") for size in ("tiny", "full")}
    summary = (
        f"Of {len(states)} weeks, {met['full']} met their full band, {met['tiny']} more their tiny "
        f"band, {states.count('ran')} more ran, {states.count('not started')} are not started.\n\n"
    )
    weeks = [
        (
            f"{week.month} {week.month_title}",
            str(week.week),
            link(root, week, week.focus),
            "; ".join(week.papers) or "none",
            week.task,
            state,
            best(week, groups[week.package]),
            full_cell(week, groups[week.package]),
            notes.get(note_key(week), ""),
        )
        for week, state in zip(whole.weeks, states, strict=True)
    ]
    electives = [
        (
            link(root, unit, unit.package),
            unit.focus,
            unit.task,
            ", ".join(unit.prerequisites),
            status(unit, groups[unit.package]),
            best(unit, groups[unit.package]),
            full_cell(unit, groups[unit.package]),
            notes.get(note_key(unit), ""),
        )
        for unit in whole.electives
    ]
    tables = table(COLUMNS, weeks) + "\n## Electives\n\n" + table(ELECTIVE_COLUMNS, electives)
    return PREAMBLE + summary + tables


def results_table(unit: Unit, groups: Sequence[Group]) -> str:
    """A row for each variant that was measured, with its headline metrics (all are in the records);
    bands that no run was compared with yet; guessing; and published numbers.
    """
    rows = []
    labels = _variants(unit, groups)
    order = sorted(range(len(groups)), key=lambda i: _row_order(unit, groups[i], labels[i]))
    for group, label in ((groups[i], labels[i]) for i in order):
        shown = _shown(unit, group)
        if not shown:
            continue
        spent = statistics.fmean(r.get("train_seconds") or 0.0 for r in group.records)
        bands = [
            "; ".join(filter(None, (_band_cell(b, group, m) for b in unit.bands))) for m in shown
        ]
        rows.append(
            (group.size, group.data, label, LINE.join(m.title for m in shown),
             str(len(group.records)), LINE.join(_result(m, group) for m in shown),
             LINE.join(bands), duration(spent), group.machine)
        )  # fmt: skip
    for band in unit.bands:
        if not any(band.applies(group.first) for group in groups):
            where = ", ".join(f"{key}={value}" for key, value in band.where.items())
            title = unit.metric(band.metric).title
            goal = _goal(band)
            rows.append((band.size, band.data, where, title, "0", "not run yet", goal, "", ""))
    for guess in unit.baseline:
        metric = unit.metric(guess.metric)
        value = metric.show(guess.value)
        rows.append(("guessing", guess.data, guess.how, metric.title, "", value, "", "", ""))
    for paper in unit.paper:
        metric = unit.metric(paper.metric)
        known = metric in unit.metrics
        value = metric.show(paper.value) if known else f"{paper.value:g}"
        title = metric.title if known else paper.metric
        rows.append(("published", paper.data, paper.source, title, "", value, "", "", ""))
    return table(RESULT_COLUMNS, rows)


def _shown(unit: Unit, group: Group) -> list[Metric]:
    """The metrics that bands are about for this group; without any, the first one measured."""
    measured = _measured(unit, group)
    about = {band.metric for band in unit.bands if band.applies(group.first)}
    return [metric for metric in measured if metric.name in about] or measured[:1]


def weeks_table(root: Path, records: dict[str, list[Record]]) -> str:
    """The table of weeks for the README of the clone."""
    rows = []
    for week in course.load().weeks:
        groups = group_by_seed(records.get(week.package, []))
        tiny = [group for group in groups if group.size == "tiny"]
        built = (root / week.path / "train.py").is_file()
        command = f"`python -m {week.module}.train +size=tiny`" if built else "to come"
        focus = link(root, week, week.focus)
        rows.append((str(week.number), focus, week.task, command, best(week, tiny)))
    return table(WEEK_COLUMNS, rows)


def _row_order(unit: Unit, group: Group, label: str) -> tuple[Any, ...]:
    """Smallest size first; then as the bands are listed; then by name."""
    places = [i for i, band in enumerate(unit.bands) if band.applies(group.first)]
    place = min(places, default=len(unit.bands))
    return (_size_rank(group.size), place, group.data, label, group.machine)


def _variants(unit: Unit, groups: Sequence[Group]) -> list[str]:
    """How each group differs from the rest: settings named by bands, experiment, other settings."""
    keys = list(dict.fromkeys(key for band in unit.bands for key in band.where))
    labels = []
    for group in groups:
        named = [f"{key}={group.config[key]}" for key in keys if key in group.config]
        labels.append(", ".join([*named, *([group.experiment] if group.experiment else [])]))
    full = []
    for group, label in zip(groups, labels, strict=True):
        same = [
            other.config
            for other, its in zip(groups, labels, strict=True)
            if (other.size, other.data, its) == (group.size, group.data, label)
            and other.first["week"] == group.first["week"]  # parts have settings of their own
        ]
        differing = [
            f"{key}={value}"
            for key, value in sorted(group.config.items())
            if key not in keys and any(config.get(key) != value for config in same)
        ]
        full.append(", ".join(filter(None, [label, *differing])))
    return full


def _goal(band: Band) -> str:
    """The band in words: `≥ 475 on each of 5 seeds`."""
    if band.seeds == 1:
        return band.text
    every = "on each" if band.over == "every" else "mean"
    return f"{band.text} {every} of {band.seeds} seeds"


def _band_cell(band: Band, group: Group, metric: Metric) -> str:
    """Whether the group meets the band; empty when the band is about something else."""
    if band.metric != metric.name or not band.applies(group.first):
        return ""
    verdict = group.verdict(band)
    if verdict is None:
        return f"{_goal(band)}: {len(group.values(band.metric))} so far"
    return f"{_goal(band)}: {'met' if verdict else 'missed'}"
