"""PROGRESS.md and all tables of measured results, made from the records in results/ alone.

    python -m labkit.progress            write what is out of date
    python -m labkit.progress --check    exit 1 when something is

Only the Notes column of PROGRESS.md is typed by hand, and it survives. In each week's README.md
the table between `<!-- results:begin -->` and `<!-- results:end -->` is made here, and so is the
table of weeks between `<!-- weeks:begin -->` and `<!-- weeks:end -->` in the clone's README.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.config.config import RESUMABLE_CHANGES
from labkit.course import curriculum
from labkit.course.curriculum import SIZES, Band, Metric, Unit, Week
from labkit.records import store
from labkit.show.console import fail, warn

Record = dict[str, Any]

STATE = ("Status", "Best result", "Notes")
COLUMNS = ("Month", "Week", "Focus Area", "Papers to Read", "Coding Task", *STATE)
ELECTIVE_COLUMNS = ("Elective", "Subject", "Coding Task", "Rests on", *STATE)
RESULT_COLUMNS = (
    "Size", "Data", "Variant", "Metric", "Seeds", "Result", "Band", "Training", "Machine",
)  # fmt: skip
WEEK_COLUMNS = ("Week", "Focus", "Task", "Command", "Best tiny result")

NOT_IN_NUMBERS = RESUMABLE_CHANGES | {"seed", "fallback"}
"""Settings in which the records of one group may differ; the data really used may not."""

PREAMBLE = """\
# Progress

Made from the records in `results/` by `python -m labkit.progress`, which every finished run calls.
Only the Notes column is yours: what you type there stays.

