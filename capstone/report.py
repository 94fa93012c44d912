"""The report of a run, written at its end, and again from its folder when asked.

python -m capstone.report                 the run that finished last
python -m capstone.report run=FOLDER      that one
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capstone import card, figures, page, runs
from capstone.stages import RECORD, Chain, Claim, facts, order
from labkit import Run, UsageError, course, files
from labkit.config.words import read_words
from labkit.records import store
from labkit.show import pictures
from labkit.show.console import say

FILE = "report.html"
PLAN = "track.json"
"""In the run's folder: the stages, what they do, need and claim, and what the card says."""
CURVES = ("tune/loss", "align/loss", "align/accuracy")
LIMITS = (
    "anybody's real questions: it knows almost nothing, and its refusals are learned from "
    "generated requests of a few forms"
)
USAGE = """\
Write report.html of a capstone's run again.

usage: python -m capstone.report [run=latest]
"""


def report(run: Run, chain: Chain) -> dict[str, float]:
    """Write the run's report; returns its headline metrics."""
    seconds = {name: row["seconds"] for name, row in facts(chain.home).items()}
    run.note(seconds=seconds)
    if run.writes:
        stages = [
            {
                "name": stage.name, "does": stage.does, "needs": stage.needs,
                "claims": [vars(claim) for claim in stage.claims],
            }
            for stage in chain.stages
        ]  # fmt: skip
        plan = {"stages": stages, "card": about(run)}
        files.write_json(run.dir / PLAN, plan)
        say(f"report: {write(run.dir)}")
    return headline(chain.results)


def headline(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """All metrics of the stages; where two have one of a name, the later stage's counts."""
    return {key: value for metrics in results.values() for key, value in metrics.items()}


def about(run: Run) -> dict[str, Any]:
    """What the model card says of the run, besides numbers."""
    cfg, data = run.cfg, run.data_record or {}
    track = getattr(cfg, "track", "")
    used = ", ".join(str(each["name"]) for each in (data, *data.get("also", [])) if "name" in each)
    said = {
        "track": track, "size": run.size, "seed": run.seed, "data": used,
        "device": str(run.device), "precision": run.precision,
        "intended use": "to learn how the parts fit together, on one's own machine",
        "not for": "anything beside the data above, which is all that was tested",
    }  # fmt: skip
    if track == "alignment":
        said |= {"base": getattr(cfg, "base", ""), "not for": LIMITS}
    return said


def write(folder: Path) -> Path:
    """Write report.html from what is in a finished run's folder.

    Raises UsageError when a stage's folder is missing there.
    """
    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    stages, about = plan["stages"], plan["card"]
    found = facts(folder / "stages")
    needs = {stage["name"]: stage["needs"] for stage in stages}
    if left := order(needs, [name for name in found if name in needs]):
        raise UsageError(f"{folder} lacks the stages {', '.join(left)}; run it again")
    draw(folder)
    claims = {stage["name"]: [Claim(**claim) for claim in stage["claims"]] for stage in stages}
    measured = {name: row["metrics"] for name, row in found.items()}
    records = week_records(folder / "stages")
    rows = card.rows(claims, measured, records)
    does = {stage["name"]: stage["does"] for stage in stages}
    text = page.page(
        f"Capstone: {about['track'].replace('_', ' ')}",
        f"size {about['size']}, seed {about['seed']}, {folder.name}",
        does, {name: row["seconds"] for name, row in found.items()},
        [titled(row, records.get(row.stage)) for row in rows], sections(folder, does), about,
    )  # fmt: skip
    files.write_text(folder / FILE, text)
    return folder / FILE


def week_records(home: Path) -> dict[str, dict[str, Any]]:
    """The records of the weeks' own runs, by the stages that used them."""
    return {file.parent.name: store.read(file) for file in home.glob(f"*/{RECORD}")}


def titled(row: card.Row, record: Mapping[str, Any] | None) -> card.Row:
    """The row with its metric's title and unit: the capstone's, or that of the week whose record
    the stage kept."""
    unit = course.week("capstone")
    if record and row.metric not in {metric.name for metric in unit.metrics}:
        unit = course.week(record["week"].partition(".")[0])
    metric = unit.metric(row.metric)
    return row._replace(metric=f"{metric.title}, {metric.unit}" if metric.unit else metric.title)


def draw(folder: Path) -> None:
    """The pictures that belong to the run as a whole, in samples/."""
    rows = pictures.read_metrics(folder / "metrics.jsonl")
    if any(key in row for row in rows for key in CURVES):
        pictures.save_figure(folder / "samples" / "training.png", figures.curves(rows, CURVES))
    file = folder / "stages" / "judge" / "intervals.json"
    if file.is_file():
        shares = json.loads(file.read_text(encoding="utf-8"))
        pictures.save_figure(folder / "samples" / "safety.png", figures.intervals(shares))


def sections(folder: Path, does: Mapping[str, str]) -> list[page.Section]:
    """The run's pictures, then for each stage its pictures and texts, where it left any."""
    found = []
    if drawn := sorted((folder / "samples").glob("*.png")):
        found.append(page.Section("Training and safety", pictures=drawn))
    for name, text in does.items():
        place = folder / "stages" / name
        shown = [file for file in sorted(place.iterdir()) if file.suffix in page.KINDS]
        texts = {f.stem: f.read_text(encoding="utf-8") for f in sorted(place.glob("*.txt"))}
        if shown or texts:
            found.append(page.Section(name, text, shown, texts))
    return found


@dataclass
class Options:
    """The settings of the command, as text."""

    run: str = "latest"


def main(words: Sequence[str]) -> int:
    """Carry out the command; returns the exit code: 0 done, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    try:
        options = read_words(Options, list(words), "run=latest")
        print(f"wrote {write(runs.find(options.run, PLAN))}")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
