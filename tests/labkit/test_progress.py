"""PROGRESS.md and the tables, from made-up records in a folder of their own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from labkit import cli
from labkit.report import grouping, pages
from labkit.text import duration

ROOT = Path(__file__).resolve().parents[2]


class Clone:
    """A folder with results/, and what labkit makes of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.written = 0

    def add(self, week: str = "neural_networks", value: float = 98.5, **changes: Any) -> Path:
        """Write one record; later calls are later runs."""
        self.written += 1
        seed = changes.pop("seed", 0)
        config = {"lr": 0.1, "data": "mnist", "seed": seed, **changes.pop("config", {})}
        data = changes.pop("data", "mnist")
        record = {
            "schema": 1, "week": week, "size": "tiny", "experiment": None, "config": config,
            "seed": seed, "data": {"name": data, "requested": "mnist", "splits": {"train": 60000}},
            "metrics": {"test_accuracy": value}, "bands": [], "device": "cpu", "processes": 1,
            "machine": {"device": "cpu", "name": "Some(R) CPU 3000 @ 2.5GHz", "cores": 2},
            "train_seconds": 4.2, "started": f"2026-01-01T00:00:{self.written:02d}+00:00",
            "ended": "finished", **changes,
        }  # fmt: skip
        path = self.root / "results" / week / f"{record['size']}-{self.written:03d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
        return path

    @property
    def file(self) -> Path:
        return self.root / "PROGRESS.md"

    def row(self, focus: str = "Neural Networks Basics") -> dict[str, str]:
        """The cells of one week's row by column, after regenerating."""
        pages.refresh(self.root, sheets=True)
        lines = [line for line in self.file.read_text().splitlines() if line.startswith("|")]
        header = [cell.strip() for cell in lines[0].strip("|").split("|")]
        line = next(line for line in lines if focus in line)
        return dict(zip(header, (cell.strip() for cell in line[1:-1].split(" | ")), strict=True))

    def status(self, focus: str = "Neural Networks Basics") -> str:
        return self.row(focus)["Status"]

    def note(self, text: str, focus: str = "Neural Networks Basics") -> None:
        """Type `text` into the Notes cell as a person does in an editor."""
        lines = self.file.read_text().splitlines(keepends=True)
        place = next(i for i, line in enumerate(lines) if focus in line)
        lines[place] = lines[place].removesuffix("|  |\n").removesuffix("| |\n") + f"| {text} |\n"
        self.file.write_text("".join(lines))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_columns_are_those_of_the_syllabus_plus_best_result(clone: Clone) -> None:
    row = clone.row()
    assert list(row) == [
        "Month", "Week", "Focus Area", "Papers to Read", "Coding Task", "Status", "Best result",
        "Full size", "Notes",
    ]  # fmt: skip
    assert (row["Month"], row["Week"]) == ("1 Foundations", "2")
    assert row["Coding Task"] == "2-layer MLP on MNIST in NumPy"


def test_without_records_nothing_is_started(clone: Clone) -> None:
    pages.refresh(clone.root, sheets=True)
    text = clone.file.read_text()
    assert text.count("| not started |") == 30  # 24 weeks and 6 electives
    assert "met |" not in text


def test_status_climbs_with_the_records(clone: Clone) -> None:
    assert clone.status() == "not started"
    clone.add(size="smoke", value=30.0, data="digits")
    assert clone.status() == "ran"
    clone.add(seed=0, value=98.4)
    clone.add(seed=1, value=98.4)
    assert clone.status() == "ran", "the band needs three seeds"
    clone.add(seed=2, value=98.4)
    assert clone.status() == "tiny band met"
    for seed in range(10):
        clone.add(size="full", seed=seed, value=99.0)
    assert clone.status() == "full band met"


@pytest.mark.parametrize("changes", [{"ended": "failed"}, {"ended": "interrupted"}])
def test_a_run_that_did_not_finish_is_no_run(clone: Clone, changes: dict[str, str]) -> None:
    for seed in range(3):
        clone.add(seed=seed, **changes)
    assert clone.status() == "not started"