"""


@dataclass(frozen=True)
class Group:
    """Finished runs of one unit that differ in nothing but their seed; the latest for each seed."""

    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def size(self) -> str:
        return str(self.first["size"])

    @property
    def data(self) -> str:
        return str((self.first.get("data") or {}).get("name", ""))

    @property
    def experiment(self) -> str:
        return str(self.first.get("experiment") or "")

    @property
    def config(self) -> dict[str, Any]:
        """Settings that all of the group share."""
        config = self.first["config"]
        return {key: value for key, value in config.items() if key not in NOT_IN_NUMBERS}

    @property
    def machine(self) -> str:
        """Its class of machine; with the frequency, which is no part of the class."""
        ghz = (self.first.get("machine") or {}).get("ghz")
        return machine(self.first) + (f", {ghz:g} GHz" if ghz else "")

    def values(self, metric: str) -> dict[int, float]:
        """The metric for each seed that has it."""
        return {r["seed"]: r["metrics"][metric] for r in self.records if metric in r["metrics"]}

    def verdict(self, band: Band) -> bool | None:
        """Whether the band is met; None when it is about something else or seeds are missing."""
        return band.met_by(self.values(band.metric)) if band.applies(self.first) else None


def machine(record: Record) -> str:
    """The class of machine in words: the accelerator, or the processor with its instruction set
    ("AMD EPYC" alone can be one with AVX2 or with AVX512-bf16), cores, and threads where fewer.
    """
    about = record.get("machine") or {}
    name = re.sub(r"\((R|TM)\)|\bCPU\b|@.*$|\d+-Core Processor", "", about.get("name") or "")
    words = [" ".join(name.split())]
    if about.get("device") == "cpu":
        words.append(instructions(record) or "")
        cores = about.get("physical_cores") or about.get("cores")
        words.append(f"{cores} cores" if cores else "")
        threads = about.get("threads")
        if threads and cores and threads != cores:
            words.append(f"{threads} thread{'s' * (threads > 1)}")
    if (record.get("processes") or 1) > 1:
        words.append(f"{record['processes']} processes")
    return ", ".join(filter(None, words))


def instructions(record: Record) -> str | None:
    """The processor's instruction set, so far as the record tells.

    Older ones do not name it. Where precision=auto chose bf16, the processor has bf16; else
    nothing is known.
    """
    about = record.get("machine") or {}
    if "instructions" in about or about.get("device") != "cpu":
        held = about.get("held_back")
        return about.get("instructions") and about["instructions"] + (
            f" ({held} held back)" if held else ""
        )
    chosen = record["config"].get("precision") == "auto" and record.get("precision") == "bf16"
    return "bf16" if chosen else None


def read_records(root: Path) -> tuple[dict[str, list[Record]], list[str]]:
    """Records below root/results by week, oldest first; and a message for each unreadable one."""
    records, damaged = store.read_all(root / "results")
    by_week: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: str(record["started"])):
        by_week.setdefault(curriculum.package_of(record["week"]), []).append(record)
    return by_week, damaged


def group_by_seed(records: Sequence[Record]) -> list[Group]:
    """Records, oldest first, as groups. Failed, interrupted and broken_* runs are left out."""
    seeds: dict[str, dict[int, Record]] = {}
    for record in records:
        if record["ended"] != "finished" or not record["metrics"]:
            continue
        if str(record.get("experiment") or "").startswith("broken_"):
            continue
        one = Group((record,))
        splits = (record.get("data") or {}).get("splits")
        key = [one.size, one.data, splits, one.experiment, one.config, machine(record)]
        seeds.setdefault(json.dumps(key, sort_keys=True), {})[record["seed"]] = record
    return [Group(tuple(found[seed] for seed in sorted(found))) for found in seeds.values()]


def band_verdict(band: Band, groups: Sequence[Group]) -> bool | None:
    """True when some group meets the band, False when it was judged and none does, else None."""
    verdicts = [group.verdict(band) for group in groups]
    return True if True in verdicts else False if False in verdicts else None


def status(unit: Unit, groups: Sequence[Group]) -> str:
    """not started, ran, tiny band met or full band met.

    A size's band is met when one of its bands is and none of those judged is missed.
    """
    for size in reversed(SIZES):
        verdicts = [band_verdict(band, groups) for band in unit.bands if band.size == size]
        if size != "smoke" and True in verdicts and False not in verdicts:
            return f"{size} band met"
    return "ran" if groups else "not started"


def best(unit: Unit, groups: Sequence[Group]) -> str:
    """The best group in words: the largest size first, then bands met, then the value."""
    shown = [(group, *_headline(unit, group)) for group in groups if _measured(unit, group)]
    if not shown:
        return ""

    def rank(row: tuple[Group, Metric, Band | None]) -> tuple[float, ...]:
        group, metric, band = row
        verdict = None if band is None else group.verdict(band)
        place = -unit.bands.index(band) if band else -len(unit.bands)
        mean = statistics.fmean(group.values(metric.name).values())
        sign = 1 if metric.better == "higher" else -1
        return (_size_rank(group.size), verdict is True, verdict is not None, place, sign * mean)

    group, metric, band = max(shown, key=rank)
    where = [f"{key}={value}" for key, value in (band.where if band else {}).items()]
    seeds = [f"{len(group.records)} seeds"] if len(group.records) > 1 else []
    about = ", ".join(filter(None, [group.size, group.data, *where, *seeds]))
    return f"{_result(metric, group)} {metric.title} ({about})"


def _measured(unit: Unit, group: Group) -> list[Metric]:
    """The unit's metrics that the group has, in the curriculum's order; the headline first."""
    return [metric for metric in unit.metrics if group.values(metric.name)]


def _headline(unit: Unit, group: Group) -> tuple[Metric, Band | None]:
    """The metric to quote for a group: the one its first band is about, else its first."""
    measured = _measured(unit, group)
    for band in unit.bands:
        if band.applies(group.first) and group.values(band.metric):
            return unit.metric(band.metric), band
    return measured[0], None


def _result(metric: Metric, group: Group) -> str:
    """Mean ± sample standard deviation over the seeds, or the single value."""
    values = list(group.values(metric.name).values())
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return metric.show(statistics.fmean(values), deviation)


def progress_table(root: Path, records: dict[str, list[Record]], notes: dict[str, str]) -> str:
    """The whole of PROGRESS.md."""
    course = curriculum.load()
    groups = {unit.package: group_by_seed(records.get(unit.package, [])) for unit in course.units}
    states = [status(week, groups[week.package]) for week in course.weeks]
    met = {size: states.count(f"{size} band met") for size in ("tiny", "full")}
    summary = (
        f"Of {len(states)} weeks, {met['full']} met their full band, {met['tiny']} more their tiny "
        f"band, {states.count('ran')} more ran, {states.count('not started')} are not started.\n\n"
    )
    weeks = [
        (
            f"{week.month} {week.month_title}",
            str(week.week),
            _link(root, week, week.focus),
            "; ".join(week.papers) or "none",
            week.task,
            state,
            best(week, groups[week.package]),
            notes.get(_note_key(week), ""),
        )
        for week, state in zip(course.weeks, states, strict=True)
    ]
    electives = [
        (
            _link(root, unit, unit.package),
            unit.focus,
            unit.task,
            ", ".join(unit.prerequisites),
            status(unit, groups[unit.package]),
            best(unit, groups[unit.package]),
            notes.get(_note_key(unit), ""),
        )
        for unit in course.electives
    ]
    tables = table(COLUMNS, weeks) + "\n## Electives\n\n" + table(ELECTIVE_COLUMNS, electives)
    return PREAMBLE + summary + tables


def results_table(unit: Unit, groups: Sequence[Group]) -> str:
    """Measured rows, bands that no run was held against yet, guessing, and published numbers."""
    rows = []
    labels = _variants(unit, groups)
    order = sorted(range(len(groups)), key=lambda i: _row_order(unit, groups[i], labels[i]))
    for group, label in ((groups[i], labels[i]) for i in order):
        for metric in _measured(unit, group):
            seeds = len(group.values(metric.name))
            spent = statistics.fmean(r.get("train_seconds") or 0.0 for r in group.records)
            verdicts = "; ".join(filter(None, (_band_cell(b, group, metric) for b in unit.bands)))
            rows.append(
                (group.size, group.data, label, metric.title, str(seeds), _result(metric, group),
                 verdicts, duration(spent), group.machine)
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


def weeks_table(root: Path, records: dict[str, list[Record]]) -> str:
    """The table of weeks for the README of the clone."""
    rows = []
    for week in curriculum.load().weeks:
        groups = group_by_seed(records.get(week.package, []))
        tiny = [group for group in groups if group.size == "tiny"]
        built = (root / week.path / "train.py").is_file()
        command = f"`python -m {week.module}.train +size=tiny`" if built else "to come"
        focus = _link(root, week, week.focus)
        rows.append((str(week.number), focus, week.task, command, best(week, tiny)))
    return table(WEEK_COLUMNS, rows)


def _row_order(unit: Unit, group: Group, label: str) -> tuple[Any, ...]:
    """Smallest size first; then as the bands are listed; then by name."""
    places = [i for i, band in enumerate(unit.bands) if band.applies(group.first)]
    place = min(places, default=len(unit.bands))
    return (_size_rank(group.size), place, group.data, label, group.machine)


def _size_rank(size: str) -> int:
    """Place on the ladder of sizes; one that a learner made up stands below it."""
    return SIZES.index(size) if size in SIZES else -1


def _variants(unit: Unit, groups: Sequence[Group]) -> list[str]:
    """What tells each group from the others: settings named by bands, experiment, then the rest."""
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
    """How the group stands to the band; empty when the band is about something else."""
    if band.metric != metric.name or not band.applies(group.first):
        return ""
    verdict = group.verdict(band)
    if verdict is None:
        return f"{_goal(band)}: {len(group.values(band.metric))} so far"
    return f"{_goal(band)}: {'met' if verdict else 'missed'}"


def duration(seconds: float) -> str:
    """`4.2 s`, `57 s`, `4 min 30 s`, `2 h 05 min`, `17 h`, `9 days`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 36_000:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{seconds / 3600:.0f} h" if seconds < 360_000 else f"{seconds / 86_400:,.0f} days"


