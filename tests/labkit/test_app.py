"""The command line: spellings accepted, mistakes refused with what to type, Hydra's traps, exit
codes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit import paths
from labkit.config import fields, schema
from labkit.errors import UsageError
from labkit.machine import device
from labkit.run import folders
from labkit.run.run import Run
from tests.conftest import fork_server

ROOT = Path(__file__).resolve().parents[2]
TOY = str(ROOT / "tests" / "labkit" / "toy" / "week.py")


def refused(entry: Any, *words: str) -> str:
    """The message with which compose refuses the words."""
    with pytest.raises(UsageError) as caught:
        entry.compose(words)
    return str(caught.value)


@pytest.mark.parametrize("word", ["size=tiny", "+size=tiny"])
def test_both_spellings_of_a_group(toy: Any, word: str) -> None:
    request = toy.compose([word])
    assert (request.size, request.config.steps, request.config.fallback) == ("tiny", 200, "digits")


@pytest.mark.parametrize("word", ["lr=1", "+lr=1", "++lr=1", "lr=1.0", "lr=1e0"])
def test_all_spellings_of_a_setting_give_a_float(toy: Any, word: str) -> None:
    value = toy.compose([word]).config.lr
    assert (type(value), value) == (float, 1.0)


@pytest.mark.parametrize(
    "order", [("size=tiny", "experiment=broken_lr"), ("+experiment=broken_lr", "+size=tiny")]
)
def test_order_of_groups_does_not_matter(toy: Any, order: tuple[str, ...]) -> None:
    cfg = toy.compose([*order, "steps=7"]).config
    assert (cfg.lr, cfg.steps) == (1e30, 7)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("+stepz=3", "unknown setting 'stepz'; did you mean steps?"),
        ("stepz=3", "unknown setting 'stepz'; did you mean steps?"),
        ("++stepz=3", "unknown setting 'stepz'; did you mean steps?"),
        ("sized=tiny", "did you mean size?"),
        ("+size=tinny", "unknown size 'tinny'; did you mean tiny?"),
        ("+experiment=broken", "unknown experiment 'broken'; did you mean broken_lr?"),
        ("steps=abc", "steps: Value 'abc' of type 'str' could not be converted to Integer"),
        ("steps=1.5", "could not be converted to Integer"),
        ("lr=[1,2]", "lr"),
        ("kind=fanzy", "kind=fanzy is not one of plain, fancy; did you mean fancy?"),
        ("precision=fp16", "precision=fp16 is not one of auto, fp32, bf16"),
        ("steps=0", "try steps=100"),
        ("seed=1,2", "need -m in front"),
        ("~steps", "cannot be deleted"),
        ("steps", "key=value"),
    ],
)
def test_mistakes_are_refused_with_what_to_type(toy: Any, word: str, said: str) -> None:
    assert said in refused(toy, word)


def test_hydra_alone_would_swallow_the_unknown_key(toy: Any) -> None:
    """The trap that strict keys exist for; should Hydra ever close it, this says so."""
    from hydra import compose, initialize_config_dir

    schema.register("toy", toy.program.config)
    with initialize_config_dir(str(paths.CONFIGS / "toy"), version_base="1.3"):
        assert compose("config", ["+stepz=3"]).stepz == 3


def test_unknown_key_in_a_yaml_file_is_refused(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    copy = tmp_path / "configs"
    shutil.copytree(paths.CONFIGS, copy)
    (copy / "toy" / "experiment" / "typo.yaml").write_text(
        "# @package _global_\nlearning_rate: 1\n"
    )
    monkeypatch.setattr(paths, "CONFIGS", copy)
    assert "learning_rate" in refused(toy, "+experiment=typo")


def test_exit_codes_and_nothing_left_behind(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["+stepz=3"],
        ["--steps=3"],
        ["device=cuda:99", "+size=smoke"],
        ["data=nope", "+size=smoke"],
        [],
    ):
        if words and words[0].startswith("device") and device.accelerator() == "cuda":
            continue
        assert toy.main(words) == 2, words
        assert "error:" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*/*/*")), "a refused run leaves no folder"
    assert not (tmp_path / "results").exists()


def test_full_size_without_gpu_says_what_to_type(
    toy: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "accelerator", lambda: None)
    assert toy.main([]) == 2
    message = capsys.readouterr().err
    assert "needs a GPU" in message
    assert "python -m toy.train +size=tiny" in message
    assert "device=cpu" in message


def test_unwritable_output_folder(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "file"))
    assert toy.main(["+size=smoke"]) == 2
    assert "LAB_HOME" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "in the way"


def test_missing_result_fails_the_run(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toy.main(["+size=smoke", "max_steps=2", "forget=true"]) == 1
    assert "run.result" in capsys.readouterr().err
    record = json.loads(next(tmp_path.glob("runs/toy/smoke/*/result.json")).read_text())
    assert record["ended"] == "failed"


def test_nan_stops_the_run_before_a_checkpoint_keeps_it(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toy.main(["+size=smoke", "+experiment=broken_lr", "checkpoint_seconds=0"]) == 1
    message = capsys.readouterr().err
    assert "train/loss became" in message
    step = int(message.split("at step ")[1].split(".")[0])
    saved = sorted(tmp_path.glob("runs/toy/smoke/*/checkpoint/*.safetensors"))
    assert int(saved[-1].stem.split("-")[1]) <= step, (
        "the checkpoint after the NaN step must not exist"
    )
    assert not (tmp_path / "results").exists()


def test_debug_run_is_short_and_enters_no_record(toy: Any, tmp_path: Path) -> None:
    assert toy.main(["+size=tiny", "debug=default"]) == 0
    record = json.loads(next(tmp_path.glob("runs/toy/tiny/*/result.json")).read_text())
    assert record["steps"] == 10
    assert not (tmp_path / "results").exists()


def test_record_says_what_was_run(toy: Any, tmp_path: Path) -> None:
    assert toy.main(["+size=smoke", "seed=5", "steps=3"]) == 0
    record = json.loads(next(tmp_path.glob("results/toy/smoke-*.json")).read_text())
    from sklearn.datasets import load_digits

    assert record["data"]["splits"] == {"train": 1437, "test": len(load_digits().target) - 1437}
    assert (record["seed"], record["config"]["steps"], record["steps"], record["ended"]) == (
        5,
        3,
        3,
        "finished",
    )
    assert record["data"]["source"] == "embedded"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert record["git"]["commit"] == (head.stdout.strip() if head.returncode == 0 else None)
    assert record["versions"]["torch"] == __import__("torch").__version__.split("+")[0]


def test_output_does_not_follow_the_working_directory(
    lab_run: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    words = [TOY, "+size=smoke", "max_steps=1"]
    process = fork_server().begin(words, elsewhere, {**lab_run.env, "PYTHONPATH": str(ROOT)})
    code, output = process.wait(100)
    assert code == 0, output
    assert list(elsewhere.iterdir()) == []
    assert len(lab_run.folders()) == 1


def test_two_runs_of_the_same_second_do_not_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        @staticmethod
        def now() -> Any:
            from datetime import datetime

            return datetime(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(folders, "datetime", Stopped)
    names = {folders.new_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(name.startswith("20260102-030405-") for name in names)


def test_sweep_makes_one_record_for_each_value(lab_run: Any) -> None:
    done = lab_run(TOY, "-m", "+size=smoke", "max_steps=null", "steps=2", "seed=1,2,3")
    assert done.returncode == 0, done.output
    records = [
        json.loads(path.read_text()) for path in lab_run.home.glob("results/toy/smoke-*.json")
    ]
    assert sorted(record["seed"] for record in records) == [1, 2, 3]
    assert len({record["metrics"]["loss_sum"] for record in records}) == 3, (
        "three seeds, three results"
    )


def test_bad_value_in_a_sweep_is_found_before_the_first_run(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toy.main(["-m", "+size=smoke", "kind=plain,fanzy"]) == 2
    assert "fanzy" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_loggers_write_files(lab_run: Any) -> None:
    done = lab_run(TOY, "+size=smoke", "max_steps=3", "logger=[tensorboard,wandb]")
    assert done.returncode == 0, done.output
    assert list(done.dir.glob("tensorboard/events.out.tfevents.*"))
    assert list(done.dir.glob("wandb/offline-run-*/run-*.wandb")), "W&B works without an account"


def test_ranks_share_one_folder(lab_run: Any) -> None:
    """Under torchrun every rank would make up its own folder; rank 0 alone writes."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         TOY, "+size=smoke", "steps=3"],
        env={**lab_run.env, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, cwd=lab_run.home,
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(lab_run.home.glob("runs/toy/smoke/*"))) == 1
    record = json.loads(next(lab_run.home.glob("results/toy/*.json")).read_text())
    assert record["processes"] == 2