def test_a_band_over_the_mean_forgives_one_seed(clone: Clone) -> None:
    for seed, value in enumerate([98.2, 98.4, 98.4]):
        clone.add(seed=seed, value=value)
    assert clone.status() == "tiny band met"


def test_a_band_over_every_seed_does_not(clone: Clone) -> None:
    ppo = {"week": "reinforcement_learning", "data": "CartPole-v1", "config": {"algo": "ppo"}}
    for seed in range(5):
        clone.add(**ppo, seed=seed, metrics={"return": 474.0 if seed == 3 else 500.0})
    assert clone.status("RL Basics") == "ran"
    clone.add(**ppo, seed=3, metrics={"return": 480.0})
    assert clone.status("RL Basics") == "tiny band met", "the latest record of a seed counts"


def test_one_missed_band_holds_the_status_back(clone: Clone) -> None:
    diffusion: dict[str, Any] = {"week": "diffusion"}
    flow = {"objective": "flow", "autoencoder": "none"}
    clone.add(**diffusion, config=flow, metrics={"fid_ratio": 7.0})
    assert clone.status("Diffusion Models") == "tiny band met"
    clone.add(**diffusion, config={"objective": "eps"}, metrics={"fid_ratio": 50.0})
    assert clone.status("Diffusion Models") == "ran"
    clone.add(**diffusion, config={"objective": "eps", "lr": 0.2}, metrics={"fid_ratio": 30.0})
    assert clone.status("Diffusion Models") == "tiny band met"