def _link(root: Path, unit: Unit, text: str) -> str:
    """`text`, as a link to the unit's lab sheet where there is one."""
    sheet = f"{unit.path}/README.md"
    return f"[{text}]({sheet})" if (root / sheet).is_file() else text


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; pipes in cells are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(escape(cell) for cell in line)} |\n" for line in lines)


def escape(cell: str) -> str:
    """A cell's text, safe inside a Markdown table."""
    return " ".join(cell.replace("|", r"\|").split())


def split_row(line: str) -> list[str]:
    """Cells of a Markdown table row, pipes still escaped; none when the line is not a row."""
    line = line.strip()
    if not line.startswith("|"):
        return []
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", re.sub(r"(?<!\\)\|$", "", line[1:]))]


def read_notes(text: str) -> dict[str, str]:
    """Notes typed into an existing PROGRESS.md, by `month.week` or elective.

    Columns are found by their header, so they may have been moved. A pipe typed without a backslash
    into the last column is taken as part of the note. A row that is there twice (an unresolved
    merge) keeps both notes.
    """
    header = list(COLUMNS)
    notes: dict[str, str] = {}
    for cells in map(split_row, text.splitlines()):
        if "Notes" in cells and "Status" in cells:
            header = cells
        elif cells and len(cells) >= len(header) and set("".join(cells)) - set(":- "):
            if header[-1] == "Notes" and len(cells) > len(header):
                rest = " | ".join(cells[len(header) - 1 :]).strip(" |")
                cells = [*cells[: len(header) - 1], rest]
            row = dict(zip(header, cells, strict=False))
            key, note = _row_key(row), row.get("Notes", "").replace(r"\|", "|")
            if key and note and note not in notes.get(key, "").split(" / "):
                notes[key] = f"{notes[key]} / {note}" if key in notes else note
    return notes


