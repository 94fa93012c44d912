"""A run from its first moment to its last: what it holds, what may break around it."""

from __future__ import annotations

import errno
import json
import os
import resource
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labkit import Run, cli, course, files
from labkit.errors import UsageError
from labkit.records import store
from labkit.report import pages
from labkit.run import artifacts, folders
from labkit.state import arithmetic, checkpoint

MAKE = ["+size=smoke"]


def quick(cfg: Any, run: Run) -> None:
    """A week whose result follows from its seed, kept over stops."""
    rng, history = np.random.default_rng(cfg.seed), {"sum": np.zeros(1)}
    run.track(rng=rng, history=history)
    run.generated("letters", {"test": 1}, "0")
    for step in run.steps(cfg.steps):
        history["sum"] += rng.normal()
        run.log({"train/loss": history["sum"][0]}, step)
    run.save()
    run.publish(lambda folder: (folder / "weights").write_bytes(b"w"))
    run.result({"sum": history["sum"][0]})


def stopped_at(step: int, number: int = signal.SIGTERM) -> Any:
    """The same week, told to stop at a step."""

    def train(cfg: Any, run: Run) -> None:
        original = run.log

        def log(metrics: dict[str, Any], at: int) -> None:
            original(metrics, at)
            if at == step and not (run.dir / "again").exists():
                (run.dir / "again").touch()
                os.kill(os.getpid(), number)

        run.log = log  # type: ignore[method-assign]
        quick(cfg, run)

    return train


def run_folders(home: Path) -> list[Path]:
    return sorted(path.parent for path in home.glob("runs/*/*/*/.hydra"))


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


# --- the lock ---


def test_a_run_holds_its_folder_from_the_first_moment_to_the_last(
    week: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    def train(cfg: Any, run: Run) -> None:
        assert folders.in_use(run.dir)
        seen.append(week(quick).main([f"resume={run.dir}"]))
        seen.append(week(quick).main(["resume=latest"]))
        quick(cfg, run)

    assert week(train).main(MAKE) == 0
    assert seen == [2, 2]
    said = capsys.readouterr().err
    assert "is in use: another process runs it" in said
    assert "is still running" in said
    (folder,) = run_folders(tmp_path)
    assert not folders.in_use(folder)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 30


def test_a_resumed_run_holds_its_folder_too(week: Any, tmp_path: Path) -> None:
    assert week(stopped_at(5)).main(MAKE) == 130
    held: list[bool] = []

    def train(cfg: Any, run: Run) -> None:
        held.append(folders.in_use(run.dir))
        quick(cfg, run)

    assert week(train).main(["resume=latest"]) == 0
    assert held == [True]


# --- folders ---


@pytest.mark.parametrize(
    "name",
    [
        "no\u00a0break zero\u200dwidth 👩\u200d🔬 back\\slash quote'\"",
        "${b} ${oc.env:HOME} $HOME `ls`",
        "a=b,c [d] {e} tab\tnew\nline # %s%(x)d",
    ],
)
def test_any_folder_name_will_do_and_the_printed_command_finds_it(
    week: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:  # fmt: skip
    home = tmp_path / name
    monkeypatch.setenv("LAB_HOME", str(home))
    assert week(stopped_at(5)).main(MAKE) == 130
    (folder,) = run_folders(home)
    assert {p.name for p in (folder / ".hydra").iterdir()} == {
        "config.yaml", "hydra.yaml", "overrides.yaml",
    }  # fmt: skip
    assert (folder / "metrics.jsonl").is_file()
    assert list(tmp_path.iterdir()) == [home], "the run is in one place"
    command = capsys.readouterr().err.partition("Resume with:\n  ")[2].rstrip("\n")
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "toy.train"]
    assert words[3:] == [f"resume={folder}"]
    assert week(quick).main(words[3:]) == 0
    assert record(folder)["ended"] == "finished"
    assert week(quick).main(["-m", "+size=smoke", "steps=2", "seed=1,2"]) == 0
    assert len(run_folders(home)) == 3


def test_each_job_of_a_sweep_over_sizes_is_where_its_size_belongs(
    week: Any, tmp_path: Path
) -> None:
    assert week(quick).main(["-m", "size=smoke,tiny", "steps=2", "device=cpu"]) == 0
    found = {folder.parent.name: folder.name.rpartition("-")[2] for folder in run_folders(tmp_path)}
    assert found == {"smoke": "0", "tiny": "1"}
    sizes = {folder.parent.name: record(folder)["size"] for folder in run_folders(tmp_path)}
    assert sizes == {"smoke": "smoke", "tiny": "tiny"}
    assert [path.name for path in tmp_path.glob("runs/toy/sweeps/*/*")] == ["multirun.yaml"]


@pytest.mark.parametrize("word", ["max_steps=-1", "max_steps=0"])
def test_a_loop_of_no_steps_is_refused(week: Any, word: str, capsys: Any) -> None:
    assert week(quick).main([*MAKE, word]) == 2
    assert f"{word} must be at least 1" in capsys.readouterr().err


# --- what others wrote ---


GOOD = {
    "schema": 1, "week": "toy", "size": "tiny", "config": {}, "seed": 0, "metrics": {},
    "ended": "finished", "started": "2026-01-01",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": None}, "config: Input should be a valid dictionary"),
        ({"metrics": {"sum": "high"}}, "metrics.sum: Input should be a valid number"),
        ({"metrics": {"sum": float("nan")}}, "metrics.sum: Input should be a finite number"),
        ({"metrics": None}, "metrics"),
        ({"seed": [1]}, "seed: Input should be a valid integer"),
        ({"seed": True}, "seed"),
        ({"ended": "maybe"}, "ended"),
        ({"week": 3}, "week"),
        ({"size": None}, "size"),
        ({"started": 7}, "started"),
        ({"data": []}, "data"),
        ({"data": {"name": None}}, "data.name"),
        ({"data": {"name": "a", "splits": [1]}}, "data.splits"),
        ({"machine": "mine"}, "machine"),
        ({"machine": {"name": 7}}, "machine.name"),
        ({"train_seconds": "long"}, "train_seconds"),
        ({"processes": "two"}, "processes"),
        ({"experiment": 7}, "experiment"),
        ({"schema": 2}, "schema"),
        ([GOOD], "the file"),
        (7, "the file"),
    ],
)
def test_a_malformed_record_fails_no_run_and_is_named(
    week: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, said: str
) -> None:
    place = tmp_path / "results" / "neural_networks" / "tiny-bad.json"
    place.parent.mkdir(parents=True)
    value = {**GOOD, "week": "neural_networks", **change} if isinstance(change, dict) else change
    place.write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"tiny-bad\.json is not a result record"):
        store.read(place)
    assert cli.main(["progress", "--sheets"]) == 0
    message = capsys.readouterr().err
    assert f"{place} is not a result record: {said}" in message
    assert "not started" in (tmp_path / "PROGRESS.md").read_text()
    assert cli.main(["progress", "--check"]) == 1
    assert artifacts._expected("toy", "tiny", "digits", None) == ""
    if change in ({"config": None}, [GOOD]):
        assert week(quick).main(MAKE) == 0
        assert "tiny-bad.json is not a result record" in capsys.readouterr().err
        assert record(run_folders(tmp_path)[0])["ended"] == "finished"