@pytest.mark.parametrize(
    ("machine", "changes", "expected"),
    [
        ({"cores": 2}, {}, "Some 3000, 2 cores"),
        # An old record: precision=auto takes bf16 only where the processor has it.
        ({"cores": 2}, {"precision": "bf16", "config": {"precision": "auto"}},
         "Some 3000, bf16, 2 cores"),
        ({"cores": 2}, {"precision": "bf16", "config": {"precision": "bf16"}},
         "Some 3000, 2 cores"),
        ({"cores": 2}, {"precision": "fp32", "config": {"precision": "auto"}},
         "Some 3000, 2 cores"),
        (
            {"cores": 16, "physical_cores": 8, "threads": 8, "instructions": "avx2", "ghz": 4.2},
            {"precision": "fp32"},
            "Some 3000, avx2, 8 cores, 4.2 GHz",
        ),
        (
            {"cores": 2, "physical_cores": 2, "threads": 1, "instructions": "amx", "ghz": None},
            {"processes": 2},
            "Some 3000, amx, 2 cores, 1 thread, 2 processes",
        ),
        (
            {"cores": 2, "instructions": "avx2", "held_back": "bf16"},
            {},
            "Some 3000, avx2 (bf16 held back), 2 cores",
        ),
        ({"cores": 2, "instructions": None}, {}, "Some 3000, 2 cores"),
        ({"device": "cuda", "name": "NVIDIA H100", "cores": 9, "instructions": "avx2"}, {},
         "NVIDIA H100"),
    ],
)  # fmt: skip
def test_a_row_says_what_makes_a_machine_fast(
    clone: Clone, machine: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    about = {"device": "cpu", "name": "Some(R) CPU 3000 @ 2.5GHz", **machine}
    clone.add(machine=about, **changes)
    records, damaged = grouping.read_records(clone.root)
    assert not damaged
    (group,) = grouping.group_by_seed(records["neural_networks"])
    assert group.machine == expected


def test_another_instruction_set_is_another_machine_and_another_frequency_is_not(
    clone: Clone,
) -> None:
    for seed, (isa, ghz) in enumerate([("avx2", 2.5), ("avx2", 2.6), ("bf16", 2.6)]):
        about = {"device": "cpu", "name": "AMD EPYC", "cores": 2, "instructions": isa, "ghz": ghz}
        clone.add(seed=seed, machine=about)
    records, _ = grouping.read_records(clone.root)
    groups = grouping.group_by_seed(records["neural_networks"])
    assert sorted(len(group.records) for group in groups) == [1, 2]


def test_seeds_of_different_settings_data_or_machines_are_not_mixed(clone: Clone) -> None:
    clone.add(seed=0)
    clone.add(seed=1, config={"lr": 0.2})
    clone.add(seed=2, data="digits")
    clone.add(seed=3, size="smoke")
    gpu = {"device": "cuda", "name": "NVIDIA X", "cores": 2}
    clone.add(seed=4, machine=gpu)
    clone.add(seed=5)
    assert clone.status() == "ran"
    clone.add(seed=6, config={"logger": ["wandb"], "checkpoint_seconds": 5.0, "device": "cpu"})
    assert clone.status() == "tiny band met", "plumbing does not make another group"


def test_settings_of_a_method_that_was_not_used_do_not_tell_groups_apart() -> None:
    def vae(seed: int, **settings: Any) -> dict[str, Any]:
        return {
            "week": "generative_models", "size": "tiny", "seed": seed, "ended": "finished",
            "metrics": {"neg_elbo": 99.0}, "data": {"name": "mnist"}, "device": "cpu",
            "config": {"method": "vae", "vae.beta": 1.0, "gan.r1": 0.0, **settings},
        }  # fmt: skip

    (both,) = grouping.group_by_seed([vae(0), vae(1, **{"gan.r1": 1.0})])
    assert sorted(both.values("neg_elbo")) == [0, 1]
    assert "gan.r1" not in both.config
    assert len(grouping.group_by_seed([vae(0), vae(1, **{"vae.beta": 4.0})])) == 2
    gans = [vae(0, method="gan"), vae(1, method="gan", **{"gan.r1": 1.0})]
    assert len(grouping.group_by_seed(gans)) == 2


def test_best_result_is_mean_and_deviation_over_seeds(clone: Clone) -> None:
    values = [98.31, 98.52, 98.40]
    for seed, value in enumerate(values):
        clone.add(seed=seed, value=value)
    clone.add(value=99.9, config={"lr": 0.5})  # one lucky seed is not the best result
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    assert clone.row()["Best result"] == (
        f"{mean:.2f} ± {deviation:.2f} % test accuracy (tiny, mnist, 3 seeds)"
    )


def test_best_result_of_a_metric_where_less_is_better(clone: Clone) -> None:
    for value in (7.5, 6.5, 7.0):
        settings = {"objective": "flow", "lr": value}
        clone.add("diffusion", config=settings, metrics={"fid_ratio": value})
    assert clone.row("Diffusion Models")["Best result"].startswith("6.5 × ")


def test_broken_experiments_count_for_nothing(clone: Clone) -> None:
    for seed in range(3):
        clone.add(seed=seed, value=99.9, experiment="broken_leak")
    row = clone.row()
    assert (row["Status"], row["Best result"]) == ("not started", "")


@pytest.mark.parametrize(
    "note",
    [
        "took two evenings",
        r"loss \| accuracy, see `a \| b`",
        "[my log](notes.md) — *hard*, 98.3 %",
        r"a path\here ends in \ ",
        "naïve, 难, 🙂",
    ],
)
def test_a_note_survives(clone: Clone, note: str) -> None:
    pages.refresh(clone.root, sheets=True)
    clone.note(note)
    for seed in range(3):
        clone.add(seed=seed)
        pages.refresh(clone.root, sheets=True)
    line = next(x for x in clone.file.read_text().splitlines() if "Neural Networks Basics" in x)
    assert line.endswith(f"| {note.strip()} |")
    assert "tiny band met" in line


def test_a_pipe_typed_bare_becomes_part_of_the_note(clone: Clone) -> None:
    pages.refresh(clone.root, sheets=True)
    clone.note("lr 0.1 | 0.2 both work")
    assert "Neural" in clone.row()["Focus Area"]
    assert r"| lr 0.1 \| 0.2 both work |" in clone.file.read_text()
    before = clone.file.read_text()
    assert pages.refresh(clone.root, sheets=True) == []
    assert clone.file.read_text() == before


def test_notes_of_weeks_and_electives_stay_with_their_rows(clone: Clone) -> None:
    pages.refresh(clone.root, sheets=True)
    clone.note("second week of month 1")
    clone.note("second week of month 3", "Diffusion Models")
    clone.note("an elective", "Game theory")
    clone.add("game_theory", metrics={"exploitability": 0.01}, data="leduc")
    assert clone.row()["Notes"] == "second week of month 1"
    assert clone.row("Diffusion Models")["Notes"] == "second week of month 3"
    assert "| an elective |" in clone.file.read_text()


def test_notes_survive_moved_columns_and_merge_conflicts(clone: Clone) -> None:
    clone.file.write_text(
        "<<<<<<< HEAD\n"
        "| Notes | Status | Month | Week |\n|---|:-:|---|---|\n"
        "| mine | ran | 1 Foundations | 2 |\n"
        "=======\n"
        "| yours | ran | 1 Foundations | 2 |\n"
        ">>>>>>> other\n"
    )
    assert clone.row()["Notes"] == "mine / yours"


def test_output_does_not_depend_on_when_or_in_which_order(clone: Clone, tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        clone.add(seed=seed, value=98.0 + seed)
    clone.add(config={"lr": 0.3})
    pages.refresh(clone.root, sheets=True)
    other = tmp_path / "other"
    for path in sorted(clone.root.glob("results/*/*.json"), reverse=True):
        copy = other / path.relative_to(clone.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        os.utime(copy, (0, 0))
    pages.refresh(other, sheets=True)
    assert (other / "PROGRESS.md").read_bytes() == clone.file.read_bytes()


def test_untouched_files_are_not_rewritten_and_nothing_else_is_left(clone: Clone) -> None:
    clone.add()
    assert pages.refresh(clone.root, sheets=True) == [clone.file]
    before = clone.file.stat()
    assert pages.refresh(clone.root, sheets=True) == []
    assert clone.file.stat().st_mtime_ns == before.st_mtime_ns
    assert clone.file.stat().st_ino == before.st_ino
    assert sorted(path.name for path in clone.root.iterdir()) == ["PROGRESS.md", "results"]


def test_a_failed_write_leaves_the_old_file(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    pages.refresh(clone.root, sheets=True)
    before = clone.file.read_text()
    clone.add()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        pages.refresh(clone.root, sheets=True)
    assert clone.file.read_text() == before
    assert sorted(path.name for path in clone.root.iterdir()) == ["PROGRESS.md", "results"]


def test_windows_newlines_are_kept(clone: Clone) -> None:
    pages.refresh(clone.root, sheets=True)
    clone.file.write_bytes(clone.file.read_bytes().replace(b"\n", b"\r\n"))
    assert pages.refresh(clone.root, sheets=True) == []
    clone.add()
    assert pages.refresh(clone.root, sheets=True) == [clone.file]
    text = clone.file.read_bytes()
    assert text.count(b"\r\n") == text.count(b"\n") > 30


def command(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m labkit.progress` on that folder."""
    return subprocess.run(
        [sys.executable, "-m", "labkit.progress", *words],
        cwd=ROOT, env={**os.environ, "LAB_HOME": str(root), "NO_COLOR": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_another_encoding_is_said_and_the_file_left_alone(
    clone: Clone, encoding: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note that was typed in another encoding is not lost, and the other files are made."""
    clone.add()
    pages.refresh(clone.root, sheets=True)
    clone.note("déjà vu")
    clone.file.write_bytes(clone.file.read_text(encoding="utf-8").encode(encoding, "replace"))
    (clone.root / "README.md").write_text("<!-- weeks:begin -->\n<!-- weeks:end -->\n")
    before = clone.file.read_bytes()
    monkeypatch.setenv("LAB_HOME", str(clone.root))
    assert cli.main(["progress", "--sheets"]) == 0
    assert "PROGRESS.md is left as it is: it is not UTF-8 text" in capsys.readouterr().err
    assert clone.file.read_bytes() == before
    assert "98.50 %" in (clone.root / "README.md").read_text(encoding="utf-8")
    assert cli.main(["progress", "--check"]) == 1
    assert "save it as UTF-8" in capsys.readouterr().err


def test_check_fails_when_stale_and_says_what_to_type(clone: Clone) -> None:
    clone.add()
    stale = command(clone.root, "--check")
    assert stale.returncode == 1
    assert "PROGRESS.md" in stale.stderr
    assert "Type: lab progress --sheets" in stale.stderr
    assert not clone.file.exists(), "--check writes nothing"
    written = command(clone.root)
    assert (written.returncode, written.stdout) == (0, "wrote PROGRESS.md\n")
    assert command(clone.root, "--check").returncode == 0
    clone.add(seed=1)
    assert command(clone.root, "--check").returncode == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema": 99}', '{"schema": 1, "week": "x"}'])
def test_a_damaged_record_is_named_and_left_out(clone: Clone, text: str) -> None:
    for seed in range(3):
        clone.add(seed=seed)
    bad = clone.root / "results" / "neural_networks" / "tiny-bad.json"
    bad.write_text(text)
    assert clone.status() == "tiny band met"
    checked = command(clone.root, "--check")
    assert checked.returncode == 1
    assert "tiny-bad.json" in checked.stderr


def cells(text: str) -> list[list[str]]:
    """Rows of the first Markdown table in a text."""
    return [
        [cell.strip() for cell in line[1:-1].split(" | ")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_results_table_of_a_lab_sheet(clone: Clone) -> None:
    sheet = clone.root / "neural_networks" / "README.md"
    sheet.parent.mkdir()
    sheet.write_text("# Week 2\n\n<!-- results:begin -->\nold\n<!-- results:end -->\n\nThe end.\n")
    for seed, (value, seconds) in enumerate([(98.3, 4.0), (98.5, 5.0), (98.4, 6.0)]):
        clone.add(seed=seed, value=value, train_seconds=seconds)
    clone.add(value=97.0, config={"lr": 0.3})
    assert set(pages.refresh(clone.root, sheets=True)) == {clone.file, sheet}
    text = sheet.read_text()
    assert text.startswith("# Week 2\n\n<!-- results:begin -->\n| Size |")
    assert text.endswith("|\n<!-- results:end -->\n\nThe end.\n")
    header, _, *rows = cells(text)
    found = [dict(zip(header, row, strict=True)) for row in rows]
    three = next(row for row in found if row["Variant"] == "lr=0.1")
    assert three == {
        "Size": "tiny", "Data": "mnist", "Variant": "lr=0.1", "Metric": "test accuracy",
        "Seeds": "3", "Result": "98.40 ± 0.10 %", "Band": "≥ 98.3 mean of 3 seeds: met",
        "Training": "5.0 s", "Machine": "Some 3000, 2 cores",
    }  # fmt: skip
    one = next(row for row in found if row["Variant"] == "lr=0.3")
    assert (one["Result"], one["Band"]) == ("97.00 %", "≥ 98.3 mean of 3 seeds: 1 so far")
    full = next(row for row in found if row["Size"] == "full")
    assert full["Result"] == "not run yet"
    guess = next(row for row in found if row["Size"] == "guessing" and row["Data"] == "mnist")
    assert guess["Result"] == "11.35 %"
    paper = next(row for row in found if row["Size"] == "published")
    assert paper["Result"] == "95.30 %"
    assert "LeCun et al. 1998" in paper["Variant"]


def test_every_finished_group_has_a_row_with_its_headline_metrics(clone: Clone) -> None:
    sheet = clone.root / "reinforcement_learning" / "README.md"
    sheet.parent.mkdir()
    sheet.write_text("<!-- results:begin --><!-- results:end -->")
    for algo, value in (("ppo", 500.0), ("dqn", 300.0), ("reinforce", 480.0)):
        clone.add(
            "reinforcement_learning", data="CartPole-v1", config={"algo": algo},
            metrics={"return": value, "unlisted": 1.0},
        )  # fmt: skip
    clone.add("reinforcement_learning", experiment="broken_x", metrics={"return": 9.0})
    pages.refresh(clone.root, sheets=True)
    rows = [row for row in cells(sheet.read_text()) if row[:2] == ["tiny", "CartPole-v1"]]
    assert [(row[2], row[5], row[6]) for row in rows] == [
        ("algo=ppo", "500.0", "≥ 475 on each of 5 seeds: 1 so far"),
        ("algo=reinforce", "480.0", "≥ 475 mean of 5 seeds: 1 so far"),
        ("algo=dqn", "300.0", ""),
    ]


def test_sheets_without_markers_are_left_alone(clone: Clone) -> None:
    sheet = clone.root / "neural_networks" / "README.md"
    sheet.parent.mkdir()
    for text in ("# Week 2\n", "<!-- results:begin -->\nno end\n", "<!-- results:end -->\n"):
        sheet.write_text(text)
        clone.add()
        assert sheet not in pages.refresh(clone.root, sheets=True)
        assert sheet.read_text() == text


def test_week_table_of_the_front_page(clone: Clone) -> None:
    front = clone.root / "README.md"
    front.write_text("Hello\n<!-- weeks:begin -->\n<!-- weeks:end -->\nBye\n")
    week = clone.root / "neural_networks"
    week.mkdir()
    (week / "train.py").touch()
    for seed in range(3):
        clone.add(seed=seed, value=98.4)
    clone.add(size="full", value=99.0)
    assert front in pages.refresh(clone.root, sheets=True)
    header, _, *rows = cells(front.read_text())
    assert header == ["Week", "Focus", "Task", "Command", "Best tiny result"]
    assert len(rows) == 24
    assert rows[1][3:] == [
        "`python -m neural_networks.train +size=tiny`",
        "98.40 ± 0.00 % test accuracy (tiny, mnist, 3 seeds)",
    ]
    assert rows[2][3:] == ["to come", ""]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (4.24, "4.2 s"), (57.4, "57 s"), (119.4, "119 s"), (119.6, "2 min 00 s"),
        (599.0, "9 min 59 s"), (3600.0, "60 min"), (7500.0, "2 h 05 min"), (61_200.0, "17 h"),
        (864_000.0, "10 days"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_latest_record_of_a_seed_is_told_by_its_time_not_its_name(clone: Clone) -> None:
    clone.add(value=98.9, started="2026-02-02T00:00:00+00:00")
    clone.add(value=97.0, started="2026-02-01T00:00:00+00:00")
    assert clone.row()["Best result"].startswith("98.90 %")


def test_a_second_process_waits_and_then_sees_what_the_first_one_brought(clone: Clone) -> None:
    clone.add()
    code = "from labkit.report import pages; print('ready', flush=True); pages.refresh()"
    with FileLock(clone.root / "results" / ".lock"):
        waiting = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE,
            env={**os.environ, "LAB_HOME": str(clone.root)},
        )  # fmt: skip
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.7)
        assert not clone.file.exists()
        clone.add(seed=1)
    assert waiting.wait(20) == 0
    assert "(tiny, mnist, 2 seeds)" in clone.file.read_text()


def test_a_learners_run_changes_progress_alone(clone: Clone) -> None:
    sheet = clone.root / "neural_networks" / "README.md"
    sheet.parent.mkdir()
    sheet.write_text("<!-- results:begin -->\n<!-- results:end -->")
    clone.add()
    assert pages.refresh(clone.root) == [clone.file]
    assert pages.refresh(clone.root, sheets=True) == [sheet]