def test_week_for_one_process_refuses_torchrun(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(toy, "program", dataclasses.replace(toy.program, distributed=False))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert toy.main(["+size=smoke"]) == 2
    assert "without torchrun" in capsys.readouterr().err


def test_help_shows_every_setting_with_its_docstring(
    toy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toy.main(["--help"]) == 0
    text = capsys.readouterr().out

    for item in fields.settings(toy.program.config):
        assert f"  {item.name}=" in text
    for doc in (
        "Training steps.",
        "Seconds between checkpoints; 0 saves after every step.",
        "plain | fancy",
    ):
        assert doc in text
    assert "smoke, tiny" in text


def test_help_loads_nothing_heavy() -> None:
    probe = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({TOY!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'hydra', 'matplotlib', 'sklearn', 'wandb')\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_cfg_job_shows_the_config_and_runs_nothing(lab_run: Any) -> None:
    done = lab_run(TOY, "+size=tiny", "--cfg", "job")
    assert done.returncode == 0, done.output
    assert "steps: 200" in done.output
    assert not (lab_run.home / "runs").exists()


def test_max_steps_and_stop_bound_the_loop(tmp_path: Path) -> None:
    cfg = schema.LabConfig(max_steps=4)
    (tmp_path / "a").mkdir()
    run = Run("toy", cfg, tmp_path / "a", "smoke")
    assert list(run.steps(10)) == [0, 1, 2, 3]
    (tmp_path / "b").mkdir()
    run = Run("toy", schema.LabConfig(), tmp_path / "b", "smoke")
    seen = []
    for step in run.steps(10):
        seen.append(step)
        if step == 2:
            run.stop()
    run.save()
    assert seen == [0, 1, 2]
    again = Run("toy", schema.LabConfig(), tmp_path / "b", "smoke", resumed=True)
    assert list(again.steps(10)) == [], "a stopped loop stays stopped"