def test_old_records_fit_the_schema() -> None:
    found, damaged = store.read_all(Path(__file__).resolve().parents[2] / "results")
    assert damaged == []
    assert len(found) > 30


def test_notes_are_in_the_record_and_a_run_without_any_has_none(week: Any, tmp_path: Path) -> None:
    def noting(cfg: Any, run: Run) -> None:
        run.note(extractor="classifier", seconds=1.5)
        run.note(seconds=2.5)
        quick(cfg, run)

    assert week(noting).main(MAKE) == 0
    assert week(quick).main(MAKE) == 0
    records = [json.loads(f.read_text()) for f in tmp_path.glob("results/toy/*.json")]
    assert [r["notes"] for r in records if "notes" in r] == [
        {"extractor": "classifier", "seconds": 2.5}
    ]
    assert len(records) == 2


def test_tables_that_cannot_be_made_fail_no_run(
    week: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(root: Path) -> None:
        raise KeyError("ended")

    monkeypatch.setattr(pages, "refresh", broken)
    assert week(quick).main(MAKE) == 0
    assert "the result is recorded, but the tables" in capsys.readouterr().err
    assert len(list(tmp_path.glob("results/toy/*.json"))) == 1


def test_a_fault_in_the_curriculum_is_found_before_the_first_step(
    week: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def faulty() -> None:
        raise UsageError("curriculum.yaml: week 3: metrics 1: digits: expected int, got 'two'")

    monkeypatch.setattr(course, "load", faulty)
    steps: list[int] = []
    assert week(lambda cfg, run: steps.extend(run.steps(3))).main(MAKE) == 2
    assert "curriculum.yaml: week 3" in capsys.readouterr().err
    assert steps == []
    assert run_folders(tmp_path) == []


def test_a_result_that_tells_no_end_can_be_resumed(week: Any, tmp_path: Path) -> None:
    assert week(stopped_at(5)).main(MAKE) == 130
    (folder,) = run_folders(tmp_path)
    (folder / "result.json").write_text('{"schema": 1}')
    assert week(quick).main([f"resume={folder}"]) == 0


# --- disks ---


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """In here no file grows beyond `size` bytes: the kernel's own refusal, in the middle of one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_at_the_metrics_ends_the_run_and_it_resumes_exactly(
    week: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.run.steps.FLUSH_SECONDS", -1.0)
    assert week(quick).main([*MAKE, "steps=2000"]) == 0
    (whole,) = run_folders(tmp_path)
    with file_limit(60_000):
        assert week(quick).main([*MAKE, "steps=2000", "checkpoint_seconds=0.01"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "File too large. Free some space" in said
    (cut,) = (folder for folder in run_folders(tmp_path) if folder != whole)
    assert f"resume={cut}" in said
    lines = (cut / "metrics.jsonl").read_bytes()
    assert lines.endswith(b"\n"), "no half line stays"
    assert week(quick).main([f"resume={cut}"]) == 0
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert record(cut)["metrics"] == record(whole)["metrics"]


def test_a_full_disk_before_the_first_step(
    week: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with file_limit(0):
        assert week(quick).main(MAKE) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "File too large. Free some space" in said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    with file_limit(0):
        assert week(quick).main(["-m", *MAKE, "seed=1,2"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_full_disk_at_the_result_leaves_the_run_resumable(
    week: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", full)
        assert week(quick).main(MAKE) == 1
    assert "No space left on device. Free some space" in capsys.readouterr().err
    (folder,) = run_folders(tmp_path)
    assert week(quick).main([f"resume={folder}"]) == 0
    assert record(folder)["ended"] == "finished"


def test_a_read_only_folder_is_said_on_resume_and_nothing_is_touched(
    week: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert week(stopped_at(5)).main(MAKE) == 130
    (folder,) = run_folders(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    access = os.access
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda p, mode: Path(p) != folder and access(p, mode))
        assert week(quick).main([f"resume={folder}"]) == 2
    assert "cannot be written to (no permission to write)" in capsys.readouterr().err
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    assert week(quick).main([f"resume={folder}"]) == 1
    said = capsys.readouterr().err
    assert "metrics.jsonl: Is a directory" in said
    assert "Traceback" not in said
    (folder / "metrics.jsonl").rmdir()
    assert {p: p.read_bytes() for p in before if p.name != "metrics.jsonl"} == {
        p: text for p, text in before.items() if p.name != "metrics.jsonl"
    }


def test_metrics_that_lost_their_end_are_not_padded(
    week: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert week(stopped_at(5)).main(MAKE) == 130
    (folder,) = run_folders(tmp_path)
    (folder / "metrics.jsonl").write_bytes(b"")
    assert week(quick).main([f"resume={folder}"]) == 0
    assert "is cut short by" in capsys.readouterr().err
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(6, 30))


def test_little_room_is_said_once_while_there_is_time(
    week: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "free_bytes", lambda folder: 100)
    assert week(quick).main([*MAKE, "checkpoint_seconds=0"]) == 0
    assert capsys.readouterr().err.count("the next checkpoint needs") == 1


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_twice_still_saves(
    week: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: int,
    request: pytest.FixtureRequest,
) -> None:
    """As when a whole group of processes is ended, and the parent passes it on too. (Under nohup
    SIGHUP is ignored, and a run ignores it too.)
    """
    twice = stopped_at(5, number)
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, signal.SIG_DFL)))

    def train(cfg: Any, run: Run) -> None:
        original = run._log.flush

        def flush() -> int:
            if run._signal is not None and not (run.dir / "second").exists():
                (run.dir / "second").touch()
                os.kill(os.getpid(), number)
            return original()

        run._log.flush = flush  # type: ignore[method-assign]
        twice(cfg, run)

    assert week(train).main(MAKE) == 130
    assert f"stopped by {signal.Signals(number).name} after step 6" in capsys.readouterr().err
    assert (run_folders(tmp_path)[0] / "second").exists()
    assert signal.getsignal(number) == signal.SIG_DFL


# --- the same bits ---


def test_a_resumed_run_computes_in_the_threads_it_began_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, blas = torch.get_num_threads(), arithmetic.state()["blas_threads"]
    try:
        torch.set_num_threads(2)
        saved = arithmetic.state()
        assert saved["threads"] == 2
        torch.set_num_threads(1)
        arithmetic.restore({"machine": saved})
        assert torch.get_num_threads() == 2
        assert "computing with 2 threads, as before the stop" in capsys.readouterr().err
        arithmetic.restore({"machine": saved})
        arithmetic.restore({})  # of an older version
        assert capsys.readouterr().err == ""
        arithmetic.restore({"machine": {**saved, "blas_threads": (blas or 1) + 1}})
        if blas is not None:
            assert arithmetic.state()["blas_threads"] == blas + 1
        arithmetic.restore({"machine": {**saved, "processes": 4, "instructions": "ABACUS"}})
        said = capsys.readouterr().err
        assert "another processes (1, before the stop 4)" in said
        assert "before the stop ABACUS" in said
    finally:
        torch.set_num_threads(before)
        if blas is not None:
            arithmetic.restore({"machine": {**arithmetic.state(), "blas_threads": blas}})


def test_the_checkpoint_of_a_run_names_its_threads(week: Any, tmp_path: Path) -> None:
    assert week(stopped_at(5)).main(MAKE) == 130
    state = checkpoint.load_latest(run_folders(tmp_path)[0] / "checkpoint")
    assert state is not None
    assert state["machine"] == arithmetic.state()


def test_tensorboard_shows_every_point_of_a_resumed_run(week: Any, tmp_path: Path) -> None:
    """Points stand at steps of the environment, a hundred to each step of the loop."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def train(cfg: Any, run: Run) -> None:
        run.track(nothing=[])
        run.generated("letters", {"test": 1}, "0")
        for step in run.steps(20):
            if step == 8:
                run.save()
            run.log({"eval/return": float(step)}, 100 * step)
            if step == 12 and not (run.dir / "again").exists():
                (run.dir / "again").touch()
                run._log.flush()
                raise RuntimeError("killed")  # what came after step 8 is in no checkpoint
        run.result({"return": 1.0})

    assert week(train).main([*MAKE, "logger=tensorboard"]) == 1
    (folder,) = run_folders(tmp_path)
    assert week(train).main([f"resume={folder}", "logger=tensorboard"]) == 0
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("eval/return")]
    assert points == [(100 * step, float(step)) for step in range(20)]


# --- artifacts ---


def test_only_a_sizes_own_settings_publish_under_its_name(
    week: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "artifacts" / "toy" / "smoke-letters"
    assert week(quick).main([*MAKE, "steps=1"]) == 0
    assert not folder.exists()
    assert "not published as toy/smoke: this run has steps=1 instead of 30" in (
        capsys.readouterr().err
    )
    free = ["seed=3", "checkpoint_seconds=1", "precision=fp32", "device=cpu"]
    assert week(quick).main([*MAKE, *free]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["record.json", "weights"]
    found = store.read(folder / "record.json")
    assert (found["seed"], found["ended"], found["config"]["steps"]) == (3, "finished", 30)
    assert found["metrics"].keys() == {"sum"}
    assert artifacts.fault(folder) is None
    assert week(quick).main(["-m", *MAKE, "seed=4,5"]) == 0, "inside a sweep as well"
    assert store.read(folder / "record.json")["seed"] == 5
    assert [path.name for path in folder.parent.iterdir()] == ["smoke-letters"]


def test_a_run_that_fails_after_publishing_leaves_the_old_artifact(
    week: Any, tmp_path: Path
) -> None:
    assert week(quick).main(MAKE) == 0

    def train(cfg: Any, run: Run) -> None:
        run.generated("letters", {"test": 1}, "0")
        list(run.steps(cfg.steps))
        run.publish(lambda folder: (folder / "weights").write_bytes(b"worse"))
        raise RuntimeError("evaluation failed")

    assert week(train).main(MAKE) == 1
    folder = tmp_path / "artifacts" / "toy" / "smoke-letters"
    assert (folder / "weights").read_bytes() == b"w"


def test_experiments_publish_under_their_own_name_and_broken_runs_nothing(
    toy: Any, week: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from labkit import paths

    copy = tmp_path / "configs"
    shutil.copytree(paths.CONFIGS, copy)
    (copy / "toy" / "experiment" / "fancy.yaml").write_text("# @package _global_\nkind: fancy\n")
    monkeypatch.setattr(paths, "CONFIGS", copy)
    assert week(quick).main([*MAKE, "+experiment=fancy"]) == 0
    assert week(quick).main([*MAKE, "kind=fancy"]) == 0
    assert week(quick).main([*MAKE, "+experiment=broken_lr"]) == 0
    assert week(quick).main([*MAKE, "max_steps=2"]) == 0
    names = [path.name for path in (tmp_path / "artifacts" / "toy").iterdir()]
    assert names == ["smoke-letters-fancy"]


def test_no_signal_handler_or_argument_stays_behind(week: Any) -> None:
    before = sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM)
    week(quick).main(MAKE)
    assert (sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM)) == before
    assert "LAB_HYDRA" not in os.environ