def _row_key(row: dict[str, str]) -> str:
    """The key of a row's note: `month.week`, or the elective's name out of its link."""
    month = re.match(r"\d+", row.get("Month", ""))
    week = re.match(r"\d+", row.get("Week", ""))
    if month and week:
        return f"{month[0]}.{week[0]}"
    return re.sub(r"^\[([^\]]*)\].*", r"\1", row.get("Elective", ""))


def _note_key(unit: Unit) -> str:
    return f"{unit.month}.{unit.week}" if isinstance(unit, Week) else unit.package


def between(text: str, name: str, body: str) -> str:
    """`text` with the part between the markers of that name replaced; unchanged without them."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    return f"{head}{begin}\n{body}{end}{tail}" if found and closed else text


def render(root: Path) -> tuple[dict[Path, str], list[str]]:
    """Every generated file's proper text, and a message for each record or sheet that could not be
    read. Such a sheet is left as it is: a note in it could be lost otherwise.
    """
    records, faults = read_records(root)
    files: dict[Path, str] = {}

    def make(path: Path, text: Callable[[str], str], create: bool = False) -> None:
        try:
            before = _read(path)
        except (OSError, ValueError) as error:
            faults.append(f"{path} is left as it is: {_why_unreadable(error)}")
            return
        if before or create:
            files[path] = text(before)

    make(
        root / "PROGRESS.md",
        lambda before: progress_table(root, records, read_notes(before)),
        create=True,
    )
    for unit in curriculum.load().units:
        body = results_table(unit, group_by_seed(records.get(unit.package, [])))
        make(root / unit.path / "README.md", partial(between, name="results", body=body))
    make(root / "README.md", partial(between, name="weeks", body=weeks_table(root, records)))
    return files, faults


def _why_unreadable(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text (byte {error.start}); save it as UTF-8 in your editor"
    return str(error)


def refresh(root: Path | None = None) -> list[Path]:
    """Bring all generated files under `root` up to date; the ones that changed are returned.

    Each is written whole or not at all. Files that cannot be read are named in a warning and left
    out: they are no reason for another run to fail.
    """
    root = root or paths.home()
    with _alone(root):
        files, damaged = render(root)
        for message in damaged:
            warn(message)
        changed = [path for path, text in files.items() if text != _read(path)]
        for path in changed:
            _write(path, files[path])
    return changed


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold off other processes: the slower of two runs must not write what it read before."""
    try:
        import fcntl

        handle = os.open(root / "results", os.O_RDONLY)
    except (ImportError, OSError):  # Windows, or no record yet
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> str:
    """Text of a file with plain newlines; empty when it is not there."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _write(path: Path, text: str) -> None:
    """Write atomically, with the newlines that the file had."""
    windows = path.is_file() and b"\r\n" in path.read_bytes()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="\r\n" if windows else "\n")
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):  # a read-only folder has told so already
            unfinished.unlink(missing_ok=True)


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    words = list(sys.argv[1:] if words is None else words)
    if words not in ([], ["--check"]):
        print(__doc__)
        return 0 if words in (["--help"], ["-h"]) else 2
    root = paths.home()
    if not words:
        for path in refresh(root):
            print(f"wrote {path.relative_to(root)}")
        return 0
    files, damaged = render(root)
    stale = [str(p.relative_to(root)) for p, text in files.items() if text != _read(p)]
    for message in damaged:
        fail(message)
    if stale:
        fail(f"out of date: {', '.join(stale)}\nType: python -m labkit.progress")
    return 1 if stale or damaged else 0


if __name__ == "__main__":
    from labkit.cli import main as lab

    sys.exit(lab(["progress", *sys.argv[1:]]))  # which tells faults as messages
